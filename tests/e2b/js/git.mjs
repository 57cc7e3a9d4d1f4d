// Every method of `git` that needs no remote on the internet: the remote is a bare repository.
import { GitAuthError, GitUpstreamError, InvalidArgumentError, Sandbox } from 'e2b'
import { assert, run, test, until } from './_check.mjs'

const sbx = await Sandbox.create({ timeoutMs: 300_000 })
const { git, files } = sbx
const ann = { username: 'ann', password: 's3cret' }

/** A Git server inside that answers `ann` alone. */
async function servePrivately(port) {
  await files.write('private.py', `
import base64, http.server
WANTED = 'Basic ' + base64.b64encode(b'ann:s3cret').decode()
class H(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers['Authorization'] == WANTED:
            return super().do_GET()
        self.send_response(401); self.send_header('WWW-Authenticate', 'Basic realm="git"'); self.send_header('Content-Length', '0'); self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', ${port}), H).serve_forever()
`)
  await sbx.commands.run('python3 private.py', { background: true })
  await until(async () => {
    const probe = await sbx.commands.run(`curl -s -o /dev/null 127.0.0.1:${port} && echo up || true`)
    return probe.stdout === 'up\n'
  }, 'the Git server')
}

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

test('settings and remotes that are not there, and those of one repository', async () => {
  assert.equal(await git.getConfig('no.such'), undefined)
  assert.equal(await git.remoteGet('repo', 'no-such'), undefined)
  await git.setConfig('user.name', 'Local', { scope: 'local', path: 'repo' })
  assert.equal(await git.getConfig('user.name', { scope: 'local', path: 'repo' }), 'Local')
  assert.equal(await git.getConfig('user.name'), 'Test')
  await git.remoteAdd('repo', 'second', '/home/user/elsewhere.git')
  await git.remoteAdd('repo', 'second', '/home/user/remote.git', { overwrite: true, fetch: true })
  assert.equal(await git.remoteGet('repo', 'second'), '/home/user/remote.git')
  await git.init('lonely', { initialBranch: 'main' })
  await assert.rejects(git.pull('lonely'), GitUpstreamError)
})

test('a private remote: credentials of one call, and those that are stored', async () => {
  await sbx.commands.run('git -C remote.git update-server-info')
  await servePrivately(8000)
  const url = 'http://127.0.0.1:8000/remote.git'
  await assert.rejects(git.clone(url, { path: 'refused' }), GitAuthError)
  await git.clone(url, { path: 'once', ...ann })
  assert.equal(await git.remoteGet('once', 'origin'), url)
  await assert.rejects(git.pull('once'), GitAuthError)
  await git.pull('once', ann)
  await assert.rejects(git.dangerouslyAuthenticate({ username: 'ann' }), InvalidArgumentError)
  await git.dangerouslyAuthenticate({ ...ann, host: '127.0.0.1:8000', protocol: 'http' })
  assert.equal(await git.getConfig('credential.helper'), 'store')
  await git.clone(url, { path: 'stored' })
  assert.equal(await files.read('stored/a.txt'), 'a')
  await git.pull('once')
})

await run(() => sbx.kill())
