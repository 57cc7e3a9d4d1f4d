// The server is killed; nothing that anybody was told is lost, and everybody goes on.
// WOODFROG_CRASH is a shell command that kills the server with SIGKILL, starts it again and ends when
// it answers. Without it this program has nothing to do.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { InMemorySessionPersistDriver, SandboxAgent } from 'sandbox-agent'
import { assert, run, test, until, within } from './_check.mjs'
import { call, close, empty, fresh, home, json, openSession, options, post, rpc, stream } from './_face.mjs'
import { echo, hang, saidIn, say, script, words } from './_mock.mjs'

const command = process.env.WOODFROG_CRASH
if (!command) {
  console.log('skipped: WOODFROG_CRASH is not set')
  process.exit(0)
}
console.error = (first, second) => console.log(`        (the SDK says: ${first} ${second?.message ?? ''})`)

/** Kills the server and has it back. */
async function crash() {
  const [status] = await once(spawn('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'inherit'] }), 'exit')
  assert.equal(status, 0, 'the command of WOODFROG_CRASH')
}

const persist = new InMemorySessionPersistDriver({ maxEventsPerSession: 100_000 })
const connect = () => SandboxAgent.connect(options({ persist }))
const payloads = async (sessionId) => (await persist.listEvents({ sessionId, limit: 100_000 })).items.map((event) => event.payload)
const ends = (id, text) => until(async () => saidIn(await payloads(id)).endsWith(text), `'${text}' is said`)

test('between two prompts: the same client goes on', async () => {
  const sdk = await connect()
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  await session.prompt(words('before'))
  await ends(session.id, echo('before'))
  await crash()
  assert.equal((await within(30_000, 'the prompt', session.prompt(words('after')))).stopReason, 'end_turn')
  await ends(session.id, echo('after'))
  await session.prompt(words('once more'))
  await ends(session.id, echo('once more'))
  await sdk.dispose()
})

test('in the middle of a turn: a new client goes on', async () => {
  const sdk = await connect()
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  // The SDK leaves what is pending on a broken connection pending for ever.
  session.prompt(script(say('half'), hang())).catch(() => {})
  await ends(session.id, 'half')
  await crash()
  await sdk.dispose()
  const other = await connect()
  const back = await other.resumeSession(session.id)
  assert.equal((await within(30_000, 'the prompt', back.prompt(words('go on')))).stopReason, 'end_turn')
  await ends(session.id, echo('go on'))
  await other.dispose()
})

test('what was in the stream is in it again, each at its place', async () => {
  const server = fresh('crash')
  const sessionId = await openSession(server)
  const seen = []
  for (let round = 0; round < 3; round += 1) {
    const events = await stream(server, { after: seen.length })
    const steps = Array.from({ length: 200 }, (_, i) => say(`${round}.${i},`))
    const lost = post(server, { jsonrpc: '2.0', id: `p${round}`, method: 'session/prompt', params: { sessionId, prompt: script(...steps, 'delay 60000') } })
    lost.catch(() => {})
    await until(() => events.frames.length >= 50, 'some of it')
    await crash()
    await events.ended()
    seen.push(...events.frames)
    const whole = await stream(server, { after: 0 })
    await until(() => whole.frames.length >= seen.length, 'as much as before')
    assert.deepEqual(whole.frames.slice(0, seen.length), seen)
    assert.deepEqual(whole.frames.map((frame) => frame.id), whole.frames.map((_, i) => String(i + 1)))
    whole.close()
    // The agent may have lived on, and be at it still.
    await empty(await post(server, { jsonrpc: '2.0', method: 'session/cancel', params: { sessionId } }), 202)
  }
  const reply = await rpc(server, 'last', 'session/prompt', { sessionId, prompt: words('still there') })
  assert.equal(reply.stopReason, 'end_turn')
  await close(server)
})

test('agent servers are listed as before, and ended ones stay so', async () => {
  const [kept, gone] = [fresh('kept'), fresh('gone')]
  await openSession(kept)
  await openSession(gone)
  await close(gone)
  const before = (await json(await call('GET', '/v1/acp'))).servers
  await crash()
  assert.deepEqual((await json(await call('GET', '/v1/acp'))).servers, before)
  assert.ok(before.some((server) => server.serverId === kept) && !before.some((server) => server.serverId === gone))
  await close(kept)
})

await run()
