// What the face has beyond the reference: many sandboxes behind one server, which sleep and wake.
// Needs WOODFROG_URL and WOODFROG_API_KEY (absent where the server asks for none).
import { InMemorySessionPersistDriver, SandboxAgent } from 'sandbox-agent'
import { assert, run, test, until, within } from './_check.mjs'
import { fresh, json, problem, reference } from './_face.mjs'
import { saidIn, words } from './_mock.mjs'

const base = (process.env.WOODFROG_URL ?? '').replace(/\/$/, '')
const key = process.env.WOODFROG_API_KEY || undefined
if (reference || !base) {
  console.log('skipped: this is about a Woodfrog server (WOODFROG_URL)')
  process.exit(0)
}
const home = '/home/user'
const headers = key ? { authorization: `Bearer ${key}` } : {}

/** A request to the native API. */
async function native(method, path, body) {
  const init = { method, headers: { ...headers } }
  if (body !== undefined) Object.assign(init, { body: JSON.stringify(body), headers: { ...headers, 'content-type': 'application/json' } })
  const response = await fetch(`${base}/api/v1${path}`, init)
  const text = await response.text()
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`)
  return text ? JSON.parse(text) : undefined
}

const made = []
async function sandbox() {
  const { id } = await native('POST', '/sandboxes', {})
  made.push(id)
  return id
}
const connect = (id, more = {}) => SandboxAgent.connect({ baseUrl: `${base}/agent/${id}`, token: key, ...more })
const face = (id, path, init = {}) => fetch(`${base}/agent/${id}${path}`, { headers, ...init })

test('sandboxes are apart: files, processes, agent servers', async () => {
  const ids = await Promise.all([sandbox(), sandbox()])
  const sdks = await Promise.all(ids.map((id) => connect(id)))
  for (const [i, sdk] of sdks.entries()) await sdk.writeFsFile({ path: `${home}/who` }, `sandbox ${i}`)
  for (const [i, sdk] of sdks.entries()) assert.equal(new TextDecoder().decode(await sdk.readFsFile({ path: `${home}/who` })), `sandbox ${i}`)
  const { id } = await sdks[0].createProcess({ command: 'sleep', args: ['60'] })
  assert.deepEqual((await sdks[1].listProcesses()).processes, [])
  await assert.rejects(sdks[1].getProcess(id), (error) => error.status === 404)
  await sdks[0].killProcess(id, { waitMs: 30_000 })
  const session = await sdks[0].createSession({ agent: 'mock', cwd: home })
  await session.prompt(words('hi'))
  assert.equal((await sdks[0].listAcpServers()).servers.length, 1)
  assert.equal((await sdks[1].listAcpServers()).servers.length, 0)
  for (const sdk of sdks) await sdk.dispose()
})

test('what the face writes is what the native API reads', async () => {
  const id = await sandbox()
  const sdk = await connect(id)
  await sdk.writeFsFile({ path: `${home}/shared` }, 'both')
  const response = await fetch(`${base}/api/v1/sandboxes/${id}/files/content?path=${home}/shared`, { headers })
  assert.equal(await response.text(), 'both')
  await sdk.dispose()
})

test('`default` is a sandbox that is made when it is first used, once', async () => {
  const [one, two] = await Promise.all([connect('default'), connect('default')])
  const name = fresh('default')
  await one.writeFsFile({ path: name }, 'x')
  assert.equal((await two.statFs({ path: name })).size, 1)
  await one.deleteFsEntry({ path: name })
  for (const sdk of [one, two]) await sdk.dispose()
})

test('an unknown sandbox is not found, whatever is asked of it', async () => {
  for (const id of ['nobody', 'sbx_0123456789abcdef', '..%2F..']) {
    for (const path of ['/v1/health', '/v1/agents', '/v1/acp', '/v1/fs/entries?path=.']) {
      const response = await face(id, path)
      assert.equal(response.status, 404, `${id}${path}`)
      assert.match(response.headers.get('content-type'), /^application\/problem\+json/)
    }
  }
})

test('without a key nothing is said', async () => {
  if (!key) return
  const id = await sandbox()
  for (const authorization of [undefined, 'Bearer wrong', 'Basic eDp5']) {
    const init = { headers: authorization ? { authorization } : {} }
    await problem(await face(id, '/v1/health', init), 401, 'token_invalid')
    await problem(await face('nobody', '/v1/health', init), 401, 'token_invalid')
    await problem(await face('default', '/v1/agents', init), 401, 'token_invalid')
  }
})

test('a sandbox that sleeps wakes for a prompt, and its agent remembers by itself', async () => {
  const id = await sandbox()
  const persist = new InMemorySessionPersistDriver()
  const sdk = await connect(id, { persist })
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  const said = async () => saidIn((await persist.listEvents({ sessionId: session.id, limit: 1000 })).items.map((event) => event.payload))
  await session.prompt(words('my name is Rosa'))
  for (const how of ['pause', 'hibernate']) {
    await native('POST', `/sandboxes/${id}/${how}`, how === 'hibernate' ? {} : undefined)
    const asleep = (await native('GET', `/sandboxes/${id}`)).state
    assert.equal(asleep, how === 'pause' ? 'paused' : 'hibernated')
    const before = (await said()).length
    assert.equal((await within(30_000, 'the prompt', session.prompt(words('what did I say before?')))).stopReason, 'end_turn')
    await until(async () => (await said()).length > before, 'the answer')
    await until(async () => (await said()).slice(before).includes('the last was: '), 'its memory')
    assert.ok(!(await said()).slice(before).includes('characters of history'), 'it was told nothing again')
    assert.equal((await native('GET', `/sandboxes/${id}`)).state, 'running')
  }
  await sdk.dispose()
})

test('a sandbox that is removed is gone here too', async () => {
  const id = await sandbox()
  const sdk = await connect(id)
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  await session.prompt(words('x'))
  await native('DELETE', `/sandboxes/${id}`)
  await assert.rejects(sdk.listAgents(), (error) => error.status === 404)
  assert.equal((await face(id, '/v1/health')).status, 404)
  await sdk.dispose()
})

test('the root says who answers, below the prefix too', async () => {
  const root = await json(await fetch(`${base}/agent/default/`))
  assert.equal(typeof root.name, 'string')
})

await run(async () => {
  for (const id of made) await fetch(`${base}/api/v1/sandboxes/${id}`, { method: 'DELETE', headers })
})
