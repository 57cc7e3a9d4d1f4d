// A server that was told to install nothing and to wait for 6 s only: started with
// SANDBOX_AGENT_REQUIRE_PREINSTALL=1 and SANDBOX_AGENT_ACP_REQUEST_TIMEOUT_MS=6000. WOODFROG_AGENT_LIMITS=1
// says that it was.
import { assert, run, test } from './_check.mjs'
import { call, close, fresh, home, json, openSession, post, problem, reference, rpc } from './_face.mjs'
import { delay, say, script } from './_mock.mjs'

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

test('a turn may take longer than other requests', async () => {
  if (reference) return // there it is never answered
  const server = fresh('timeout')
  const sessionId = await openSession(server, 'mock', home)
  const start = performance.now()
  const turn = await rpc(server, 7, 'session/prompt', { sessionId, prompt: script(delay(7_000), say('late')) })
  assert.equal(turn.stopReason, 'end_turn')
  assert.ok(performance.now() - start >= 7_000)
  await close(server)
})

await run()
