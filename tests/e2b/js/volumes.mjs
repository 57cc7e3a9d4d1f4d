// Every method of `Volume`, and volumes in sandboxes.
import { Sandbox, Volume, VolumePathNotFoundError, VolumeNotFoundError } from 'e2b'
import { assert, run, test, until } from './_check.mjs'

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

test('sandboxes share a volume, live and with its own methods', async () => {
  const shared = await Volume.create(`${name}-shared`)
  const mounts = { timeoutMs: 120_000, volumeMounts: { '/mnt/data': shared } }
  const one = await Sandbox.create('base', mounts)
  const other = await Sandbox.create('base', { ...mounts, volumeMounts: { '/data': shared.name } })
  try {
    const info = await one.getInfo()
    assert.deepEqual(info.volumeMounts, [{ name: shared.name, path: '/mnt/data' }])
    await one.files.write('/mnt/data/hello.txt', 'hello')
    assert.equal((await other.commands.run('cat /data/hello.txt')).stdout, 'hello')
    assert.equal(await shared.readFile('/hello.txt'), 'hello')
    assert.equal((await shared.getInfo('/hello.txt')).uid, 1000)
    await shared.writeFile('/from-outside', 'outside', { uid: 1000, gid: 1000 })
    await other.commands.run('echo " inside" >> /data/from-outside')
    assert.equal(await one.files.read('/mnt/data/from-outside'), 'outside inside\n')
    await assert.rejects(Volume.destroy(shared.volumeId), /mounted in/)
  } finally {
    await Promise.all([one.kill(), other.kill()])
  }
  assert.equal(await shared.readFile('/hello.txt'), 'hello')
  assert.equal(await Volume.destroy(shared.volumeId), true)
})

test('a paused sandbox comes back with its volume and what it had open there', async () => {
  const shared = await Volume.create(`${name}-paused`)
  const sbx = await Sandbox.create('base', { timeoutMs: 120_000, volumeMounts: { '/data': shared } })
  try {
    await sbx.commands.run('exec 3>>/data/log; while true; do echo $((i+=1)) >&3; sleep 0.05; done', {
      background: true,
    })
    const lines = async () => ((await shared.exists('/log')) ? (await shared.readFile('/log')).split('\n').length : 0)
    await until(async () => (await lines()) > 3, 'the first lines')
    await sbx.pause()
    const before = await lines()
    await shared.writeFile('/meanwhile', 'written while it slept')
    await sbx.connect()
    await until(async () => (await lines()) > before, 'the writer to go on')
    assert.equal(await sbx.files.read('/data/meanwhile'), 'written while it slept')
  } finally {
    await sbx.kill()
  }
  assert.equal(await Volume.destroy(shared.volumeId), true)
})

test('mounts that make no sense are refused', async () => {
  const refused = (volumeMounts, why) => assert.rejects(Sandbox.create('base', { volumeMounts }), why)
  await refused({ '/data': 'no-such-volume' }, /no-such-volume/)
  await refused({ '/proc/x': volume }, /proc/)
  await refused({ data: volume }, /absolute/)
  await refused({ '/a': volume, '/b': volume }, /twice/)
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
