// The life of a sandbox through the SDK: create, connect, list, timeouts, metrics, kill.
import { Sandbox, NotFoundError } from 'e2b'
import { assert, run, test, until } from './_check.mjs'

const tag = `js-${process.pid}-${Date.now()}`

test('create gives a usable sandbox with its metadata and envs', async () => {
  const sbx = await Sandbox.create('base', {
    timeoutMs: 120_000,
    metadata: { tag, 'with space': 'a b&c=d' },
    envs: { GREETING: 'hello' },
  })
  try {
    assert.match(sbx.sandboxId, /^[a-z0-9]+$/)
    assert.equal((await sbx.commands.run('echo $GREETING')).stdout, 'hello\n')
    assert.equal((await sbx.commands.run('whoami; pwd')).stdout, 'user\n/home/user\n')
    assert.equal((await sbx.commands.run('sudo -n whoami')).stdout, 'root\n')
    const info = await sbx.getInfo()
    assert.equal(info.sandboxId, sbx.sandboxId)
    assert.equal(info.metadata.tag, tag)
    assert.equal(info.metadata['with space'], 'a b&c=d')
    assert.equal(info.state, 'running')
    assert.ok(info.endAt > info.startedAt)
  } finally {
    assert.equal(await sbx.kill(), true)
  }
  assert.equal(await sbx.kill(), false)
  assert.equal(await sbx.isRunning(), false)
})

test('connect finds the same sandbox and only ever extends its end', async () => {
  const first = await Sandbox.create({ timeoutMs: 300_000 })
  await first.files.write('state.txt', 'kept')
  const before = (await first.getInfo()).endAt
  const second = await Sandbox.connect(first.sandboxId, { timeoutMs: 10_000 })
  assert.equal(await second.files.read('state.txt'), 'kept')
  assert.ok((await second.getInfo()).endAt >= before)
  await Sandbox.connect(first.sandboxId, { timeoutMs: 600_000 })
  assert.ok((await second.getInfo()).endAt > before)
  await second.kill()
  await assert.rejects(Sandbox.connect(first.sandboxId), NotFoundError)
})

test('setTimeout shortens and an expired sandbox is gone', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 300_000 })
  await sbx.setTimeout(10_000)
  const left = (await sbx.getInfo()).endAt.getTime() - Date.now()
  assert.ok(left < 11_000, `${left} ms left`)
  assert.equal(await sbx.isRunning(), true)
  await until(async () => !(await sbx.isRunning()), 'the sandbox to expire')
  await assert.rejects(sbx.getInfo(), NotFoundError)
})

test('lists are newest first, page by one and filter by metadata', async () => {
  const made = []
  for (const number of ['1', '2', '3']) {
    made.push(await Sandbox.create({ metadata: { tag, list: 'yes', number }, timeoutMs: 60_000 }))
  }
  try {
    const paginator = Sandbox.list({ query: { metadata: { tag, list: 'yes' } }, limit: 1 })
    const seen = []
    while (paginator.hasNext) seen.push(...(await paginator.nextItems()))
    assert.deepEqual(seen.map((item) => item.metadata.number), ['3', '2', '1'])
    const running = Sandbox.list({ query: { metadata: { tag, number: '2' }, state: ['running'] } })
    const items = await running.nextItems()
    assert.deepEqual(items.map((item) => item.sandboxId), [made[1].sandboxId])
    const paused = Sandbox.list({ query: { metadata: { tag }, state: ['paused'] } })
    assert.deepEqual(await paused.nextItems(), [])
  } finally {
    await Promise.all(made.map((sbx) => sbx.kill()))
  }
})

test('lists go oldest first, start at a time and are of one template, where that is asked for', async () => {
  const made = []
  for (const number of ['1', '2', '3']) {
    made.push(await Sandbox.create({ metadata: { tag, order: 'yes', number }, timeoutMs: 300_000 }))
  }
  const numbers = async (query = {}, opts = {}) => {
    const metadata = { tag, order: 'yes' }
    const paginator = Sandbox.list({ query: { metadata, ...query }, order: 'asc', ...opts })
    const seen = []
    while (paginator.hasNext) seen.push(...(await paginator.nextItems()))
    return seen.map((item) => item.metadata.number)
  }
  try {
    assert.deepEqual(await numbers(), ['1', '2', '3'])
    assert.deepEqual(await numbers({}, { limit: 2 }), ['1', '2', '3'])
    const { startedAt } = await made[1].getInfo()
    assert.deepEqual(await numbers({ startedAfter: startedAt }), ['2', '3'])
    assert.deepEqual(await numbers({ template: 'base' }), ['1', '2', '3'])
    assert.deepEqual(await numbers({ template: 'no-such-template-here' }), [])
    const first = Sandbox.list({ query: { metadata: { tag, order: 'yes' } }, order: 'asc', limit: 1 })
    await first.nextItems()
    assert.deepEqual(await numbers({}, { nextToken: first.nextToken }), ['2', '3'])
  } finally {
    await Promise.all(made.map((sbx) => sbx.kill()))
  }
})

test('metrics appear, with plausible numbers, and none from before the start', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 120_000 })
  try {
    const metrics = await until(async () => {
      const found = await sbx.getMetrics()
      return found.length > 0 && found
    }, 'metrics', 30_000)
    assert.ok(metrics[0].cpuCount >= 1)
    assert.ok(metrics[0].memTotal > 0 && metrics[0].memUsed <= metrics[0].memTotal)
    assert.ok(metrics[0].diskTotal > 0)
    const before = await sbx.getMetrics({
      start: new Date(Date.now() - 7_200_000),
      end: new Date(Date.now() - 3_600_000),
    })
    assert.deepEqual(before, [])
  } finally {
    await sbx.kill()
  }
})

test('a kill ends a running command with an error that says so', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 60_000 })
  const handle = await sbx.commands.run('sleep 600', { background: true })
  const waiting = handle.wait()
  waiting.catch(() => {})
  await sbx.kill()
  await assert.rejects(waiting)
  await assert.rejects(sbx.commands.run('true'))
})

test('static methods work by id', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 60_000 })
  await Sandbox.setTimeout(sbx.sandboxId, 200_000)
  const info = await Sandbox.getInfo(sbx.sandboxId)
  assert.ok(info.endAt.getTime() - Date.now() > 100_000)
  assert.deepEqual(await Sandbox.getFullInfo(sbx.sandboxId), info)
  const metrics = await until(async () => {
    const found = await Sandbox.getMetrics(sbx.sandboxId)
    return found.length > 0 && found
  }, 'metrics')
  assert.ok(metrics[0].cpuCount >= 1)
  assert.equal(await Sandbox.kill(sbx.sandboxId), true)
  assert.equal(await Sandbox.kill(sbx.sandboxId), false)
})

test('unknown templates and sandboxes are refused with the right errors', async () => {
  await assert.rejects(Sandbox.create('no-such-template-here'), /404: .*not found/)
  await assert.rejects(Sandbox.getInfo('inosuchsandboxatall'), NotFoundError)
  await assert.rejects(Sandbox.getFullInfo('inosuchsandboxatall'), NotFoundError)
  await assert.rejects(Sandbox.getMetrics('inosuchsandboxatall'), NotFoundError)
  await assert.rejects(Sandbox.setTimeout('inosuchsandboxatall', 60_000), NotFoundError)
  await assert.rejects(Sandbox.connect('inosuchsandboxatall'), NotFoundError)
})

test('a port inside is reachable through getHost or the routing headers', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 300_000 })
  try {
    await sbx.files.write('www/index.html', 'served from inside')
    await sbx.commands.run('python3 -m http.server 8000 --directory www', { background: true })
    const plain = process.env.E2B_SANDBOX_URL
    const url = plain ?? `https://${sbx.getHost(8000)}`
    const headers = plain
      ? { 'E2b-Sandbox-Id': sbx.sandboxId, 'E2b-Sandbox-Port': '8000' }
      : {}
    const body = await until(async () => {
      const response = await fetch(url, { headers })
      return response.status === 200 && response.text()
    }, 'the server inside')
    assert.equal(body, 'served from inside')
    const closed = await fetch(plain ?? `https://${sbx.getHost(8123)}`, {
      headers: plain ? { 'E2b-Sandbox-Id': sbx.sandboxId, 'E2b-Sandbox-Port': '8123' } : {},
    })
    assert.equal(closed.status, 502)
    assert.match((await closed.json()).message, /port is not open/)
  } finally {
    await sbx.kill()
  }
})

await run()
