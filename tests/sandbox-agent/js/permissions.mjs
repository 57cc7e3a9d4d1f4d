// The agent asks, people answer.
import { SandboxAgent, UnsupportedPermissionReplyError } from 'sandbox-agent'
import { assert, run, test, until, within } from './_check.mjs'
import { home, options } from './_face.mjs'
import { anyway, ask, choose, saidIn, say, script } from './_mock.mjs'

const sdk = await SandboxAgent.connect(options())

/** A session, what it said, and the requests it made; `answer` is called with each. */
async function asking(answer, ...steps) {
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  const payloads = []
  const requests = []
  session.onEvent((event) => payloads.push(event.payload))
  if (answer) {
    session.onPermissionRequest((request) => {
      requests.push(request)
      void answer(session, request)
    })
  }
  const reply = await session.prompt(script(...steps))
  await until(() => payloads.some((payload) => payload.result?.stopReason), 'the end of the turn')
  return { session, reply, requests, payloads, said: () => saidIn(payloads) }
}

for (const [answer, option, after] of [['once', 'allow_once', ' done. end'], ['always', 'allow_always', ' done. end'], ['reject', 'reject_once', ' end']]) {
  test(`the answer '${answer}' reaches the agent`, async () => {
    const reply = (session, request) => session.respondPermission(request.id, answer)
    const turn = await asking(reply, ask('rm -rf build'), say(' done.'), anyway(), say(' end'))
    await until(() => turn.said() === `permission: ${option}${after}`, 'what the agent made of it')
    assert.equal(turn.reply.stopReason, 'end_turn')
    assert.equal(turn.requests.length, 1)
    const [request] = turn.requests
    assert.deepEqual(request.availableReplies, ['once', 'always', 'reject'])
    assert.equal(request.sessionId, turn.session.id)
    assert.equal(request.agentSessionId, turn.session.agentSessionId)
    assert.equal(request.toolCall.title, 'rm -rf build')
    assert.deepEqual(request.options.map((one) => one.kind), ['allow_once', 'allow_always', 'reject_once', 'reject_always'])
    await assert.rejects(turn.session.respondPermission(request.id, 'once'), /permission '.*' not found/)
  })
}

test('what was allowed always is not asked again', async () => {
  const always = (session, request) => session.respondPermission(request.id, 'always')
  const turn = await asking(always, ask('make'), ask('make'), ask('make install'))
  await until(() => turn.said() === 'permission: allow_always'.repeat(3), 'three answers')
  assert.deepEqual(turn.requests.map((request) => request.toolCall.title), ['make', 'make install'])
})

test('a client that does not listen cancels', async () => {
  const turn = await asking(undefined, ask('x'), say('never'))
  assert.equal(turn.reply.stopReason, 'cancelled')
  assert.equal(turn.said(), '')
})

test('an answer in the agent\'s own words', async () => {
  const outcome = { outcome: 'selected', optionId: 'reject_always' }
  const turn = await asking((session, request) => session.rawRespondPermission(request.id, { outcome }), ask('x'))
  await until(() => turn.said() === 'permission: reject_always', 'the answer')
})

test('a question with answers of its own', async () => {
  const pick = (session, request) => {
    assert.deepEqual(request.options.map((option) => option.name), ['red', 'light blue'])
    return session.rawRespondPermission(request.id, { outcome: { outcome: 'selected', optionId: 'light blue' } })
  }
  const turn = await asking(pick, choose('Which colour?', 'red', 'light blue'))
  await until(() => turn.said() === 'answer: light blue', 'the answer')
})

test('an answer that was not offered is refused', async () => {
  let refused
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  session.onPermissionRequest((request) => {
    refused = session.respondPermission(request.id, 'reject').then(() => undefined, (error) => error)
  })
  // How the agent takes the refusal is its own affair; the prompt ends either way.
  await session.prompt(script(choose('x', 'yes'))).catch(() => {})
  assert.ok((await refused) instanceof UnsupportedPermissionReplyError)
})

test('request and answer are in the session\'s events', async () => {
  const { payloads } = await asking((session, request) => session.respondPermission(request.id, 'once'), ask('make'))
  const request = payloads.find((payload) => payload.method === 'session/request_permission')
  assert.ok(request)
  assert.equal(request.params.toolCall.title, 'make')
})

test('several questions of several sessions, answered out of order', async () => {
  const sessions = await Promise.all(Array.from({ length: 4 }, () => sdk.createSession({ agent: 'mock', cwd: home })))
  const pending = []
  const said = sessions.map(() => [])
  const prompts = sessions.map((session, i) => {
    session.onEvent((event) => said[i].push(event.payload))
    session.onPermissionRequest((request) => pending.push([i, session, request]))
    return session.prompt(script(ask(`question ${i}`)))
  })
  await until(() => pending.length === 4, 'all questions')
  for (const [i, session, request] of pending.reverse()) {
    assert.equal(request.toolCall.title, `question ${i}`)
    await session.respondPermission(request.id, i % 2 ? 'once' : 'reject')
  }
  await Promise.all(prompts)
  for (const i of sessions.keys()) {
    await until(() => saidIn(said[i]) === `permission: ${i % 2 ? 'allow_once' : 'reject_once'}`, `the answer of ${i}`)
  }
})

test('destroying a session cancels what it asked', async () => {
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  const asked = new Promise((resolve) => session.onPermissionRequest(resolve))
  const prompt = session.prompt(script(ask('x')))
  await asked
  await sdk.destroySession(session.id)
  assert.equal((await within(30_000, 'the end of the turn', prompt)).stopReason, 'cancelled')
})

await run(() => sdk.dispose())
