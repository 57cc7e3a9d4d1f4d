// Processes beside the agent: run, start, logs, input, end, limits.
import { SandboxAgent, SandboxAgentError } from 'sandbox-agent'
import { assert, run, test, until } from './_check.mjs'
import { options, reference } from './_face.mjs'

const sdk = await SandboxAgent.connect(options())
const sh = (script, more) => sdk.runProcess({ command: 'sh', args: ['-c', script], ...more })
const start = (script, more) => sdk.createProcess({ command: 'sh', args: ['-c', script], ...more })
const decode = (entries) => entries.map((entry) => Buffer.from(entry.data, 'base64').toString()).join('')
const ended = (id) => until(async () => {
  const info = await sdk.getProcess(id)
  return info.status === 'exited' && info
}, `${id} ends`)

async function failure(promise, status, code) {
  const error = await promise.then(() => assert.fail('it succeeded'), (error) => error)
  assert.ok(error instanceof SandboxAgentError, error)
  assert.equal(error.status, status, JSON.stringify(error.problem))
  if (code) assert.equal(error.problem.type, `urn:sandbox-agent:error:${code}`)
  return error.problem
}

test('run: output, code, folder, environment', async () => {
  const { durationMs, ...result } = await sh('echo out; echo err >&2; exit 3')
  assert.deepEqual(result, { exitCode: 3, timedOut: false, stdout: 'out\n', stderr: 'err\n', stdoutTruncated: false, stderrTruncated: false })
  assert.ok(durationMs >= 0 && durationMs < 60_000)
  assert.equal((await sh('echo $X; pwd', { cwd: '/tmp', env: { X: 'y z' } })).stdout, 'y z\n/tmp\n')
  const killed = await sh('kill -9 $$')
  assert.equal(killed.timedOut, false)
  if (reference) assert.equal(killed.exitCode, null)
})

test('run: a time limit and a size limit', async () => {
  // The reference waits for a grandchild that holds the output open.
  const slow = await sh(reference ? 'echo begun; exec sleep 300' : 'echo begun; sleep 300; :', { timeoutMs: 3_000 })
  assert.equal(slow.timedOut, true)
  assert.equal(slow.exitCode, null)
  assert.equal(slow.stdout, 'begun\n')
  assert.ok(slow.durationMs >= 3_000 && slow.durationMs < 60_000)
  const long = await sh('yes | head -c 5000; echo e >&2', { maxOutputBytes: 100 })
  assert.equal(long.stdout.length, 100)
  assert.equal(long.stdoutTruncated, true)
  assert.equal(long.stderrTruncated, false)
})

test('run: what cannot be started', async () => {
  const spawn = async (request) => {
    const error = await sdk.runProcess(request).then(() => assert.fail('it ran'), (error) => error)
    if (reference) assert.equal(error.status, 502)
    else assert.ok(error.status >= 400 && error.status < 500, `status ${error.status}`)
  }
  await spawn({ command: 'no-such-program-here' })
  await spawn({ command: 'pwd', cwd: '/no/such/folder' })
  await failure(sdk.runProcess({ command: '' }), 400, 'invalid_request')
})

test('a process is listed while it runs and after, until it is deleted', async () => {
  const made = await start('read line; echo "got $line"; exit 5', { interactive: true, cwd: '/tmp' })
  assert.match(made.id, /^proc_\d+$/)
  assert.equal(made.command, 'sh')
  assert.deepEqual([made.cwd, made.tty, made.interactive, made.owner, made.status], ['/tmp', false, true, 'user', 'running'])
  assert.ok(made.pid > 0 && Math.abs(made.createdAtMs - Date.now()) < 60_000)
  assert.ok((await sdk.listProcesses()).processes.some((one) => one.id === made.id))
  assert.deepEqual((await sdk.listProcesses({ owner: 'desktop' })).processes, [])
  await failure(sdk.deleteProcess(made.id), 409, 'conflict')
  assert.deepEqual(await sdk.sendProcessInput(made.id, { data: 'aGkK' }), { bytesWritten: 3 })
  const info = await ended(made.id)
  assert.equal(info.exitCode, 5)
  assert.ok(info.exitedAtMs >= info.createdAtMs)
  assert.equal(decode((await sdk.getProcessLogs(made.id)).entries), 'got hi\n')
  await failure(sdk.sendProcessInput(made.id, { data: 'aGkK' }), 409, 'conflict')
  await sdk.deleteProcess(made.id)
  const problem = await failure(sdk.getProcess(made.id), 404, 'not_found')
  assert.deepEqual(problem.details, { resource: 'process', id: made.id })
})

test('logs: by stream, from a point, the last ones', async () => {
  // What is read at once is one entry: the third line waits until the others are read.
  const { id } = await start('echo one; echo two >&2; read go; echo three', { interactive: true })
  await until(async () => (await sdk.getProcessLogs(id)).entries.length === 2, 'both streams')
  await sdk.sendProcessInput(id, { data: '\n', encoding: 'utf8' })
  await ended(id)
  await until(async () => decode((await sdk.getProcessLogs(id)).entries).includes('three'), 'the output')
  const all = await sdk.getProcessLogs(id)
  assert.equal(all.processId, id)
  assert.equal(all.stream, 'combined')
  assert.deepEqual(all.entries.map((entry) => entry.sequence), all.entries.map((_, i) => i + 1))
  for (const entry of all.entries) assert.deepEqual([entry.encoding, entry.timestampMs > 0], ['base64', true])
  assert.equal(decode((await sdk.getProcessLogs(id, { stream: 'stdout' })).entries), 'one\nthree\n')
  assert.equal(decode((await sdk.getProcessLogs(id, { stream: 'stderr' })).entries), 'two\n')
  assert.equal(decode((await sdk.getProcessLogs(id, { tail: 1 })).entries), 'three\n')
  const rest = await sdk.getProcessLogs(id, { since: all.entries[0].sequence })
  assert.deepEqual(rest.entries, all.entries.slice(1))
  await sdk.deleteProcess(id)
})

test('logs are followed: the past first, then what comes', async () => {
  const { id } = await start('echo past; read line; echo "now $line"', { interactive: true })
  await until(async () => (await sdk.getProcessLogs(id)).entries.length === 1, 'the past')
  const seen = []
  const following = await sdk.followProcessLogs(id, (entry) => seen.push(entry))
  await until(() => decode(seen) === 'past\n', 'the backlog')
  await sdk.sendProcessInput(id, { data: 'x\n', encoding: 'utf8' })
  await until(() => decode(seen) === 'past\nnow x\n', 'what came')
  assert.deepEqual(seen.map((entry) => entry.sequence), [1, 2])
  following.close()
  await ended(id)
  await sdk.deleteProcess(id)
})

test('input: encodings and limits', async () => {
  const { id } = await sdk.createProcess({ command: 'cat', interactive: true })
  await sdk.sendProcessInput(id, { data: 'plain\n', encoding: 'utf8' })
  await sdk.sendProcessInput(id, { data: 'text\n', encoding: 'text' })
  await sdk.sendProcessInput(id, { data: Buffer.from('base\n').toString('base64'), encoding: 'base64' })
  await until(async () => decode((await sdk.getProcessLogs(id)).entries) === 'plain\ntext\nbase\n', 'the echo')
  await failure(sdk.sendProcessInput(id, { data: '!!!' }), 400, 'invalid_request')
  await failure(sdk.sendProcessInput(id, { data: 'x', encoding: 'hex' }), 400, 'invalid_request')
  const { maxInputBytesPerRequest } = await sdk.getProcessConfig()
  const big = 'x'.repeat(maxInputBytesPerRequest + 1)
  await failure(sdk.sendProcessInput(id, { data: big, encoding: 'utf8' }), 413, 'invalid_request')
  assert.equal((await sdk.stopProcess(id, { waitMs: 30_000 })).status, 'exited')
  await sdk.deleteProcess(id)
})

test('stop asks, kill does not; both may come late', async () => {
  const polite = await start('trap "echo bye; exit 9" TERM; echo ready; while :; do sleep 0.05; done')
  await until(async () => (await sdk.getProcessLogs(polite.id)).entries.length === 1, 'the trap is set')
  const stopped = await sdk.stopProcess(polite.id, { waitMs: 30_000 })
  assert.deepEqual([stopped.status, stopped.exitCode], ['exited', 9])
  assert.equal((await sdk.stopProcess(polite.id)).status, 'exited')
  assert.equal((await sdk.killProcess(polite.id)).status, 'exited')
  const stubborn = await start('trap "" TERM; echo ready; while :; do sleep 0.05; done')
  await until(async () => (await sdk.getProcessLogs(stubborn.id)).entries.length === 1, 'the trap is set')
  assert.equal((await sdk.stopProcess(stubborn.id, { waitMs: 100 })).status, 'running')
  assert.equal((await sdk.killProcess(stubborn.id, { waitMs: 30_000 })).status, 'exited')
  await failure(sdk.killProcess('proc_999999'), 404, 'not_found')
  for (const { id } of [polite, stubborn]) await sdk.deleteProcess(id)
})

test('limits are read, set and kept to', async () => {
  const config = await sdk.getProcessConfig()
  assert.deepEqual(Object.keys(config).sort(), [
    'defaultRunTimeoutMs', 'maxConcurrentProcesses', 'maxInputBytesPerRequest', 'maxLogBytesPerProcess', 'maxOutputBytes', 'maxRunTimeoutMs',
  ])
  const running = (await sdk.listProcesses()).processes.filter((one) => one.status === 'running').length
  try {
    const tight = { ...config, maxConcurrentProcesses: running + 1, defaultRunTimeoutMs: 200 }
    assert.deepEqual(await sdk.setProcessConfig(tight), tight)
    const one = await sdk.createProcess({ command: 'sleep', args: ['60'] })
    await failure(sdk.createProcess({ command: 'sleep', args: ['60'] }), 409, 'conflict')
    await sdk.killProcess(one.id, { waitMs: 30_000 })
    await sdk.deleteProcess(one.id)
    assert.equal((await sh('exec sleep 30')).timedOut, true)
    await failure(sdk.setProcessConfig({ ...config, maxOutputBytes: 0 }), 400, 'invalid_request')
  } finally {
    await sdk.setProcessConfig(config)
  }
  assert.deepEqual(await sdk.getProcessConfig(), config)
})

await run(() => sdk.dispose())
