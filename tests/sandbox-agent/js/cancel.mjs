// Stopping a turn, ending a session.
import { SandboxAgent } from 'sandbox-agent'
import { assert, run, test, until, within } from './_check.mjs'
import { close, fresh, home, openSession, options, post, rpc, stream, empty, json } from './_face.mjs'
import { hang, saidIn, say, script, words } from './_mock.mjs'

const sdk = await SandboxAgent.connect(options())

test('destroying a session ends its turn as cancelled', async () => {
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  const payloads = []
  session.onEvent((event) => payloads.push(event.payload))
  const prompt = session.prompt(script(say('working'), hang()))
  await until(() => saidIn(payloads) === 'working', 'the turn has begun')
  const destroyed = await sdk.destroySession(session.id)
  assert.equal(typeof destroyed.destroyedAt, 'number')
  assert.equal((await within(30_000, 'the end of the turn', prompt)).stopReason, 'cancelled')
})

test('a cancel by hand is refused by the SDK', async () => {
  const session = await sdk.createSession({ agent: 'mock', cwd: home })
  await assert.rejects(session.rawSend('session/cancel'), /Manual session\/cancel calls are not allowed/)
})

test('other sessions go on', async () => {
  const [one, two] = await Promise.all([0, 1].map(() => sdk.createSession({ agent: 'mock', cwd: home })))
  const payloads = []
  one.onEvent((event) => payloads.push(event.payload))
  const prompt = one.prompt(script(say('x'), hang()))
  await until(() => saidIn(payloads) === 'x', 'the turn has begun')
  assert.equal((await two.prompt(words('meanwhile'))).stopReason, 'end_turn')
  await sdk.destroySession(one.id)
  assert.equal((await prompt).stopReason, 'cancelled')
  assert.equal((await two.prompt(words('after'))).stopReason, 'end_turn')
})

test('session/cancel as a notification, without the SDK', async () => {
  const server = fresh('cancel')
  const sessionId = await openSession(server)
  const events = await stream(server)
  const params = { sessionId, prompt: script(say('x'), hang()) }
  const prompt = post(server, { jsonrpc: '2.0', id: 7, method: 'session/prompt', params })
  await events.wait((frame) => saidIn([frame.json]) === 'x', 'the turn has begun')
  await empty(await post(server, { jsonrpc: '2.0', method: 'session/cancel', params: { sessionId } }), 202)
  const reply = await json(await within(30_000, 'the end of the turn', prompt))
  assert.equal(reply.result.stopReason, 'cancelled')
  const again = await rpc(server, 8, 'session/prompt', { sessionId, prompt: words('still there') })
  assert.equal(again.stopReason, 'end_turn')
  events.close()
  await close(server)
})

await run(() => sdk.dispose())
