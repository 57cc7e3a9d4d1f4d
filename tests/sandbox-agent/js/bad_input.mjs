// What is broken is refused with words, and nothing else suffers.
import { assert, run, test, within } from './_check.mjs'
import { call, close, empty, fresh, json, openSession, post, problem, reference, rpc, stream, token, url } from './_face.mjs'
import { echo, garbage, say, saidIn, script, words } from './_mock.mjs'

const server = fresh('bad')
const sessionId = await openSession(server)
const NO_OBJECT = reference ? /request body must be a JSON-RPC object/ : /^invalid request: ./
const raw = (body, headers = { 'content-type': 'application/json' }) => call('POST', `/v1/acp/${server}`, { headers, body })

test('what is no JSON object', async () => {
  for (const body of ['{"jsonrpc":', '', 'hello', '{"a":1}{"b":2}', '\u0000']) {
    await problem(await raw(body), 400, 'invalid_request', /invalid JSON body/)
  }
  for (const body of ['[]', '"x"', '1', 'null', 'true']) {
    await problem(await raw(body), 400, 'invalid_request', NO_OBJECT)
  }
  const batch = JSON.stringify([{ jsonrpc: '2.0', id: 1, method: 'a' }, { jsonrpc: '2.0', id: 2, method: 'b' }])
  await problem(await raw(batch), 400, 'invalid_request', NO_OBJECT)
})

test('a body of another type, a client that accepts another', async () => {
  const body = '{"jsonrpc":"2.0","id":1,"method":"x"}'
  await problem(await raw(body, { 'content-type': 'text/plain' }), 415, 'unsupported_media_type', /content-type must be application\/json/)
  await problem(await call('POST', `/v1/acp/${server}`, { body: new Blob([body]) }), 415, 'unsupported_media_type')
  const accept = (value) => raw(body, { 'content-type': 'application/json; charset=utf-8', accept: value })
  await problem(await accept('text/html'), 406, 'not_acceptable', /accept must allow application\/json/)
  for (const value of ['*/*', 'text/html, */*', 'application/json', 'text/html, application/json;q=0.5']) {
    await json(await accept(value))
  }
})

test('a method that the agent does not know is the agent\'s answer, not the server\'s', async () => {
  const reply = await json(await post(server, { jsonrpc: '2.0', id: 'a', method: 'no/such' }))
  assert.equal(reply.error.code, -32601)
  assert.equal(reply.id, 'a')
  const wrong = await json(await post(server, { jsonrpc: '2.0', id: 'b', method: 'session/prompt', params: { sessionId: 'nobody', prompt: words('x') } }))
  assert.ok(wrong.error)
})

test('notifications and answers to nothing are taken without a word', async () => {
  await empty(await post(server, { jsonrpc: '2.0', method: 'no/such', params: {} }), 202)
  await empty(await post(server, { jsonrpc: '2.0', id: 'nobody-asked', result: {} }), 202)
  assert.equal((await rpc(server, 'after', 'session/prompt', { sessionId, prompt: words('still here') })).stopReason, 'end_turn')
})

test('ids of all kinds come back as they were', async () => {
  for (const id of [0, 7, 2 ** 40, 'text', 'ünï', '']) {
    const reply = await json(await post(server, { jsonrpc: '2.0', id, method: 'no/such' }))
    assert.equal(reply.id, id)
  }
})

test('an agent that prints what is no JSON is reported, and goes on', async () => {
  const events = await stream(server)
  await rpc(server, 'g', 'session/prompt', { sessionId, prompt: script(garbage('!!! not json'), say('fine')) })
  const frame = await events.wait((one) => one.json.method === '_adapter/invalid_stdout', 'the report')
  assert.equal(frame.json.params.raw, '!!! not json')
  assert.equal(typeof frame.json.params.error, 'string')
  await events.wait((one) => saidIn([one.json]) === 'fine', 'what came after')
  events.close()
})

test('a name that needs escaping', async () => {
  for (const name of [fresh('a b'), fresh('ünï'), fresh('a%2Fb'), 'x'.repeat(64)]) {
    await openSession(name)
    const { servers } = await json(await call('GET', '/v1/acp'))
    assert.ok(servers.some((one) => one.serverId === name), name)
    await close(name)
  }
})

test('a prompt of 20 MB goes through', async () => {
  if (reference) return // it stops at 2 MiB
  const long = 'x'.repeat(20_000_000)
  const events = await stream(server)
  await rpc(server, 'long', 'session/prompt', { sessionId, prompt: words(long) })
  await events.wait((one) => one.json.id === 'long', 'the answer', 100_000)
  assert.ok(saidIn(events.frames.map((one) => one.json)).endsWith(echo(long)))
  events.close()
})

test('a client that vanishes before the answer harms nobody', async () => {
  const abort = new AbortController()
  const envelope = { jsonrpc: '2.0', id: 'vanish', method: 'session/prompt', params: { sessionId, prompt: script(say('begun'), 'delay 3000', say('finished anyway')) } }
  const headers = { 'content-type': 'application/json' }
  const events = await stream(server)
  const lost = call('POST', `/v1/acp/${server}`, { headers, body: JSON.stringify(envelope), signal: abort.signal })
  lost.catch(() => {})
  await events.wait((one) => saidIn([one.json]) === 'begun', 'the turn has begun')
  const begun = events.frames.length
  abort.abort()
  await assert.rejects(lost)
  await events.wait((one) => saidIn([one.json]) === 'finished anyway', 'the turn goes on')
  assert.ok(events.frames.length > begun)
  assert.equal((await rpc(server, 'next', 'session/prompt', { sessionId, prompt: words('next') })).stopReason, 'end_turn')
  events.close()
})

test('a second prompt while one runs is answered, not lost', async () => {
  const first = rpc(server, 'one', 'session/prompt', { sessionId, prompt: script('delay 200', say('one')) })
  const second = post(server, { jsonrpc: '2.0', id: 'two', method: 'session/prompt', params: { sessionId, prompt: words('two') } })
  assert.equal((await first).stopReason, 'end_turn')
  const reply = await json(await within(45_000, 'the second answer', second))
  assert.ok(reply.result || reply.error)
})

test('broken HTTP gets an answer', async () => {
  const { connect } = await import('node:net')
  const { hostname, port } = new URL(url)
  const talk = (text) => new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(text))
    let all = ''
    socket.on('data', (data) => { all += data; socket.end() }).on('close', () => resolve(all)).on('error', reject)
    socket.setTimeout(45_000, () => socket.destroy(new Error('no answer')))
  })
  const path = new URL(url).pathname.replace(/\/$/, '')
  const auth = token ? `authorization: Bearer ${token}\r\n` : ''
  assert.match(await talk('nonsense\r\n\r\n'), /^HTTP\/1\.1 400/)
  assert.match(await talk(`POST ${path}/v1/acp/${server} HTTP/1.1\r\nhost: x\r\n${auth}content-type: application/json\r\ncontent-length: x\r\n\r\n`), /^HTTP\/1\.1 400/)
  assert.equal((await call('GET', '/v1/health')).status, 200)
})

await run(() => close(server))
