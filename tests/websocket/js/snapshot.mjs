// A snapshot of the files, and a sandbox made from it.
import { Sandbox, URL, assert } from './_client.mjs'

const name = `js-${process.pid}-${Date.now()}`
const first = await Sandbox.create(URL)
await first.run('bash', 'echo hello > ~/file')
await first.snapshotFilesystem(name)
await assert.rejects(first.snapshotFilesystem('../x'), /no name of a snapshot/)
await assert.rejects(first.snapshotFilesystem(name), /exists already/)
assert.equal((await first.run('bash', 'echo changed > ~/file; echo ok')).stdout, 'ok\n')
const second = await Sandbox.create(URL, { filesystemSnapshotName: name })
assert.equal((await second.run('bash', 'cat ~/file')).stdout, 'hello\n')
await Promise.all([first.kill(), second.kill()])
await assert.rejects(Sandbox.create(URL, { filesystemSnapshotName: `${name}-not` }), /not found/)
