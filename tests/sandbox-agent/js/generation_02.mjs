// The face as the 0.2 generation of the SDK uses it: no wait for health, the stream is opened only
// after the first answer, permissions are answered by a POST of the response.
import { assert, run, test, until } from './_check.mjs'
import { call, close, empty, fresh, home, json, post, rpc, stream } from './_face.mjs'
import { ask, echo, saidIn, say, script, words } from './_mock.mjs'

/** One connection as that generation makes it; what the agent sends is in `events.frames`. */
class Connection {
  server = fresh('sdk-mock')
  next = 0

  static async open() {
    const connection = new Connection()
    const clientInfo = { name: 'sandbox-agent-sdk', version: 'v1' }
    const initialize = { protocolVersion: 1, clientInfo }
    const result = await rpc(connection.server, connection.next++, 'initialize', initialize, { agent: 'mock' })
    assert.equal(result.protocolVersion, 1)
    connection.events = await stream(connection.server)
    return connection
  }

  request(method, params) {
    return rpc(this.server, this.next++, method, params)
  }

  /** Answers every permission request with an option, or cancels it. */
  async decide(optionId) {
    const { json: request } = await this.events.wait((frame) => frame.json.method === 'session/request_permission', 'the question')
    const outcome = optionId ? { outcome: 'selected', optionId } : { outcome: 'cancelled' }
    await empty(await post(this.server, { jsonrpc: '2.0', id: request.id, result: { outcome } }), 202)
  }

  async end() {
    this.events.close()
    await close(this.server)
  }
}

test('a turn, and the stream that was opened late has its beginning too', async () => {
  const connection = await Connection.open()
  const { sessionId } = await connection.request('session/new', { cwd: home, mcpServers: [] })
  const reply = await connection.request('session/prompt', { sessionId, prompt: words('hi') })
  assert.equal(reply.stopReason, 'end_turn')
  await until(() => saidIn(connection.events.frames.map((frame) => frame.json)) === echo('hi'), 'the text')
  assert.equal(connection.events.frames[0].id, '1')
  assert.ok(connection.events.frames[0].json.result.protocolVersion)
  await connection.end()
})

test('a permission is answered by a POST', async () => {
  for (const [option, said] of [['allow_once', 'permission: allow_once'], [undefined, '']]) {
    const connection = await Connection.open()
    const { sessionId } = await connection.request('session/new', { cwd: home, mcpServers: [] })
    const turn = connection.request('session/prompt', { sessionId, prompt: script(ask('make')) })
    await connection.decide(option)
    assert.equal((await turn).stopReason, option ? 'end_turn' : 'cancelled')
    await until(() => saidIn(connection.events.frames.map((frame) => frame.json)) === said, 'what it made of it')
    await connection.end()
  }
})

test('a stream that breaks goes on after the last id', async () => {
  const connection = await Connection.open()
  const { sessionId } = await connection.request('session/new', { cwd: home, mcpServers: [] })
  await connection.request('session/prompt', { sessionId, prompt: script(say('one')) })
  await until(() => saidIn(connection.events.frames.map((frame) => frame.json)) === 'one', 'the first turn')
  const after = connection.events.frames.at(-1).id
  connection.events.close()
  await connection.request('session/prompt', { sessionId, prompt: script(say('two')) })
  connection.events = await stream(connection.server, { after })
  await until(() => saidIn(connection.events.frames.map((frame) => frame.json)) === 'two', 'the second turn')
  await connection.end()
})

test('the replay of that generation: history before the next prompt', async () => {
  const connection = await Connection.open()
  const { sessionId } = await connection.request('session/new', { cwd: home, mcpServers: [] })
  const history = 'Previous session history is replayed below as JSON-RPC envelopes. Use it as context before responding to the latest user prompt.\n{}\n'
  const prompt = [{ type: 'text', text: history }, ...words('now')]
  await connection.request('session/prompt', { sessionId, prompt })
  await until(() => saidIn(connection.events.frames.map((frame) => frame.json)) === echo('now'), 'only the prompt is answered')
  await connection.end()
})

test('agents and agent servers, as that generation lists them', async () => {
  const connection = await Connection.open()
  const { agents } = await json(await call('GET', '/v1/agents'))
  assert.ok(agents.find((agent) => agent.id === 'mock'))
  const { servers } = await json(await call('GET', '/v1/acp'))
  assert.ok(servers.some((server) => server.serverId === connection.server && server.agent === 'mock'))
  await connection.end()
})

await run()
