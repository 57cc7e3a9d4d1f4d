// The file system of the sandbox, through the SDK.
import { SandboxAgent, SandboxAgentError } from 'sandbox-agent'
import { assert, run, test } from './_check.mjs'
import { fresh, home, options, reference } from './_face.mjs'
import { tar } from './_tar.mjs'

const sdk = await SandboxAgent.connect(options())
const dir = `${home}/${fresh('fs')}`
const text = async (path) => new TextDecoder().decode(await sdk.readFsFile({ path }))

/** The error of a request that failed; `reference` answers 400 to whatever is not there. */
async function failure(promise, status, detail) {
  const error = await promise.then(() => assert.fail('it succeeded'), (error) => error)
  assert.ok(error instanceof SandboxAgentError, error)
  assert.equal(error.status, status, JSON.stringify(error.problem))
  if (detail) assert.match(error.problem.detail, detail)
  return error.problem
}
const missing = reference ? 400 : 404

test('write and read', async () => {
  const path = `${dir}/a/b/text.txt`
  assert.deepEqual(await sdk.writeFsFile({ path }, 'Grüße'), { path, bytesWritten: 7 })
  assert.equal(await text(path), 'Grüße')
  const bytes = new Uint8Array(256).map((_, i) => i)
  await sdk.writeFsFile({ path: `${dir}/bytes` }, bytes)
  assert.deepEqual(await sdk.readFsFile({ path: `${dir}/bytes` }), bytes)
  await sdk.writeFsFile({ path }, 'short')
  assert.equal(await text(path), 'short')
  assert.equal((await sdk.writeFsFile({ path: `${dir}/empty` }, '')).bytesWritten, 0)
  assert.equal(await text(`${dir}/empty`), '')
})

test('names of all kinds', async () => {
  for (const name of ['with space', 'ünï🐸', 'a+b&c=d%20#?', "quote'\""]) {
    const path = `${dir}/names/${name}`
    await sdk.writeFsFile({ path }, name)
    assert.equal(await text(path), name)
  }
  const listed = await sdk.listFsEntries({ path: `${dir}/names` })
  assert.equal(listed.length, 4)
})

test('stat and list', async () => {
  const path = `${dir}/info`
  await sdk.writeFsFile({ path }, '12345')
  const stat = await sdk.statFs({ path })
  assert.deepEqual({ ...stat, modified: undefined }, { path, entryType: 'file', size: 5, modified: undefined })
  assert.match(stat.modified, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$/)
  assert.ok(Math.abs(Date.parse(stat.modified) - Date.now()) < 60_000)
  const entries = await sdk.listFsEntries({ path: dir })
  const found = Object.fromEntries(entries.map((entry) => [entry.name, entry]))
  assert.equal(found.a.entryType, 'directory')
  assert.deepEqual({ ...found.info, modified: undefined }, { name: 'info', path, entryType: 'file', size: 5, modified: undefined })
})

test('a relative path is below the home', async () => {
  const name = fresh('relative')
  await sdk.writeFsFile({ path: `${name}/x` }, 'home')
  const { stdout } = await sdk.runProcess({ command: 'sh', args: ['-c', `cat ~/${name}/x; rm -r ~/${name}`] })
  assert.equal(stdout, 'home')
  assert.ok(Array.isArray(await sdk.listFsEntries()))
  await failure(sdk.readFsFile({ path: '../x' }), 400, /invalid relative path/)
})

test('mkdir, move, overwrite', async () => {
  assert.deepEqual(await sdk.mkdirFs({ path: `${dir}/m/n` }), { path: `${dir}/m/n` })
  await sdk.mkdirFs({ path: `${dir}/m/n` })
  await sdk.writeFsFile({ path: `${dir}/from` }, '1')
  const moved = await sdk.moveFs({ from: `${dir}/from`, to: `${dir}/m/to` })
  assert.deepEqual(moved, { from: `${dir}/from`, to: `${dir}/m/to` })
  await sdk.writeFsFile({ path: `${dir}/from` }, '2')
  await failure(sdk.moveFs({ from: `${dir}/from`, to: `${dir}/m/to` }), 400, /destination already exists/)
  await sdk.moveFs({ from: `${dir}/from`, to: `${dir}/m/to`, overwrite: true })
  assert.equal(await text(`${dir}/m/to`), '2')
  await failure(sdk.statFs({ path: `${dir}/from` }), missing)
})

test('delete, with and without what is inside', async () => {
  await sdk.writeFsFile({ path: `${dir}/d/e/f` }, 'x')
  const refused = await sdk.deleteFsEntry({ path: `${dir}/d` }).then(() => undefined, (error) => error)
  assert.ok(refused instanceof SandboxAgentError)
  if (reference) assert.equal(refused.status, 502)
  else assert.ok([400, 409, 502].includes(refused.status), `status ${refused.status}`)
  assert.equal(await text(`${dir}/d/e/f`), 'x')
  assert.deepEqual(await sdk.deleteFsEntry({ path: `${dir}/d`, recursive: true }), { path: `${dir}/d` })
  await failure(sdk.statFs({ path: `${dir}/d` }), missing)
})

test('what is not there', async () => {
  const nowhere = `${dir}/no/such/thing`
  for (const attempt of [
    () => sdk.readFsFile({ path: nowhere }),
    () => sdk.statFs({ path: nowhere }),
    () => sdk.listFsEntries({ path: nowhere }),
    () => sdk.deleteFsEntry({ path: nowhere }),
    () => sdk.moveFs({ from: nowhere, to: `${dir}/x` }),
  ]) {
    const problem = await failure(attempt(), missing)
    assert.ok(problem.detail.includes(nowhere), problem.detail)
  }
  await sdk.writeFsFile({ path: `${dir}/file` }, 'x')
  await failure(sdk.listFsEntries({ path: `${dir}/file` }), 400, /not a directory/)
  await failure(sdk.readFsFile({ path: dir }), 400, /not a file/)
})

test('a batch is unpacked', async () => {
  const files = { 'k/one': '1', two: '22', 'deep/er/three': '333' }
  const target = `${dir}/batch`
  const { paths, truncated } = await sdk.uploadFsBatch(tar(files), { path: target })
  assert.equal(truncated, false)
  for (const [name, content] of Object.entries(files)) {
    assert.ok(paths.includes(`${target}/${name}`), `${name} in ${paths}`)
    assert.equal(await text(`${target}/${name}`), content)
  }
})

test('a batch cannot leave its folder', async () => {
  const target = `${dir}/jail`
  await sdk.uploadFsBatch(tar({ '../escaped': 'x', good: 'y' }), { path: target }).catch(() => {})
  await failure(sdk.statFs({ path: `${dir}/escaped` }), missing)
})

test('many files of a batch are named, and how many there were beyond', async () => {
  const files = Object.fromEntries(Array.from({ length: 1030 }, (_, i) => [`f${i}`, '']))
  const { paths, truncated } = await sdk.uploadFsBatch(tar(files), { path: `${dir}/many` })
  assert.equal(truncated, true)
  assert.equal(paths.length, 1024)
  assert.equal((await sdk.listFsEntries({ path: `${dir}/many` })).length, 1030)
})

test('50 MB go up and come back', async () => {
  if (reference) return // it stops at 2 MiB
  const big = new Uint8Array(50_000_000)
  for (let i = 0; i < big.length; i += 4096) big[i] = (i / 4096) % 251
  const path = `${dir}/big`
  assert.equal((await sdk.writeFsFile({ path }, big)).bytesWritten, big.length)
  assert.equal((await sdk.statFs({ path })).size, big.length)
  const back = await sdk.readFsFile({ path })
  assert.ok(Buffer.from(back.buffer).equals(Buffer.from(big.buffer)))
  const { paths } = await sdk.uploadFsBatch(tar({ large: big }), { path: `${dir}/batch` })
  assert.deepEqual(paths, [`${dir}/batch/large`])
  assert.equal((await sdk.statFs({ path: `${dir}/batch/large` })).size, big.length)
})

await run(async () => {
  await sdk.deleteFsEntry({ path: dir, recursive: true })
  await sdk.dispose()
})
