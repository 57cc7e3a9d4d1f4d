// The agent dies; the session does not.
import { InMemorySessionPersistDriver, SandboxAgent } from 'sandbox-agent'
import { assert, run, test, until, within } from './_check.mjs'
import { close, fresh, home, openSession, options, post, reference, rpc, stream } from './_face.mjs'
import { crash, echo, hang, saidIn, say, script, stderr, words } from './_mock.mjs'

// The SDK prints the failure of a connection as a whole.
console.error = (first, second) => console.log(`        (the SDK says: ${first} ${second?.message ?? ''})`)

const persist = new InMemorySessionPersistDriver({ maxEventsPerSession: 100_000 })
const connect = () => SandboxAgent.connect(options({ persist }))

/**
 * Kills every agent process of this server, from inside. The machine may have others; these descend
 * from what started the script.
 */
async function killAgents(sdk) {
  const script = `for p in /proc/[0-9]*; do
    tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q "$PATTERN" || continue
    id=\${p#/proc/} up=\${p#/proc/}
    while [ "$up" != "$PPID" ] && [ "\${up:-0}" -gt 1 ]; do up=$(sed -n 's/^PPid:[^0-9]*//p' /proc/$up/status 2>/dev/null); done
    [ "$up" = "$PPID" ] && ids="$ids $id"
  done
  [ -z "$ids" ] || { kill -9 $ids; echo $ids; }`
  const PATTERN = process.env.WOODFROG_AGENT_PATTERN ?? 'mock-a[gc]'
  const { stdout } = await sdk.runProcess({ command: 'sh', args: ['-c', script], env: { PATTERN } })
  assert.notEqual(stdout, '', 'an agent process was there to be killed')
}

async function payloads(sessionId) {
  return (await persist.listEvents({ sessionId, limit: 100_000 })).items.map((event) => event.payload)
}
const ends = (id, text) => until(async () => saidIn(await payloads(id)).endsWith(text), `'${text}' is said`)

test('killed while it was idle: the same client prompts on', async () => {
  if (reference) return // there the entry stays dead until it is deleted
  const sdk = await connect()
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  await session.prompt(words('my name is Rosa'))
  await killAgents(sdk)
  const reply = await within(45_000, 'the prompt after the kill', session.prompt(words('what did I say before?')))
  assert.equal(reply.stopReason, 'end_turn')
  await ends(session.id, '')
  await until(async () => /Rosa|characters of history/.test(saidIn(await payloads(session.id)).split('Rosa').slice(1).join('Rosa')), 'the agent was told what happened')
  await session.prompt(words('again'))
  await ends(session.id, echo('again'))
  await sdk.dispose()
})

test('killed again and again: every prompt is answered', async () => {
  if (reference) return
  const sdk = await connect()
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  for (let i = 0; i < 3; i += 1) {
    await session.prompt(words(`before ${i}`))
    await killAgents(sdk)
    assert.equal((await within(45_000, 'the prompt', session.prompt(words(`after ${i}`)))).stopReason, 'end_turn')
    await ends(session.id, echo(`after ${i}`))
  }
  await sdk.dispose()
})

test('killed in the middle of a turn: the prompt fails at once, a new client goes on', async () => {
  if (reference) return // there it waits for its time limit
  const sdk = await connect()
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  const prompt = session.prompt(script(say('half'), hang()))
  await ends(session.id, 'half')
  const failed = assert.rejects(within(45_000, 'the failure of the prompt', prompt), (error) => !/took more/.test(error.message))
  await killAgents(sdk)
  await failed
  await sdk.dispose()
  const other = await connect()
  const back = await other.resumeSession(session.id)
  assert.equal((await within(45_000, 'the prompt', back.prompt(words('go on')))).stopReason, 'end_turn')
  await ends(session.id, echo('go on'))
  await other.dispose()
})

test('a crash tells its code and last words', async () => {
  if (reference) return
  const server = fresh('crash')
  const sessionId = await openSession(server)
  const events = await stream(server)
  const prompt = script(stderr('first line'), crash(3, 'out of memory'))
  const reply = await within(45_000, 'the answer', post(server, { jsonrpc: '2.0', id: 5, method: 'session/prompt', params: { sessionId, prompt } }))
  const text = await reply.text()
  assert.ok(text.includes('out of memory'), text)
  const exited = await events.wait((frame) => frame.json.method === '_adapter/agent_exited', 'the notification')
  assert.deepEqual(exited.json.params, { success: false, code: 3 })
  events.close()
  await close(server)
})

test('many prompts are pending when it dies: each of them fails', async () => {
  if (reference) return
  const server = fresh('pending')
  const sessions = [await openSession(server)]
  for (let i = 0; i < 4; i += 1) sessions.push((await rpc(server, `n${i}`, 'session/new', { cwd: home, mcpServers: [] })).sessionId)
  const events = await stream(server)
  const prompt = (i, ...steps) =>
    post(server, { jsonrpc: '2.0', id: `p${i}`, method: 'session/prompt', params: { sessionId: sessions[i], prompt: script(say(`s${i}`), ...steps) } })
  const prompts = [1, 2, 3, 4].map((i) => prompt(i, hang()))
  for (const i of [1, 2, 3, 4]) await events.wait((frame) => saidIn([frame.json]) === `s${i}`, `turn ${i} has begun`)
  prompts.push(prompt(0, crash(9, 'all gone')))
  for (const reply of await within(45_000, 'all answers', Promise.all(prompts))) {
    const body = await reply.json()
    assert.ok(reply.status >= 500 || body.error, JSON.stringify(body))
  }
  events.close()
  await close(server)
})

test('disposing of a client takes no time', async () => {
  const times = []
  for (let i = 0; i < 3; i += 1) {
    const sdk = await connect()
    await (await sdk.createSession({ agent: 'mock', cwd: home })).prompt(words('x'))
    const start = performance.now()
    await sdk.dispose()
    times.push(performance.now() - start)
  }
  console.log(`        dispose(): ${times.map((time) => `${time.toFixed(0)} ms`).join(', ')}`)
  // The machine may be busy with something else, but not each time.
  if (!reference) assert.ok(Math.min(...times) < 1_900, `dispose took ${times}: the SDK gave up waiting`)
})

await run()
