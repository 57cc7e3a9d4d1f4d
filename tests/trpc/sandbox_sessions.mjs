// The procedures `sandbox.*` through an unmodified @trpc/client, every link that it has for HTTP.
import * as trpc from '@trpc/client'
import superjson from 'superjson'
import { assert, run, test, until } from './_check.mjs'

const base = process.env.WOODFROG_URL
const key = process.env.WOODFROG_API_KEY
const version = process.env.TRPC_VERSION
const made = []

// Version 11 wants the transformer in the link, version 10 in the client.
const modern = Number(version.split('.')[0]) >= 11

function connect(link, headers = { authorization: `Bearer ${key}` }, more = {}) {
  const options = { url: `${base}/api/trpc`, headers: () => headers, ...more }
  if (modern) {
    return trpc.createTRPCClient({ links: [trpc[link]({ ...options, transformer: superjson })] })
  }
  return trpc.createTRPCProxyClient({ transformer: superjson, links: [trpc[link](options)] })
}

async function rest(method, path, body, headers = {}) {
  const response = await fetch(`${base}/api/v1${path}`, {
    method,
    headers: { 'x-api-key': key, 'content-type': 'application/json', ...headers },
    body: body && JSON.stringify(body),
  })
  const text = await response.text()
  return { status: response.status, body: text ? JSON.parse(text) : undefined }
}

async function session(projectId, userId, autoPauseTimeout) {
  const sandbox = await rest('POST', '/sandboxes', { template: 'base' })
  assert.equal(sandbox.status, 201, JSON.stringify(sandbox.body))
  made.push(sandbox.body.id)
  const body = { sandboxId: sandbox.body.id, projectId, userId, framework: 'NEXTJS' }
  if (autoPauseTimeout !== undefined) body.autoPauseTimeout = autoPauseTimeout
  const created = await rest('POST', '/sandbox-sessions', body)
  assert.equal(created.status, 201, JSON.stringify(created.body))
  return created.body
}

for (const link of ['httpBatchLink', 'httpLink']) {
  test(`${link}: the four procedures answer in the contract's shapes`, async () => {
    const api = connect(link)
    const project = `project-${link}-${version}`
    const mine = await session(project, `user-${link}-${version}`)
    const got = await api.sandbox.getSession.query({ sandboxId: mine.sandboxId })
    assert.equal(got.success, true)
    assert.equal(got.session._id, mine._id)
    assert.equal(got.session.state, 'RUNNING')
    assert.equal(got.session.autoPauseTimeout, 600_000)
    const active = await api.sandbox.updateActivity.mutate({ sandboxId: mine.sandboxId })
    assert.equal(active.success, true)
    assert.ok(active.session.lastActivity >= mine.lastActivity)
    const listed = await api.sandbox.getProjectSessions.query({ projectId: project })
    assert.deepEqual(listed.sessions.map((one) => one._id), [mine._id])
    const user = connect(link, { 'x-api-key': key, 'x-user-id': mine.userId })
    const own = await user.sandbox.getUserSessions.query()
    assert.equal(own.success, true)
    assert.deepEqual(own.sessions.map((one) => one._id), [mine._id])
  })

  test(`${link}: unknown sandboxes and bad input`, async () => {
    const api = connect(link)
    const none = await api.sandbox.getSession.query({ sandboxId: 'nosuch' })
    assert.deepEqual(none, { success: true, session: null })
    const failed = await api.sandbox.updateActivity.mutate({ sandboxId: 'nosuch' })
    assert.deepEqual(failed, { success: false, error: 'Sandbox session not found: nosuch' })
    await assert.rejects(api.sandbox.getSession.query({}), (error) => {
      assert.equal(error.constructor.name, 'TRPCClientError')
      assert.equal(error.data.code, 'BAD_REQUEST')
      assert.equal(JSON.parse(error.message)[0].path[0], 'sandboxId')
      return true
    })
    await assert.rejects(api.sandbox.nosuch.query(), (error) => error.data.httpStatus === 404)
  })
}

test('httpBatchLink: calls of one moment share one request', async () => {
  const mine = await session(`batch-${version}`, 'u')
  let requests = 0
  const counting = (input, init) => {
    requests += 1
    return fetch(input, init)
  }
  const api = connect('httpBatchLink', { 'x-api-key': key }, { fetch: counting })
  const [one, two, three] = await Promise.allSettled([
    api.sandbox.getSession.query({ sandboxId: mine.sandboxId }),
    api.sandbox.getProjectSessions.query({ projectId: `batch-${version}` }),
    api.sandbox.getSession.query({}),
  ])
  assert.equal(requests, 1)
  assert.equal(one.value.session._id, mine._id)
  assert.equal(two.value.sessions.length, 1)
  assert.equal(three.reason.data.code, 'BAD_REQUEST')
})

test('without a key every call is UNAUTHORIZED', async () => {
  for (const link of ['httpBatchLink', 'httpLink']) {
    const api = connect(link, {})
    await assert.rejects(api.sandbox.getUserSessions.query(), (error) => {
      assert.equal(error.message, 'Not authenticated')
      assert.deepEqual(
        { code: error.data.code, httpStatus: error.data.httpStatus },
        { code: 'UNAUTHORIZED', httpStatus: 401 }
      )
      return true
    })
  }
})

test('an idle sandbox is paused, and activity wakes it', async () => {
  const api = connect('httpLink')
  const mine = await session(`idle-${version}`, 'u', 5000)
  const look = () => api.sandbox.getSession.query({ sandboxId: mine.sandboxId })
  const paused = await until(async () => {
    const { session } = await look()
    return session.state === 'PAUSED' && session
  }, 'paused when idle')
  assert.equal(typeof paused.pausedAt, 'number')
  const active = await api.sandbox.updateActivity.mutate({ sandboxId: mine.sandboxId })
  assert.equal(active.success, true, active.error)
  assert.equal(active.session.state, 'RUNNING')
  assert.equal('pausedAt' in active.session, false)
  const killed = await rest('PUT', `/sandbox-sessions/${mine._id}/state`, { state: 'KILLED' })
  assert.equal(killed.body.state, 'KILLED')
  assert.equal((await look()).session.state, 'KILLED')
  const late = await api.sandbox.updateActivity.mutate({ sandboxId: mine.sandboxId })
  assert.equal(late.success, false)
})

await run(async () => {
  for (const id of made) await rest('DELETE', `/sandboxes/${id}`)
})
