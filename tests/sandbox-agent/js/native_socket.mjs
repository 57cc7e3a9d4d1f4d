// A session of the native API over its WebSocket: two people, one order, one answer.
import WebSocket from 'ws'
import { assert, run, test, until } from './_check.mjs'
import { ask, say, script } from './_mock.mjs'

const base = process.env.WOODFROG_URL
const key = process.env.WOODFROG_API_KEY
if (!base) {
  console.log('skipped: this is about a Woodfrog server (WOODFROG_URL)')
  process.exit(0)
}
const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
const call = async (method, path, body) => {
  const reply = await fetch(`${base}/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) })
  const text = await reply.text()
  return { status: reply.status, body: text ? JSON.parse(text) : undefined }
}

/** A socket that collects what comes. */
async function join(session, after = 0) {
  const socket = new WebSocket(`${base.replace('http', 'ws')}/api/v1/sessions/${session}/socket?after=${after}`, { headers })
  const seen = []
  socket.on('message', (data) => seen.push(JSON.parse(data.toString())))
  await new Promise((resolve, reject) => (socket.on('open', resolve), socket.on('error', reject)))
  return { socket, seen, send: (command) => socket.send(JSON.stringify(command)), log: () => seen.filter((one) => one.sequence) }
}

const made = await call('POST', '/sessions', { agent: 'mock' })
assert.equal(made.status, 201, JSON.stringify(made.body))
const { id, sandbox } = made.body

test('everybody sees the same, whoever prompts', async () => {
  const [ann, bob] = await Promise.all([join(id), join(id)])
  ann.send({ type: 'prompt', text: script(say('for ann'))[0].text, author: 'ann' })
  bob.send({ type: 'prompt', text: script(say('for bob'))[0].text, author: 'bob' })
  const ended = (one) => one.log().filter((event) => event.kind === 'turn.ended').length === 2
  await until(() => ended(ann) && ended(bob), 'both turns')
  assert.deepEqual(ann.log(), bob.log())
  assert.deepEqual(ann.log().map((event) => event.sequence), ann.log().map((_, i) => i + 1))
  const late = await join(id, 3)
  await until(() => ended(late) && late.log().length === ann.log().length - 3, 'what was there')
  assert.deepEqual(late.log(), ann.log().slice(3))
  for (const one of [ann, bob, late]) one.socket.close()
})

test('what the agent asks is answered once', async () => {
  const [ann, bob] = await Promise.all([join(id), join(id)])
  ann.send({ type: 'prompt', text: script(ask('May I?'), say('done'))[0].text, author: 'ann' })
  const asked = () => bob.log().findLast((event) => event.payload.method === 'session/request_permission')
  await until(() => asked(), 'the question')
  await until(async () => (await call('GET', `/sessions/${id}`)).body.asked.length === 1, 'it is pending')
  const request = (await call('GET', `/sessions/${id}`)).body.asked[0].id
  bob.send({ type: 'answer', id: request, option: 'allow_once', author: 'bob' })
  await until(() => bob.log().filter((event) => event.kind === 'turn.ended').length === 3, 'the end of the turn')
  ann.send({ type: 'answer', id: request, option: 'allow_once', author: 'ann' })
  await until(() => ann.seen.some((one) => one.kind === 'error' && one.code === 'conflict'), 'the refusal')
  for (const one of [ann, bob]) one.socket.close()
})

test('typing is seen now and kept nowhere', async () => {
  const [ann, bob] = await Promise.all([join(id), join(id)])
  await until(() => bob.log().length > 0, 'the backlog')
  ann.send({ type: 'typing', author: 'ann', data: { on: true } })
  await until(() => bob.seen.some((one) => one.kind === 'typing' && one.author === 'ann' && one.data.on), 'the typing')
  const { body } = await call('GET', `/sessions/${id}/events?limit=1000`)
  assert.ok(body.items.every((event) => event.kind !== 'typing'))
  for (const one of [ann, bob]) one.socket.close()
})

test('what is no command is refused, and the socket lives on', async () => {
  const ann = await join(id)
  for (const bad of ['{', '{"type":"nothing"}', '[]']) ann.socket.send(bad)
  ann.socket.send(Buffer.from([1, 2, 3]))
  await until(() => ann.seen.filter((one) => one.kind === 'error').length === 4, 'the refusals')
  ann.send({ type: 'prompt', author: 'ann' })
  await until(() => ann.seen.filter((one) => one.kind === 'error').length === 5, 'the empty prompt')
  ann.socket.close()
})

await run(async () => {
  await call('DELETE', `/sessions/${id}`)
  await call('DELETE', `/sandboxes/${sandbox}`)
})
