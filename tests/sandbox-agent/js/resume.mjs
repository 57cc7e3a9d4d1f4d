// Sessions outlive connections: what a persist driver kept is brought back.
import { InMemorySessionPersistDriver, SandboxAgent } from 'sandbox-agent'
import { assert, run, test, until } from './_check.mjs'
import { fresh, home, options } from './_face.mjs'
import { delay, echo, saidIn, say, script, updatesIn, words } from './_mock.mjs'

const persist = new InMemorySessionPersistDriver({ maxEventsPerSession: 10_000 })
const connect = (more) => SandboxAgent.connect(options({ persist, ...more }))

async function events(sessionId) {
  return (await persist.listEvents({ sessionId, limit: 10_000 })).items
}

/** Waits until the answers to `turns` prompts are stored. */
async function settled(sessionId, turns) {
  await until(async () => {
    const all = await events(sessionId)
    return all.filter((event) => event.payload.result?.stopReason).length === turns
  }, `${turns} answers are stored`)
}

/** A session with one turn, whose client is gone. */
async function left(id, text) {
  const sdk = await connect()
  const session = await sdk.createSession({ id, agent: 'mock', cwd: home })
  await session.prompt(words(text))
  await settled(id, 1)
  await sdk.dispose()
  return session.toRecord()
}

test('a new client resumes; history goes before the next prompt, once', async () => {
  const id = fresh('resume')
  const before = await left(id, 'my name is Rosa')
  const sdk = await connect()
  const session = await sdk.resumeSession(id)
  assert.notEqual(session.agentSessionId, before.agentSessionId)
  assert.notEqual(session.lastConnectionId, before.lastConnectionId)
  assert.equal(session.createdAt, before.createdAt)
  await session.prompt(words('who am I?'))
  await settled(id, 2)
  await session.prompt(words('again'))
  await settled(id, 3)
  const prompts = (await events(id)).map((event) => event.payload).filter((payload) => payload.method === 'session/prompt')
  assert.deepEqual(prompts.map((payload) => payload.params.prompt.length), [1, 2, 1])
  assert.match(prompts[1].params.prompt[0].text, /^Previous session history is replayed below/)
  assert.ok(prompts[1].params.prompt[0].text.includes('my name is Rosa'))
  assert.equal(prompts[1].params.prompt[1].text, 'who am I?')
  await sdk.dispose()
})

test('events go on counting after a resume', async () => {
  const id = fresh('count')
  await left(id, 'one')
  const sdk = await connect()
  await (await sdk.resumeSession(id)).prompt(words('two'))
  await settled(id, 2)
  const all = await events(id)
  assert.deepEqual(all.map((event) => event.eventIndex), all.map((_, i) => i + 1))
  assert.equal(new Set(all.map((event) => event.connectionId)).size, 2)
  await sdk.dispose()
})

test('a prompt on a session of an earlier client resumes by itself', async () => {
  const id = fresh('lazy')
  await left(id, 'hello')
  const sdk = await connect()
  const session = await sdk.getSession(id)
  assert.equal((await session.prompt(words('there'))).stopReason, 'end_turn')
  await settled(id, 2)
  await sdk.dispose()
})

test('resumeOrCreateSession makes it once', async () => {
  const id = fresh('either')
  const sdk = await connect()
  const made = await sdk.resumeOrCreateSession({ id, agent: 'mock', cwd: home })
  const same = await sdk.resumeOrCreateSession({ id, agent: 'mock', cwd: home })
  assert.equal(made.agentSessionId, same.agentSessionId)
  await sdk.dispose()
  const other = await connect()
  const resumed = await other.resumeOrCreateSession({ id, agent: 'mock', cwd: home, model: 'mock-fast' })
  assert.equal(resumed.createdAt, made.createdAt)
  const options = await resumed.getConfigOptions()
  assert.equal(options.find((option) => option.id === 'model').currentValue, 'mock-fast')
  await other.dispose()
})

test('resuming what was destroyed makes it live again', async () => {
  const id = fresh('destroyed')
  const sdk = await connect()
  const session = await sdk.createSession({ id, agent: 'mock', cwd: home })
  await session.prompt(words('x'))
  await sdk.destroySession(id)
  assert.equal(typeof (await persist.getSession(id)).destroyedAt, 'number')
  await sdk.dispose()
  const other = await connect()
  const back = await other.resumeSession(id)
  assert.equal(back.destroyedAt, undefined)
  await back.prompt(words('y'))
  await other.dispose()
})

test('the history that is replayed is limited', async () => {
  const id = fresh('limits')
  const sdk = await connect()
  const session = await sdk.createSession({ id, agent: 'mock', cwd: home })
  for (let i = 0; i < 30; i += 1) await session.prompt(words(`line ${i}`))
  await settled(id, 30)
  await sdk.dispose()
  const other = await connect({ replayMaxEvents: 6, replayMaxChars: 100_000 })
  await (await other.resumeSession(id)).prompt(words('now'))
  await settled(id, 31)
  const replay = (await events(id)).map((event) => event.payload).filter((payload) => payload.method === 'session/prompt')
  const lines = replay.at(-1).params.prompt[0].text.trim().split('\n').slice(1)
  assert.equal(lines.length, 6)
  for (const line of lines) assert.deepEqual(Object.keys(JSON.parse(line)), ['createdAt', 'sender', 'payload'])
  await other.dispose()
})

test('an unknown session is an error', async () => {
  const sdk = await connect()
  await assert.rejects(sdk.resumeSession('nobody'), /session 'nobody' not found/)
  await sdk.dispose()
})

test('a client that goes away mid-prompt leaves a session that can be resumed', async () => {
  const id = fresh('vanish')
  const sdk = await connect()
  const session = await sdk.createSession({ id, agent: 'mock', cwd: home })
  const lost = session.prompt(script(say('before'), delay(30_000), say('after')))
  lost.catch(() => {})
  await until(async () => saidIn((await events(id)).map((event) => event.payload)) === 'before', 'the first words')
  await sdk.dispose()
  const other = await connect()
  const back = await other.resumeSession(id)
  assert.equal((await back.prompt(words('hello again'))).stopReason, 'end_turn')
  await until(async () => saidIn((await events(id)).map((event) => event.payload)).endsWith(echo('hello again')), 'the answer')
  assert.equal(updatesIn((await events(id)).map((event) => event.payload), 'agent_message_chunk')[0].content.text, 'before')
  await other.dispose()
})

await run()
