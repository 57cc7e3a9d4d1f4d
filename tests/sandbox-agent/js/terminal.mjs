// A process on a terminal: WebSocket, input, size, end.
import { SandboxAgent, SandboxAgentError } from 'sandbox-agent'
import WebSocket from 'ws'
import { assert, run, test, until, within } from './_check.mjs'
import { options, token } from './_face.mjs'

const sdk = await SandboxAgent.connect(options())
const shell = () => sdk.createProcess({ command: 'sh', tty: true, interactive: true, env: { PS1: '> ' } })

/** Opens the terminal of a process and collects what comes. */
async function attach(id) {
  const terminal = sdk.connectProcessTerminal(id, { WebSocket })
  const seen = { text: '', exit: undefined, errors: [] }
  terminal.onData((bytes) => (seen.text += Buffer.from(bytes).toString()))
  terminal.onExit((status) => (seen.exit = status))
  terminal.onError((error) => seen.errors.push(error))
  const ready = await within(45_000, 'the terminal', new Promise((resolve) => terminal.onReady(resolve)))
  assert.deepEqual(ready, { type: 'ready', processId: id })
  return { terminal, seen }
}

/** A bare socket; resolves to its close code or the status it was refused with. */
function bare(url, headers) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, { headers })
    socket.on('unexpected-response', (_, response) => resolve(response.statusCode))
    socket.on('open', () => (socket.close(), resolve('open')))
    socket.on('error', () => {})
  })
}

test('input goes in, output comes out, the end is told', async () => {
  const { id } = await shell()
  const { terminal, seen } = await attach(id)
  terminal.sendInput('echo "a$((1+1))b"\n')
  await until(() => seen.text.includes('a2b'), 'the echo')
  terminal.sendInput(new TextEncoder().encode('exit 7\n'))
  await until(() => seen.exit, 'the end')
  assert.deepEqual(seen.exit, { type: 'exit', exitCode: 7 })
  await within(45_000, 'the socket closes', terminal.closed)
  assert.deepEqual(seen.errors, [])
  await sdk.deleteProcess(id)
})

test('the size reaches the program, by both ways', async () => {
  const { id } = await shell()
  const { terminal, seen } = await attach(id)
  terminal.resize({ cols: 101, rows: 41 })
  terminal.sendInput('stty size\n')
  await until(() => seen.text.includes('41 101'), 'the first size')
  assert.deepEqual(await sdk.resizeProcessTerminal(id, { cols: 90, rows: 30 }), { cols: 90, rows: 30 })
  terminal.sendInput('stty size\n')
  await until(() => seen.text.includes('30 90'), 'the second size')
  terminal.close()
  await sdk.killProcess(id, { waitMs: 30_000 })
  await sdk.deleteProcess(id)
})

test('closing the socket leaves the process; another joins it', async () => {
  const { id } = await shell()
  const first = await attach(id)
  first.terminal.sendInput('X=kept; echo set\n')
  await until(() => first.seen.text.includes('set\r\n'), 'the variable')
  first.terminal.close()
  await first.terminal.closed
  assert.equal((await sdk.getProcess(id)).status, 'running')
  const second = await attach(id)
  second.terminal.sendInput('echo "[$X]"\n')
  await until(() => second.seen.text.includes('[kept]'), 'the variable again')
  const { stream, entries } = await sdk.getProcessLogs(id)
  assert.equal(stream, 'pty')
  assert.ok(entries.every((entry) => entry.stream === 'pty'))
  second.terminal.close()
  await sdk.killProcess(id, { waitMs: 30_000 })
  await sdk.deleteProcess(id)
})

test('a binary or broken frame is an error, not the end of the process', async () => {
  const { id } = await shell()
  const { terminal, seen } = await attach(id)
  terminal.socket.send('{"type":')
  await until(() => seen.errors.length >= 1, 'the error')
  assert.equal(typeof seen.errors[0].message, 'string')
  assert.equal((await sdk.getProcess(id)).status, 'running')
  terminal.close()
  await sdk.killProcess(id, { waitMs: 30_000 })
  await sdk.deleteProcess(id)
})

test('the token comes in the address, and only there or in the header', async () => {
  const { id } = await shell()
  const right = sdk.buildProcessTerminalWebSocketUrl(id)
  assert.equal(await bare(right), 'open')
  if (token) {
    const address = new URL(right)
    address.searchParams.set('access_token', 'wrong')
    assert.equal(await bare(address), 401)
    address.searchParams.delete('access_token')
    assert.equal(await bare(address), 401)
    assert.equal(await bare(address, { authorization: `Bearer ${token}` }), 'open')
  }
  await sdk.killProcess(id, { waitMs: 30_000 })
  await sdk.deleteProcess(id)
})

test('a process without a terminal has none', async () => {
  const { id } = await sdk.createProcess({ command: 'cat', interactive: true })
  const refused = await sdk.resizeProcessTerminal(id, { cols: 80, rows: 24 }).then(() => undefined, (error) => error)
  assert.ok(refused instanceof SandboxAgentError)
  assert.equal(refused.status, 409)
  assert.equal(await bare(sdk.buildProcessTerminalWebSocketUrl(id)), 409)
  assert.equal(await bare(sdk.buildProcessTerminalWebSocketUrl('proc_999999')), 404)
  await sdk.killProcess(id, { waitMs: 30_000 })
  await sdk.deleteProcess(id)
})

await run(() => sdk.dispose())
