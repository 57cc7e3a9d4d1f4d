// Every method of `Volume` that needs no sandbox.
import { Volume, VolumePathNotFoundError, VolumeNotFoundError } from 'e2b'
import { assert, run, test } from './_check.mjs'

const name = `vol-${Date.now()}`
const volume = await Volume.create(name)

test('create, connect, list', async () => {
  assert.equal(volume.name, name)
  const again = await Volume.connect(volume.volumeId)
  assert.deepEqual([again.volumeId, again.name, again.token], [volume.volumeId, name, volume.token])
  const info = await Volume.getInfo(volume.volumeId)
  assert.equal(info.name, name)
  assert.ok((await Volume.list()).some((one) => one.volumeId === volume.volumeId))
  await assert.rejects(Volume.create(name))
})

test('directories', async () => {
  const made = await volume.makeDir('/a/b', { force: true, mode: 0o700, uid: 1000, gid: 1000 })
  assert.deepEqual([made.path, made.type, made.mode & 0o777, made.uid], ['/a/b', 'directory', 0o700, 1000])
  await assert.rejects(volume.makeDir('/none/b'), VolumePathNotFoundError)
})

test('write and read text, bytes, blobs and streams', async () => {
  const entry = await volume.writeFile('/a/text', 'Grüße')
  assert.deepEqual([entry.path, entry.type, entry.size], ['/a/text', 'file', 7])
  assert.equal(await volume.readFile('/a/text'), 'Grüße')
  const bytes = new Uint8Array(3 << 20).map((_, i) => i % 251)
  await volume.writeFile('/a/bytes', bytes.buffer, { mode: 0o600 })
  assert.deepEqual(await volume.readFile('/a/bytes', { format: 'bytes' }), bytes)
  assert.equal((await volume.readFile('/a/bytes', { format: 'blob' })).size, bytes.length)
  let total = 0
  for await (const chunk of await volume.readFile('/a/bytes', { format: 'stream' })) total += chunk.length
  assert.equal(total, bytes.length)
  await volume.writeFile('/a/stream', new Blob(['from a ', 'stream']).stream())
  assert.equal(await volume.readFile('/a/stream'), 'from a stream')
  await volume.writeFile('/a/text', 'short')
  assert.equal(await volume.readFile('/a/text'), 'short')
  await assert.rejects(volume.readFile('/none'), VolumePathNotFoundError)
})

test('list, info, metadata', async () => {
  const names = async (path, depth) => (await volume.list(path, { depth })).map((one) => one.path)
  assert.deepEqual(await names('/'), ['/a'])
  assert.deepEqual(await names('/', 2), ['/a', '/a/b', '/a/bytes', '/a/stream', '/a/text'])
  const info = await volume.getInfo('/a/bytes')
  assert.deepEqual([info.name, info.mode & 0o777], ['bytes', 0o600])
  assert.ok(Math.abs(info.mtime - Date.now()) < 600_000)
  const changed = await volume.updateMetadata('/a/bytes', { mode: 0o644, uid: 1000, gid: 1000 })
  assert.deepEqual([changed.mode & 0o777, changed.uid, changed.gid], [0o644, 1000, 1000])
  assert.equal(await volume.exists('/a/bytes'), true)
  assert.equal(await volume.exists('/none'), false)
})

test('remove and destroy', async () => {
  await volume.remove('/a')
  assert.equal(await volume.exists('/a'), false)
  await assert.rejects(volume.remove('/a'), VolumePathNotFoundError)
  assert.equal(await Volume.destroy(volume.volumeId), true)
  assert.equal(await Volume.destroy(volume.volumeId), false)
  await assert.rejects(Volume.connect(volume.volumeId), VolumeNotFoundError)
})

await run()
