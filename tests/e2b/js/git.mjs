// Every method of `git` that needs no remote on the internet: the remote is a bare repository.
import { Sandbox } from 'e2b'
import { assert, run, test } from './_check.mjs'

const sbx = await Sandbox.create({ timeoutMs: 300_000 })
const { git, files } = sbx

test('init, configure, add, commit, status, branches', async () => {
  await git.configureUser('Test', 'test@example.com')
  assert.equal(await git.getConfig('user.name'), 'Test')
  await git.setConfig('pull.rebase', 'false')
  await git.init('repo', { initialBranch: 'main' })
  await files.write('repo/a.txt', 'a')
  assert.equal((await git.status('repo')).fileStatus.length, 1)
  await git.add('repo', { all: true })
  await git.commit('repo', 'first')
  assert.equal((await git.status('repo')).fileStatus.length, 0)
  await git.createBranch('repo', 'feature')
  assert.equal((await git.branches('repo')).currentBranch, 'feature')
  await git.checkoutBranch('repo', 'main')
  await git.deleteBranch('repo', 'feature', { force: true })
  assert.deepEqual((await git.branches('repo')).branches, ['main'])
})

test('remote, push, clone, pull', async () => {
  await sbx.commands.run('git init -q --bare remote.git -b main')
  await git.remoteAdd('repo', 'origin', '/home/user/remote.git')
  assert.equal(await git.remoteGet('repo', 'origin'), '/home/user/remote.git')
  await git.push('repo', { remote: 'origin', branch: 'main', setUpstream: true })
  await git.clone('/home/user/remote.git', { path: 'cloned' })
  assert.equal(await files.read('cloned/a.txt'), 'a')
  await files.write('repo/b.txt', 'b')
  await git.add('repo')
  await git.commit('repo', 'second')
  await git.push('repo')
  await git.pull('cloned')
  assert.equal(await files.read('cloned/b.txt'), 'b')
})

test('reset and restore', async () => {
  await files.write('repo/a.txt', 'changed')
  await git.restore('repo', { paths: ['a.txt'], worktree: true })
  assert.equal(await files.read('repo/a.txt'), 'a')
  await files.write('repo/c.txt', 'c')
  await git.add('repo')
  await git.reset('repo', { mode: 'hard' })
  assert.equal(await files.exists('repo/c.txt'), false)
})

await run(() => sbx.kill())
