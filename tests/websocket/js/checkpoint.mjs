// Checkpoints on demand and by idleness: files, memory and processes come back.
import { Sandbox, URL, assert } from './_client.mjs'

const COUNTER = `
import os, time
i = 0
while True:
    i += 1
    open("/tmp/next", "w").write(str(i))
    os.replace("/tmp/next", "/tmp/count")
    time.sleep(0.02)
`
const options = { enableSandboxCheckpoint: true, idleTimeout: 300 }
let sandbox = await Sandbox.create(URL, options)
const { sandboxId: id, sandboxToken: token } = sandbox
await sandbox.run('bash', `cat > /tmp/counter.py <<'END'${COUNTER}END\nsetsid -f python3 /tmp/counter.py >/dev/null 2>&1 </dev/null; echo file > ~/file`)
const count = async () => Number((await sandbox.run('bash', 'until [ -e /tmp/count ]; do sleep 0.05; done; cat /tmp/count')).stdout)
let before = await count()
const busy = await sandbox.exec('bash', 'read line; echo $line')
await assert.rejects(sandbox.checkpoint(), /in progress/)
busy.writeToStdin('still here\n')
await busy.wait()
for (let cycle = 0; cycle < 5; cycle += 1) {
  await sandbox.checkpoint()
  assert.deepEqual(sandbox.statuses.slice(-4), ['CHECKPOINTING', 'DELETING', 'DELETED', 'CHECKPOINTED'])
  sandbox = await Sandbox.attach(URL, id, token)
  assert.deepEqual(sandbox.statuses, ['RESTORING', 'RUNNING'])
  const now = await count()
  assert.ok(now >= before && before > 0, `${now} after ${before}`)
  before = now
  assert.equal((await sandbox.run('bash', 'cat ~/file; pgrep -fc ^python3./tmp/counter')).stdout, 'file\n1\n')
}
await sandbox.kill()

const auto = await Sandbox.create(URL, {
  idleTimeout: 5, enableSandboxCheckpoint: true, enableIdleTimeoutAutoCheckpoint: true,
})
assert.equal(await auto.over.promise, 1000)
assert.equal(auto.statuses.at(-1), 'CHECKPOINTED')
const back = await Sandbox.attach(URL, auto.sandboxId, auto.sandboxToken)
await back.kill()
