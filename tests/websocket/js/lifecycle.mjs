// A sandbox outlives its client, belongs to one client at a time, and to who has its token.
import { Sandbox, URL, assert } from './_client.mjs'

const first = await Sandbox.create(URL, { idleTimeout: 60 })
const { sandboxId: id, sandboxToken: token } = first
await first.run('bash', 'echo kept > ~/file')
await assert.rejects(Sandbox.attach(URL, id, token), /Another client is attached/)
await assert.rejects(Sandbox.attach(URL, id, 'wrong'), /Invalid sandbox token/)
await first.leave()
const second = await Sandbox.attach(URL, id, token)
assert.equal((await second.run('bash', 'cat ~/file')).stdout, 'kept\n')
await second.kill()
await assert.rejects(Sandbox.attach(URL, id, token), /doesn't exist|NOT_FOUND/)

const idle = await Sandbox.create(URL, { idleTimeout: 5 })
// Work is no idleness.
assert.equal((await idle.run('bash', 'sleep 8; echo done')).stdout, 'done\n')
assert.equal(await idle.over.promise, 1000)
assert.deepEqual(idle.statuses.slice(-2), ['DELETING', 'DELETED'])
