// A server that was told to install nothing and to wait for 1.5 s only: started with
// SANDBOX_AGENT_REQUIRE_PREINSTALL=1 and SANDBOX_AGENT_ACP_REQUEST_TIMEOUT_MS=1500. WOODFROG_AGENT_LIMITS=1
// says that it was.
import { assert, run, test } from './_check.mjs'
import { call, close, fresh, home, json, openSession, post, problem, reference, rpc, stream } from './_face.mjs'
import { delay, saidIn, say, script, words } from './_mock.mjs'

if (process.env.WOODFROG_AGENT_LIMITS !== '1') {
  console.log('skipped: WOODFROG_AGENT_LIMITS is not set')
  process.exit(0)
}

test('an agent that is not installed is not installed by a first POST', async () => {
  const { agents } = await json(await call('GET', '/v1/agents'))
  const missing = agents.find((agent) => !agent.installed && agent.id !== 'mock')
  assert.ok(missing, 'an agent that is not installed')
  const server = fresh('preinstall')
  const request = { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: 1 } }
  const body = await problem(await post(server, request, { agent: missing.id }), 404, 'agent_not_installed')
  assert.equal(body.agent, missing.id)
  const { servers } = await json(await call('GET', '/v1/acp'))
  assert.ok(!servers.some((one) => one.serverId === server))
})

test('an answer that does not come in time is a 504; the session goes on', async () => {
  if (reference) return // it never answers after that
  const server = fresh('timeout')
  const sessionId = await openSession(server, 'mock', home)
  const events = await stream(server)
  const start = performance.now()
  const params = { sessionId, prompt: script(delay(3_000), say('late')) }
  await problem(await post(server, { jsonrpc: '2.0', id: 7, method: 'session/prompt', params }), 504, 'timeout')
  const took = performance.now() - start
  assert.ok(took >= 1_400 && took < 2_900, `it took ${took} ms`)
  await events.wait((frame) => saidIn([frame.json]) === 'late', 'what comes later is in the stream')
  await events.wait((frame) => frame.json.id === 7, 'and so is the answer')
  assert.equal((await rpc(server, 8, 'session/prompt', { sessionId, prompt: words('next') })).stopReason, 'end_turn')
  events.close()
  await close(server)
})

await run()
