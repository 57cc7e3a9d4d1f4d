// The SDK finds the face: health, agents, tokens.
import { SandboxAgent, SandboxAgentError } from 'sandbox-agent'
import { assert, run, test, within } from './_check.mjs'
import { call, empty, json, options, problem, reference, token, url } from './_face.mjs'

const sdk = await SandboxAgent.connect(options())
const CAPABILITIES = [
  'commandExecution', 'errorEvents', 'fileAttachments', 'fileChanges', 'images', 'itemStarted', 'mcpTools', 'permissions',
  'planMode', 'questions', 'reasoning', 'sessionLifecycle', 'sharedProcess', 'status', 'streamingDeltas', 'textMessages',
  'toolCalls', 'toolResults',
]

test('health', async () => {
  assert.deepEqual(await sdk.getHealth(), { status: 'ok' })
  assert.deepEqual(await json(await call('GET', '/v1/health')), { status: 'ok' })
})

test('a base URL may end with a slash, and a client may bring its own fetch', async () => {
  const seen = []
  const own = (input, init) => {
    seen.push(String(input))
    return fetch(input, init)
  }
  const other = await SandboxAgent.connect(options({ baseUrl: `${url}/`, fetch: own }))
  assert.equal((await other.getHealth()).status, 'ok')
  assert.ok(seen.every((one) => one === `${url}/v1/health`), seen.join())
  await other.dispose()
})

test('all agents, in their order', async () => {
  const { agents } = await sdk.listAgents()
  const known = ['claude', 'codex', 'opencode', 'amp', 'pi', 'cursor', 'mock']
  assert.deepEqual(agents.map((agent) => agent.id).filter((id) => known.includes(id)), known)
  for (const agent of agents) {
    assert.deepEqual(Object.keys(agent.capabilities).sort(), CAPABILITIES)
    assert.equal(typeof agent.installed, 'boolean')
    assert.equal(typeof agent.credentialsAvailable, 'boolean')
  }
})

test('one agent, with what can be chosen', async () => {
  const brief = await sdk.getAgent('mock')
  assert.equal(brief.id, 'mock')
  assert.equal(brief.credentialsAvailable, true)
  for (const name of CAPABILITIES) assert.equal(brief.capabilities[name], name !== 'sharedProcess', name)
  const full = await sdk.getAgent('mock', { config: true, noCache: true })
  const chosen = full.configOptions.map(({ id, category, currentValue, type }) => [id, category, currentValue, type])
  assert.deepEqual(chosen, [
    ['model', 'model', 'mock', 'select'],
    ['mode', 'mode', 'normal', 'select'],
    ['thought_level', 'thought_level', 'low', 'select'],
  ])
  const values = full.configOptions.map((option) => option.options.map((entry) => entry.value))
  assert.deepEqual(values, [['mock', 'mock-fast'], ['normal', 'plan'], ['low', 'medium', 'high']])
})

test('installing the mock says what was there', async () => {
  await sdk.installAgent('mock')
  const again = await sdk.installAgent('mock', { reinstall: false })
  assert.equal(again.already_installed, true)
  assert.ok(Array.isArray(again.artifacts))
  if (reference) return // it would put its own echoing mock in the place of the scripted one
  const anew = await sdk.installAgent('mock', { reinstall: true })
  assert.equal(anew.artifacts[0].kind, 'agent_process')
  assert.equal(anew.artifacts[0].source, 'builtin')
})

test('an unknown agent is an error that names it', async () => {
  await assert.rejects(sdk.getAgent('nope'), (error) => {
    assert.ok(error instanceof SandboxAgentError)
    assert.equal(error.status, 400)
    assert.equal(error.problem.type, 'urn:sandbox-agent:error:unsupported_agent')
    assert.equal(error.problem.agent, 'nope')
    return true
  })
  await assert.rejects(sdk.installAgent('nope'), (error) => error.status === 400)
})

test('the root says who answers, to anybody', async () => {
  const root = await json(await call('GET', '/', { auth: '' }))
  assert.equal(typeof root.name, 'string')
  if (reference) assert.deepEqual(root, { name: 'Sandbox Agent', docs: 'https://sandboxagent.dev' })
})

test('a wrong or missing token is refused everywhere below /v1', async () => {
  if (!token) return
  for (const auth of ['', 'Bearer wrong', `bearer${token}`, `Basic ${btoa(`x:${token}`)}`]) {
    for (const path of ['/v1/health', '/v1/agents', '/v1/acp', '/v1/acp/none', '/v1/fs/entries?path=.', '/v1/processes']) {
      const body = await problem(await call('GET', path, { auth }), 401, 'token_invalid', /token invalid/)
      if (reference) assert.equal(body.details.message, 'missing or invalid bearer token')
    }
  }
  const stranger = await SandboxAgent.connect(options({ token: 'wrong', skipHealthCheck: true }))
  await assert.rejects(stranger.listAgents(), (error) => error instanceof SandboxAgentError && error.status === 401)
  await stranger.dispose()
})

test('a client that waits for health gives up when told to', async () => {
  const lost = await SandboxAgent.connect(options({ baseUrl: `${url}/nowhere`, waitForHealth: { timeoutMs: 600 } }))
  await assert.rejects(within(45_000, 'giving up', lost.listAgents()), /Timed out waiting for sandbox-agent health after 600ms/)
  await lost.dispose()
})

test('paths and methods that do not exist', async () => {
  await problem(await call('GET', '/v1/nope'), 404, 'invalid_request', /^endpoint not found$/, 'Not Found')
  await problem(await call('POST', '/nope'), 404, 'invalid_request', /^endpoint not found$/, 'Not Found')
  const wrong = await call('POST', '/v1/health')
  assert.equal(wrong.status, 405)
  if (reference) await empty(wrong, 405)
})

await run(() => sdk.dispose())
