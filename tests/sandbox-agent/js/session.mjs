// Sessions of the SDK: prompt, stream, events and their order.
import { randomUUID } from 'node:crypto'
import { SandboxAgent } from 'sandbox-agent'
import { assert, run, test, until } from './_check.mjs'
import { call, home, json, options, reference } from './_face.mjs'
import { echo, fail, plan, saidIn, say, script, think, tool, updatesIn, words } from './_mock.mjs'

const sdk = await SandboxAgent.connect(options())
const open = (more) => sdk.createSession({ agent: 'mock', cwd: home, ...more })

/** Every event of a session, page by page. */
async function allEvents(sessionId, limit = 7) {
  const events = []
  for (let cursor; ; ) {
    const page = await sdk.getEvents({ sessionId, cursor, limit })
    assert.ok(page.items.length <= limit)
    events.push(...page.items)
    if (!page.nextCursor) return events
    cursor = page.nextCursor
  }
}

/**
 * Waits until `turns` answers and `said` characters of text are stored; the events are returned.
 * The SDK gets answers and updates on two connections, so an answer may come before its text.
 */
function settled(sessionId, turns, said) {
  return until(async () => {
    const events = await allEvents(sessionId, 500)
    const stopped = events.filter((event) => event.payload.result?.stopReason).length
    return stopped === turns && saidIn(events.map((event) => event.payload)).length >= said && events
  }, 'the events are stored')
}

test('a prompt is answered, and what was said streams', async () => {
  const session = await open()
  assert.equal(session.agent, 'mock')
  const heard = []
  const off = session.onEvent((event) => heard.push(event))
  const reply = await session.prompt(script(say('Grüße, '), say('Welt 🐸')))
  assert.equal(reply.stopReason, 'end_turn')
  await until(() => heard.some((event) => event.payload.result?.stopReason), 'the reply as an event')
  await until(() => saidIn(heard.map((event) => event.payload)) === 'Grüße, Welt 🐸', 'the text')
  off()
  await session.prompt(words('unheard'))
  await settled(session.id, 2, ('Grüße, Welt 🐸' + echo('unheard')).length)
  assert.ok(!saidIn(heard.map((event) => event.payload)).includes('unheard'))
})

test('events are dense from 1, in the order of the wire, with every field', async () => {
  const session = await open({ id: `order-${randomUUID()}` })
  for (const text of ['one', 'two', 'three']) await session.prompt(words(text))
  const events = await settled(session.id, 3, (echo('one') + echo('two') + echo('three')).length)
  assert.deepEqual((await allEvents(session.id)).map((event) => event.eventIndex), events.map((_, i) => i + 1))
  assert.equal(new Set(events.map((event) => event.id)).size, events.length)
  for (const event of events) {
    assert.deepEqual(Object.keys(event).sort(), ['connectionId', 'createdAt', 'eventIndex', 'id', 'payload', 'sender', 'sessionId'])
    assert.equal(event.sessionId, session.id)
    assert.equal(event.connectionId, session.lastConnectionId)
    assert.equal(event.payload.jsonrpc, '2.0')
  }
  assert.equal(events[0].payload.method, 'session/new')
  assert.equal(events[0].sender, 'client')
  const prompts = events.filter((event) => event.payload.method === 'session/prompt')
  assert.deepEqual(prompts.map((event) => event.payload.params.prompt[0].text), ['one', 'two', 'three'])
  for (const [i, prompt] of prompts.entries()) {
    const reply = events.find((event) => event.payload.id === prompt.payload.id && event.sender === 'agent')
    const said = events.find((event) => saidIn([event.payload]).startsWith(['one', 'two', 'three'][i].slice(0, 2)))
    assert.ok(prompt.eventIndex < said.eventIndex && prompt.eventIndex < reply.eventIndex)
  }
})

test('thoughts, tool calls and plans', async () => {
  const session = await open()
  await session.prompt(script(think('hm'), plan('look', 'leap'), tool('ls', 'a b c'), say('done')))
  const payloads = (await settled(session.id, 1, 4)).map((event) => event.payload)
  assert.equal(updatesIn(payloads, 'agent_thought_chunk')[0].content.text, 'hm')
  const [entries] = updatesIn(payloads, 'plan').map((update) => update.entries.map((entry) => entry.content))
  assert.deepEqual(entries, ['look', 'leap'])
  const [call] = updatesIn(payloads, 'tool_call')
  assert.equal(call.title, 'ls')
  const results = updatesIn(payloads, 'tool_call_update').filter((update) => update.toolCallId === call.toolCallId)
  assert.equal(results.at(-1).status, 'completed')
  assert.equal(results.at(-1).content[0].content.text, 'a b c')
})

test('several blocks, and a prompt of many bytes', async () => {
  const session = await open()
  await session.prompt([{ type: 'text', text: 'first' }, { type: 'text', text: 'second' }])
  const size = reference ? 1_000_000 : 6_000_000
  const long = 'ä'.repeat(size / 2)
  await session.prompt(words(long))
  const wanted = echo('second') + echo(long)
  const payloads = (await settled(session.id, 2, wanted.length)).map((event) => event.payload)
  assert.ok(saidIn(payloads) === wanted)
})

test('sessions of one client do not mix', async () => {
  const sessions = await Promise.all(Array.from({ length: 8 }, () => open()))
  assert.equal(new Set(sessions.map((session) => session.agentSessionId)).size, 8)
  assert.equal(new Set(sessions.map((session) => session.lastConnectionId)).size, 1)
  await Promise.all(sessions.map((session, i) => session.prompt(words(`only for ${i}.`))))
  for (const [i, session] of sessions.entries()) {
    const wanted = echo(`only for ${i}.`)
    const events = await settled(session.id, 1, wanted.length)
    assert.equal(saidIn(events.map((event) => event.payload)), wanted)
  }
})

test('a thousand chunks arrive, each once and in order', async () => {
  const keep = await SandboxAgent.connect(options())
  const session = await keep.createSession({ agent: 'mock', cwd: home })
  const heard = []
  session.onEvent((event) => heard.push(event.payload))
  await session.prompt(script(...Array.from({ length: 1000 }, (_, i) => say(`${i},`))))
  await until(() => heard.some((payload) => payload.result?.stopReason), 'the end of the turn')
  const wanted = Array.from({ length: 1000 }, (_, i) => `${i},`).join('')
  await until(() => saidIn(heard).length >= wanted.length, 'all chunks')
  assert.equal(saidIn(heard), wanted)
  await keep.dispose()
})

test('an error of the agent is the error of the prompt; the session goes on', async () => {
  const session = await open()
  await assert.rejects(session.prompt(script(fail(-32050, 'out of cheese'))), /out of cheese/)
  assert.equal((await session.prompt(words('still here'))).stopReason, 'end_turn')
  await assert.rejects(session.rawSend('mock/unknown_method', {}), (error) => error.code === -32601)
})

test('what the SDK lists and finds', async () => {
  const session = await open({ id: `find-${randomUUID()}` })
  assert.equal((await sdk.getSession(session.id)).id, session.id)
  assert.equal(await sdk.getSession('nobody'), null)
  const ids = []
  for (let cursor; ; ) {
    const page = await sdk.listSessions({ cursor, limit: 3 })
    ids.push(...page.items.map((item) => item.id))
    if (!(cursor = page.nextCursor)) break
  }
  assert.ok(ids.includes(session.id))
  assert.deepEqual(session.toRecord().sessionInit, { cwd: home, mcpServers: [] })
  await assert.rejects(open({ agent: ' ' }), /createSession requires a non-empty agent/)
})

test('the agent server of a client is listed, one for all its sessions', async () => {
  const { servers } = await sdk.listAcpServers()
  const mine = servers.filter((server) => server.serverId.startsWith('sdk-mock-'))
  assert.ok(mine.length >= 1)
  for (const server of mine) assert.equal(server.agent, 'mock')
  const sorted = servers.map((server) => server.serverId)
  assert.deepEqual(sorted, [...sorted].sort())
  assert.ok(Math.abs(mine[0].createdAtMs - Date.now()) < 3_600_000)
  assert.deepEqual(Object.keys(await json(await call('GET', '/v1/acp'))), ['servers'])
})

await run(() => sdk.dispose())
