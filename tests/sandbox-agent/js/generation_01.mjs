// The sessions API of the 0.1 generation: /v1/sessions, universal events, questions, permissions.
import { assert, run, test, until, within } from './_check.mjs'
import { Events, call, empty, fresh, json, problem, reference, send } from './_face.mjs'
import { ask, choose, crash, delay, fail, hang, say, script, think, tool, words } from './_mock.mjs'

if (reference) {
  console.log('skipped: the reference has dropped this API')
  process.exit(0)
}

const at = (id, rest = '') => `/v1/sessions/${encodeURIComponent(id)}${rest}`
const TYPES = new Set([
  'session.started', 'session.ended', 'turn.started', 'turn.ended', 'item.started', 'item.delta', 'item.completed', 'error',
  'permission.requested', 'permission.resolved', 'question.requested', 'question.resolved', 'agent.unparsed',
])

async function create(more = {}) {
  const id = fresh('old')
  const made = await json(await send('POST', at(id), { agent: 'mock', ...more }))
  assert.equal(made.healthy, true)
  return id
}
const message = async (id, steps) => empty(await send('POST', at(id, '/messages'), { message: script(...steps)[0].text }))
const events = async (id, query = '') => json(await call('GET', at(id, `/events${query}`)))

/** Waits until an event of `type` is there; all events are returned. */
function waitFor(id, type, count = 1) {
  return until(async () => {
    const { events: all } = await events(id)
    return all.filter((event) => event.type === type).length >= count && all
  }, `${count} × ${type}`)
}
const finished = (id, count = 1) => waitFor(id, 'turn.ended', count)
const textOf = (all) => all
  .filter((event) => event.type === 'item.completed' && event.data.item.role === 'assistant' && event.data.item.kind === 'message')
  .flatMap((event) => event.data.item.content.filter((part) => part.type === 'text').map((part) => part.text)).join('')

test('a session, a message, and its events', async () => {
  const id = await create()
  await message(id, [say('Hello '), say('world')])
  const all = await finished(id)
  assert.deepEqual(all.map((event) => event.sequence), all.map((_, i) => i + 1))
  assert.equal(new Set(all.map((event) => event.event_id)).size, all.length)
  for (const event of all) {
    assert.ok(TYPES.has(event.type), event.type)
    assert.equal(event.session_id, id)
    assert.ok(['agent', 'daemon'].includes(event.source))
    assert.equal(typeof event.synthetic, 'boolean')
    assert.ok(Math.abs(Date.parse(event.time) - Date.now()) < 60_000)
    assert.equal('raw' in event, false)
  }
  assert.equal(all[0].type, 'session.started')
  assert.equal(textOf(all), 'Hello world')
})

test('items start, grow and are completed', async () => {
  const id = await create()
  await message(id, [think('hm'), tool('ls', 'a b'), say('one '), say('two')])
  const all = await finished(id)
  const items = new Map()
  for (const { type, data } of all) {
    const key = data.item?.item_id ?? data.item_id
    if (!key) continue
    items.set(key, [...(items.get(key) ?? []), type])
  }
  assert.ok(items.size >= 3)
  for (const [key, types] of items) {
    assert.equal(types[0], 'item.started', key)
    assert.equal(types.at(-1), 'item.completed', key)
    assert.equal(types.filter((type) => type === 'item.completed').length, 1, key)
    assert.ok(types.slice(1, -1).every((type) => type === 'item.delta'), key)
  }
  const done = all.filter((event) => event.type === 'item.completed').map((event) => event.data.item)
  const parts = done.flatMap((item) => item.content)
  assert.equal(parts.find((part) => part.type === 'reasoning').text, 'hm')
  const started = parts.find((part) => part.type === 'tool_call')
  assert.equal(typeof started.arguments, 'string')
  const result = parts.find((part) => part.type === 'tool_result')
  assert.equal(result.call_id, started.call_id)
  assert.ok(result.output.includes('a b'))
  const deltas = all.filter((event) => event.type === 'item.delta').map((event) => event.data.delta).join('')
  assert.ok(deltas.includes('one two'))
})

test('offset and limit', async () => {
  const id = await create()
  await message(id, [say('a'), say('b')])
  const all = await finished(id)
  for (let offset = 0; offset <= all.length; offset += 1) {
    const page = await events(id, `?offset=${offset}&limit=3`)
    assert.deepEqual(page.events, all.slice(offset, offset + 3))
    assert.equal(page.hasMore, offset + 3 < all.length)
  }
  const rest = await events(id, `?offset=${all.length}`)
  assert.deepEqual(rest, { events: [], hasMore: false })
  const raw = await events(id, '?include_raw=true')
  assert.ok(raw.events.some((event) => event.raw !== undefined))
})

test('event ids of two sessions differ', async () => {
  const ids = await Promise.all([create(), create()])
  const all = []
  for (const id of ids) {
    await message(id, [say('x')])
    all.push(...(await finished(id)))
  }
  assert.equal(new Set(all.map((event) => event.event_id)).size, all.length)
})

test('the stream: backlog, then live, without a seam', async () => {
  const id = await create()
  await message(id, [say('first')])
  const past = await finished(id)
  const stream = await Events.open(at(id, '/events/sse?offset=0'))
  await message(id, [say('second')])
  await finished(id, 2)
  await until(() => stream.frames.filter((frame) => frame.json.type === 'turn.ended').length === 2, 'both turns')
  const { events: all } = await events(id)
  assert.deepEqual(stream.frames.map((frame) => frame.json), all.slice(0, stream.frames.length))
  assert.ok(stream.frames.length > past.length)
  stream.close()
  const late = await Events.open(at(id, `/events/sse?offset=${past.length}`))
  await until(() => late.frames.some((frame) => frame.json.type === 'turn.ended'), 'the second turn')
  assert.equal(late.frames[0].json.sequence, past.length + 1)
  late.close()
})

test('a message whose answer is the stream of its turn', async () => {
  const id = await create()
  const response = await send('POST', at(id, '/messages/stream'), { message: script(say('streamed'))[0].text })
  assert.equal(response.status, 200)
  assert.match(response.headers.get('content-type'), /^text\/event-stream/)
  const text = await within(45_000, 'the end of the turn', response.text())
  const seen = text.split('\n').filter((line) => line.startsWith('data:')).map((line) => JSON.parse(line.slice(5)))
  assert.ok(seen.some((event) => event.type === 'item.completed'))
  assert.ok(JSON.stringify(seen).includes('streamed'))
})

test('permissions: once, always, reject', async () => {
  for (const [reply, status, goesOn] of [['once', 'accept', true], ['always', 'accept_for_session', true], ['reject', 'reject', false]]) {
    const id = await create()
    await message(id, [ask('make'), say(' done')])
    const asked = (await waitFor(id, 'permission.requested')).find((event) => event.type === 'permission.requested')
    assert.equal(asked.data.status, 'requested')
    assert.equal(asked.data.action, 'make')
    const path = at(id, `/permissions/${encodeURIComponent(asked.data.permission_id)}/reply`)
    await empty(await send('POST', path, { reply }))
    const all = await finished(id)
    const resolved = all.find((event) => event.type === 'permission.resolved')
    assert.equal(resolved.data.permission_id, asked.data.permission_id)
    assert.equal(resolved.data.status, status)
    assert.equal(textOf(all).endsWith(' done'), goesOn)
    const again = await send('POST', path, { reply })
    assert.ok(again.status >= 400 && again.status < 500)
  }
})

test('questions: answered and rejected', async () => {
  for (const answer of [[['blue']], undefined]) {
    const id = await create()
    await message(id, [choose('Which colour?', 'red', 'blue')])
    const types = ['question.requested', 'permission.requested']
    const asked = await until(async () => (await events(id)).events.find((event) => types.includes(event.type)), 'the question')
    assert.equal(asked.type, 'question.requested')
    assert.deepEqual([asked.data.prompt, asked.data.options], ['Which colour?', ['red', 'blue']])
    const path = at(id, `/questions/${encodeURIComponent(asked.data.question_id)}`)
    if (answer) await empty(await send('POST', `${path}/reply`, { answers: answer }))
    else await empty(await call('POST', `${path}/reject`))
    const all = await finished(id)
    const resolved = all.find((event) => event.type === 'question.resolved')
    assert.equal(resolved.data.status, answer ? 'answered' : 'rejected')
    if (answer) assert.equal(textOf(all), 'answer: blue')
  }
})

test('sessions are listed, newest first', async () => {
  const older = await create()
  const newer = await create()
  await message(newer, [say('x')])
  await finished(newer)
  const { sessions } = await json(await call('GET', '/v1/sessions'))
  const ids = sessions.map((session) => session.sessionId)
  assert.ok(ids.indexOf(newer) >= 0 && ids.indexOf(newer) < ids.indexOf(older))
  const mine = sessions.find((session) => session.sessionId === newer)
  assert.equal(mine.agent, 'mock')
  assert.equal(mine.agentMode, 'build')
  assert.equal(mine.permissionMode, 'default')
  assert.equal(mine.ended, false)
  assert.ok(mine.eventCount >= 4)
})

test('terminate ends it, once and for all', async () => {
  const id = await create()
  await message(id, [say('x'), hang()])
  await waitFor(id, 'item.started')
  await empty(await call('POST', at(id, '/terminate')))
  await empty(await call('POST', at(id, '/terminate')))
  const all = await waitFor(id, 'session.ended')
  const ended = all.filter((event) => event.type === 'session.ended')
  assert.equal(ended.length, 1)
  assert.equal(ended[0].data.reason, 'terminated')
  const stream = await Events.open(at(id, '/events/sse'))
  await until(() => stream.frames.some((frame) => frame.json.type === 'session.ended'), 'the end')
  stream.close()
  const late = await send('POST', at(id, '/messages'), { message: 'x' })
  assert.ok(late.status >= 400 && late.status < 500)
})

test('errors of the agent are events', async () => {
  const id = await create()
  await message(id, [fail(-32050, 'out of cheese')])
  const all = await waitFor(id, 'error')
  assert.match(all.find((event) => event.type === 'error').data.message, /out of cheese/)
  await message(id, [delay(1), say('on we go')])
  await until(async () => textOf((await events(id)).events).includes('on we go'), 'the next turn')
  const dying = await create()
  await message(dying, [crash(3, 'boom')])
  const last = await until(async () => (await events(dying)).events.find((event) => ['error', 'session.ended'].includes(event.type)), 'its end')
  assert.ok(JSON.stringify(last.data).includes('boom'), JSON.stringify(last.data))
})

test('plain words are answered too', async () => {
  const id = await create()
  await empty(await send('POST', at(id, '/messages'), { message: words('hello')[0].text }))
  assert.ok(textOf(await finished(id)).includes('hello'))
})

test('refusals', async () => {
  const id = await create()
  await problem(await send('POST', at(id), { agent: 'mock' }), 409, 'session_already_exists')
  const unknown = fresh('none')
  for (const [method, rest, body] of [['POST', '/messages', { message: 'x' }], ['GET', '/events'], ['GET', '/events/sse'], ['POST', '/terminate']]) {
    const reply = body ? await send(method, at(unknown, rest), body) : await call(method, at(unknown, rest))
    const said = await problem(reply, 404, 'session_not_found')
    assert.equal(said.sessionId, unknown)
  }
  await problem(await send('POST', at(fresh('x')), { agent: 'nope' }), 400, 'unsupported_agent')
  await problem(await send('POST', at(fresh('x')), { agent: 'mock', agentMode: 'nonsense' }), 400, 'mode_not_supported')
  for (const body of [{}, { message: 5 }, 'x']) assert.ok([400, 422].includes((await send('POST', at(id, '/messages'), body)).status))
  for (const query of ['?offset=-1', '?offset=x', '?limit=x']) assert.equal((await call('GET', at(id, `/events${query}`))).status, 400)
})

test('modes and models of an agent', async () => {
  const modes = await json(await call('GET', '/v1/agents/mock/modes'))
  assert.ok(modes.modes.length >= 1)
  const models = await json(await call('GET', '/v1/agents/mock/models'))
  assert.ok(models.models.length >= 1)
  await problem(await call('GET', '/v1/agents/nope/modes'), 400, 'unsupported_agent')
})

await run()
