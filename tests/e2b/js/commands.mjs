// Every method of `commands` and `pty`.
import { Sandbox, CommandExitError, TimeoutError, NotFoundError } from 'e2b'
import { createHash } from 'node:crypto'
import { assert, run, test, until } from './_check.mjs'

const sbx = await Sandbox.create({ timeoutMs: 300_000 })

test('run returns output and exit code, streams apart', async () => {
  const out = []
  const err = []
  const result = await sbx.commands.run('echo one; echo two >&2; echo three', {
    onStdout: (text) => out.push(text),
    onStderr: (text) => err.push(text),
  })
  assert.equal(result.exitCode, 0)
  assert.equal(result.stdout, 'one\nthree\n')
  assert.equal(result.stderr, 'two\n')
  assert.equal(out.join(''), 'one\nthree\n')
  assert.equal(err.join(''), 'two\n')
})

test('a failing command throws with code and output', async () => {
  const error = await sbx.commands.run('echo partial; exit 3').catch((error) => error)
  assert.ok(error instanceof CommandExitError)
  assert.equal(error.exitCode, 3)
  assert.equal(error.stdout, 'partial\n')
})

test('envs, cwd and user of one call', async () => {
  const options = { envs: { A: 'x y', HOME_OF: 'me' }, cwd: '/tmp' }
  assert.equal((await sbx.commands.run('echo "$A" $HOME_OF $(pwd)', options)).stdout, 'x y me /tmp\n')
  assert.equal((await sbx.commands.run('whoami', { user: 'root' })).stdout, 'root\n')
  await assert.rejects(sbx.commands.run('true', { cwd: '/no/such/dir' }), /does not exist/)
  await assert.rejects(sbx.commands.run('true', { user: 'nobody-here' }))
})

test('output arrives while the command runs', async () => {
  let seen = ''
  let told
  const first = new Promise((resolve) => (told = resolve))
  const onStdout = (text) => {
    seen += text
    told()
  }
  const script = 'echo one; until [ -e /tmp/go-on ]; do sleep 0.05; done; echo two'
  const running = sbx.commands.run(script, { onStdout })
  // It cannot end before it is told to go on, and it is told only when its output is here.
  await Promise.race([first, running])
  assert.equal(seen, 'one\n')
  await sbx.files.write('/tmp/go-on', '')
  await running
  assert.equal(seen, 'one\ntwo\n')
})

test('a timeout kills the command', async () => {
  await assert.rejects(sbx.commands.run('sleep 300', { timeoutMs: 500 }), TimeoutError)
  await until(async () => {
    const left = await sbx.commands.run('pgrep -fx "sleep 300" || true')
    return left.stdout === ''
  }, 'the process to be gone')
})

test('background commands are listed, connected to and killed', async () => {
  const handle = await sbx.commands.run('while read line; do echo "got $line"; done', {
    background: true,
    stdin: true,
  })
  assert.ok((await sbx.commands.list()).some((process) => process.pid === handle.pid))
  const texts = []
  const second = await sbx.commands.connect(handle.pid, { onStdout: (text) => texts.push(text) })
  await sbx.commands.sendStdin(handle.pid, 'first\n')
  await until(() => texts.join('').includes('got first'), 'the echo')
  await sbx.commands.sendStdin(handle.pid, 'second\n')
  await until(() => texts.join('').includes('got second'), 'the second echo')
  await second.disconnect()
  assert.equal(await handle.kill(), true)
  await assert.rejects(handle.wait())
  await until(async () => !(await sbx.commands.list()).some((p) => p.pid === handle.pid), 'it to leave the list')
  assert.equal(await sbx.commands.kill(handle.pid), false)
  await assert.rejects(sbx.commands.connect(999_999), NotFoundError)
})

test('closing stdin ends a reader', async () => {
  const handle = await sbx.commands.run('cat', { background: true, stdin: true })
  await sbx.commands.sendStdin(handle.pid, 'to the end')
  await sbx.commands.closeStdin(handle.pid)
  const result = await handle.wait()
  assert.equal(result.stdout, 'to the end')
})

test('a handle writes to its command and ends the input', async () => {
  const handle = await sbx.commands.run('cat', { background: true, stdin: true })
  await handle.sendStdin('one ')
  await handle.sendStdin(new TextEncoder().encode('two '))
  const second = await sbx.commands.connect(handle.pid)
  await second.sendStdin('three')
  await second.closeStdin()
  await handle.wait()
  assert.equal(handle.stdout, 'one two three')
  assert.equal(handle.exitCode, 0)
  assert.equal((await second.wait()).exitCode, 0)
  const deaf = await sbx.commands.run('sleep 600', { background: true })
  await assert.rejects(deaf.sendStdin('nobody reads'))
  assert.equal(await deaf.kill(), true)
  await assert.rejects(deaf.wait(), CommandExitError)
})

test('a disconnected command goes on', async () => {
  const handle = await sbx.commands.run('sleep 0.5; echo done > /tmp/went-on', { background: true })
  await handle.disconnect()
  await until(() => sbx.files.exists('/tmp/went-on'), 'the file')
})

test('large output is complete, in order, and UTF-8 survives', async () => {
  const hash = createHash('sha256')
  let bytes = 0
  const result = await sbx.commands.run(
    `python3 -c "import sys; [sys.stdout.write('zeile %d äöü€\\n' % i) for i in range(100000)]"`,
    { onStdout: (text) => { hash.update(text); bytes += Buffer.byteLength(text) } },
  )
  let expected = ''
  for (let i = 0; i < 100000; i++) expected += `zeile ${i} äöü€\n`
  assert.equal(bytes, Buffer.byteLength(expected))
  assert.equal(result.stdout.length, expected.length)
  assert.equal(hash.digest('hex'), createHash('sha256').update(expected).digest('hex'))
})

test('twenty commands at once', async () => {
  const results = await Promise.all(
    Array.from({ length: 20 }, (_, i) => sbx.commands.run(`sleep 0.1; echo ${i}`)),
  )
  assert.deepEqual(results.map((result) => result.stdout), results.map((_, i) => `${i}\n`))
})

test('pty: input, output, size, kill', async () => {
  let screen = ''
  const pty = await sbx.pty.create({
    cols: 80,
    rows: 24,
    timeoutMs: 60_000,
    onData: (data) => { screen += Buffer.from(data).toString() },
  })
  const type = (text) => sbx.pty.sendInput(pty.pid, new TextEncoder().encode(text))
  await type('echo $((40+2)); tty; stty size\n')
  await until(() => /42/.test(screen) && /24 80/.test(screen), `the terminal, saw ${screen}`)
  await sbx.pty.resize(pty.pid, { cols: 100, rows: 30 })
  await type('stty size\n')
  await until(() => /30 100/.test(screen), 'the new size')
  await type('exit\n')
  await pty.wait()
  const second = await sbx.pty.create({ cols: 80, rows: 24, onData: () => {} })
  assert.equal(await sbx.pty.kill(second.pid), true)
  await second.wait().catch(() => {})
})

test('pty: connect continues a terminal', async () => {
  const pty = await sbx.pty.create({ cols: 80, rows: 24, onData: () => {} })
  await pty.disconnect()
  let screen = ''
  await sbx.pty.connect(pty.pid, { onData: (data) => { screen += Buffer.from(data).toString() } })
  await sbx.pty.sendInput(pty.pid, new TextEncoder().encode('echo still-$((1+1))-here\n'))
  await until(() => screen.includes('still-2-here'), 'the output')
  await sbx.pty.kill(pty.pid)
})

await run(() => sbx.kill())
