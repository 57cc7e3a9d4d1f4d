// Every method of `files`, signed URLs and metadata.
import { Sandbox, NotFoundError, FileType, FilesystemEventType } from 'e2b'
import { assert, run, test, until } from './_check.mjs'

const sbx = await Sandbox.create({ timeoutMs: 300_000 })
const { files } = sbx

test('write and read text, bytes, blobs and streams', async () => {
  const info = await files.write('a/b/text.txt', 'Grüße')
  assert.equal(info.path, '/home/user/a/b/text.txt')
  assert.equal(await files.read('a/b/text.txt'), 'Grüße')
  const bytes = new Uint8Array(256).map((_, i) => i)
  await files.write('bytes.bin', bytes.buffer)
  assert.deepEqual(await files.read('bytes.bin', { format: 'bytes' }), bytes)
  const blob = await files.read('bytes.bin', { format: 'blob' })
  assert.equal(blob.size, 256)
  const stream = await files.read('bytes.bin', { format: 'stream' })
  let total = 0
  for await (const chunk of stream) total += chunk.length
  assert.equal(total, 256)
  await files.write('blob.txt', new Blob(['from a blob']))
  assert.equal(await files.read('blob.txt'), 'from a blob')
})

test('files belong to the user and an empty file is empty', async () => {
  await files.write('mine', '')
  assert.equal(await files.read('mine'), '')
  const result = await sbx.commands.run('stat -c "%U %G %s" mine')
  assert.equal(result.stdout, 'user user 0\n')
})

test('write many files at once', async () => {
  const entries = Array.from({ length: 20 }, (_, i) => ({ path: `many/file-${i}.txt`, data: `content ${i}` }))
  const written = await files.write(entries)
  assert.equal(written.length, 20)
  assert.equal(await files.read('many/file-19.txt'), 'content 19')
})

test('writeFiles takes text, bytes, blobs and streams', async () => {
  const written = await files.writeFiles([
    { path: 'mixed/text', data: 'Grüße' },
    { path: 'mixed/bytes', data: new Uint8Array([0, 1, 255]).buffer },
    { path: 'mixed/blob', data: new Blob(['from a blob']) },
    { path: 'mixed/stream', data: new Blob(['from a stream']).stream() },
  ])
  const names = ['text', 'bytes', 'blob', 'stream']
  assert.deepEqual(written.map((info) => info.path), names.map((name) => `/home/user/mixed/${name}`))
  assert.equal(await files.read('mixed/text'), 'Grüße')
  assert.deepEqual(await files.read('mixed/bytes', { format: 'bytes' }), new Uint8Array([0, 1, 255]))
  assert.equal(await files.read('mixed/blob'), 'from a blob')
  assert.equal(await files.read('mixed/stream'), 'from a stream')
  assert.deepEqual(await files.writeFiles([]), [])
})

test('a missing file is an error that says so', async () => {
  await assert.rejects(files.read('missing.txt'), NotFoundError)
  await assert.rejects(files.list('/no/such/dir'), NotFoundError)
  await assert.rejects(files.getInfo('missing.txt'), NotFoundError)
  assert.equal(await files.exists('missing.txt'), false)
  assert.equal(await files.exists('mine'), true)
})

test('list, with depth and links', async () => {
  await files.makeDir('tree/one/two')
  await files.write('tree/f', 'x')
  await files.write('tree/one/two/deep', 'xyz')
  await sbx.commands.run('ln -s f tree/link')
  const flat = await files.list('tree')
  assert.deepEqual(flat.map((entry) => entry.name).sort(), ['f', 'link', 'one'])
  const link = flat.find((entry) => entry.name === 'link')
  assert.equal(link.symlinkTarget, '/home/user/tree/f')
  assert.equal(flat.find((entry) => entry.name === 'one').type, FileType.DIR)
  const deep = await files.list('tree', { depth: 3 })
  assert.ok(deep.some((entry) => entry.path === '/home/user/tree/one/two/deep'))
})

test('getInfo has size, mode, owner and time', async () => {
  await files.write('info.txt', '12345')
  await sbx.commands.run('chmod 640 info.txt')
  const info = await files.getInfo('info.txt')
  assert.equal(info.size, 5)
  assert.equal(info.type, FileType.FILE)
  assert.equal(info.mode, 0o640)
  assert.equal(info.permissions, '-rw-r-----')
  assert.equal(info.owner, 'user')
  assert.ok(Math.abs(info.modifiedTime.getTime() - Date.now()) < 60_000)
})

test('makeDir, rename and remove', async () => {
  assert.equal(await files.makeDir('new/dir'), true)
  assert.equal(await files.makeDir('new/dir'), false)
  await files.write('new/dir/x', '1')
  const moved = await files.rename('new/dir/x', 'elsewhere/y')
  assert.equal(moved.path, '/home/user/elsewhere/y')
  await assert.rejects(files.rename('not-there', 'z'), NotFoundError)
  await files.remove('new')
  assert.equal(await files.exists('new'), false)
  await files.remove('new')
})

test('files outside the home, and of /proc', async () => {
  await files.write('/tmp/abs.txt', 'absolute')
  assert.equal(await files.read('/tmp/abs.txt'), 'absolute')
  assert.match(await files.read('/proc/sys/kernel/random/boot_id'), /^[0-9a-f-]{36}\n$/)
  await files.write('/etc/by-root', 'x', { user: 'root' })
  assert.equal((await sbx.commands.run('stat -c %U /etc/by-root')).stdout, 'root\n')
})

test('watchDir reports what happens', async () => {
  await files.makeDir('watched/sub')
  const events = []
  const handle = await files.watchDir('watched', (event) => events.push(event), { recursive: true })
  await files.write('watched/new.txt', '1')
  await until(() => events.some((e) => e.name === 'new.txt' && e.type === FilesystemEventType.WRITE), 'write')
  assert.ok(events.some((e) => e.name === 'new.txt' && e.type === FilesystemEventType.CREATE))
  await files.write('watched/sub/deep.txt', '1')
  await until(() => events.some((e) => e.name === 'sub/deep.txt'), 'an event below')
  await files.remove('watched/new.txt')
  await until(() => events.some((e) => e.type === FilesystemEventType.REMOVE), 'remove')
  await sbx.commands.run('chmod 600 watched/sub/deep.txt')
  await until(() => events.some((e) => e.type === FilesystemEventType.CHMOD), 'chmod')
  await files.rename('watched/sub/deep.txt', 'watched/sub/renamed.txt')
  await until(() => events.some((e) => e.type === FilesystemEventType.RENAME), 'rename')
  await handle.stop()
  await assert.rejects(files.watchDir('no-such-dir', () => {}), NotFoundError)
})

test('metadata is kept and replaced', async () => {
  await files.write('tagged.txt', 'x', { metadata: { Origin: 'test', other: 'value' } })
  const info = await files.getInfo('tagged.txt')
  assert.equal(info.metadata?.origin, 'test')
  assert.equal(info.metadata?.other, 'value')
  await files.write('tagged.txt', 'y', { metadata: { only: 'this' } })
  assert.deepEqual((await files.getInfo('tagged.txt')).metadata, { only: 'this' })
})

test('signed URLs upload and download without a header', async () => {
  const up = await sbx.uploadUrl('signed.txt', { useSignatureExpiration: 60_000 })
  const form = new FormData()
  form.append('file', new Blob(['through a signed URL']), 'signed.txt')
  const uploaded = await fetch(up, { method: 'POST', body: form })
  assert.equal(uploaded.status, 200, await uploaded.text())
  const down = await sbx.downloadUrl('signed.txt', { useSignatureExpiration: 60_000 })
  const response = await fetch(down)
  assert.equal(await response.text(), 'through a signed URL')
  // Another first character, whichever the signature has.
  const forge = (_, first) => `signature=v1_${first === '0' ? '1' : '0'}`
  const forged = await fetch(down.replace(/signature=v1_(.)/, forge))
  assert.ok([401, 400, 404].includes(forged.status), `${forged.status}`)
})

test('8 MiB survive the way there and back', async () => {
  const data = new Uint8Array(8 << 20)
  for (let i = 0; i < data.length; i++) data[i] = (i * 31 + (i >> 8)) & 255
  await files.write('large.bin', data.buffer)
  const back = await files.read('large.bin', { format: 'bytes' })
  assert.equal(Buffer.compare(Buffer.from(back), Buffer.from(data)), 0)
  const sum = await sbx.commands.run('stat -c %s large.bin')
  assert.equal(sum.stdout, `${8 << 20}\n`)
})

await run(() => sbx.kill())
