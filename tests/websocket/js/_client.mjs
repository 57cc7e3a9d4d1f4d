// A client of the WebSocket sandbox that behaves as those in the field do: it knows no extension,
// remembers no cursor, and takes a process's life from the statuses alone.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import WebSocket from 'ws'

export const URL = process.env.WOODFROG_WS_URL
const headers = { 'X-API-Key': process.env.WOODFROG_API_KEY }

// After one of these a connection that breaks is not taken up again.
const FATAL = new Set([
  'ERROR', 'NOT_FOUND', 'CREATION_ERROR', 'CHECKPOINT_ERROR', 'RESTORE_ERROR', 'DELETED',
  'LOCK_RENEWAL_ERROR', 'PERMISSION_DENIAL_ERROR',
].map((name) => `SANDBOX_${name}`))

function deferred() {
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  made.promise.catch(() => {})
  return made
}

export async function within(promise, what, ms = 60_000) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took too long`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

class Process {
  stdout = new PassThrough({ highWaterMark: 1 << 30 })
  stderr = new PassThrough({ highWaterMark: 1 << 30 })
  started = deferred()
  done = deferred()
  killed = deferred()

  constructor(sandbox) {
    this.sandbox = sandbox
  }

  status(name, frame) {
    if (name === 'SANDBOX_EXECUTION_RUNNING') this.started.resolve()
    else if (name === 'SANDBOX_EXECUTION_FORCE_KILLED') this.killed.resolve()
    else if (name === 'SANDBOX_EXECUTION_DONE') {
      this.stdout.end()
      this.stderr.end()
      // The old protocol has no exit code: here it is read to look at the extension.
      this.done.resolve(frame.exit_code)
    } else this.started.reject(new Error(frame.message ?? name))
  }

  wait() {
    return within(this.done.promise, 'the process')
  }

  writeToStdin(data) {
    this.sandbox.send({ event: 'stdin', data })
  }

  async kill() {
    this.sandbox.send({ action: 'kill_process' })
    await within(this.killed.promise, 'the kill')
    await within(this.done.promise, 'the end')
  }
}

export async function readAll(stream) {
  let all = ''
  for await (const chunk of stream) all += chunk.toString('utf8')
  return all
}

export class Sandbox {
  statuses = []
  ready = deferred()
  over = deferred()
  waiting = []
  process = null
  reconnects = 0

  static async create(url, options = {}) {
    const sandbox = new Sandbox(url, options)
    sandbox.open('/create', () => sandbox.send({
      idle_timeout: options.idleTimeout ?? 60,
      enable_checkpoint: options.enableSandboxCheckpoint ?? false,
      enable_sandbox_handoff: options.enableSandboxHandoff ?? false,
      filesystem_snapshot_name: options.filesystemSnapshotName,
      enable_idle_timeout_auto_checkpoint: options.enableIdleTimeoutAutoCheckpoint ?? false,
    }))
    await within(sandbox.ready.promise, 'the sandbox')
    return sandbox
  }

  static async attach(url, id, token, options = {}) {
    const sandbox = new Sandbox(url, options)
    Object.assign(sandbox, { sandboxId: id, sandboxToken: token })
    sandbox.open(sandbox.attachPath())
    await within(sandbox.ready.promise, 'the sandbox')
    return sandbox
  }

  constructor(url, options) {
    this.url = url.replace(/\/$/, '')
    this.options = options
  }

  attachPath() {
    return `/attach/${this.sandboxId}?sandbox_token=${this.sandboxToken}`
  }

  open(path, opened = () => {}) {
    const extra = this.cookie ? { Cookie: this.cookie } : {}
    const socket = new WebSocket(`${this.url}${path}`, { headers: { ...headers, ...extra } })
    this.socket = socket
    socket.on('upgrade', (response) => {
      this.cookie = response.headers['set-cookie']?.[0] ?? this.cookie
    })
    socket.on('open', opened)
    socket.on('message', (text) => this.frame(JSON.parse(text.toString('utf8'))))
    socket.on('error', (error) => (this.failure = error))
    socket.on('close', (code) => this.closed(socket, code))
  }

  send(frame) {
    if (this.running || !frame.event) this.socket.send(JSON.stringify(frame))
    // Input is kept while the connection is away.
    else this.waiting.push(frame)
  }

  frame(frame) {
    switch (frame.event) {
      case 'sandbox_id':
        this.sandboxId = frame.sandbox_id
        this.sandboxToken = frame.sandbox_token
        return
      case 'stdout':
      case 'stderr':
        this.process?.[frame.event].write(frame.data)
        this.onOutput?.(frame)
        return
      case 'status_update':
        return this.status(frame.status, frame)
    }
  }

  status(name, frame) {
    this.statuses.push(name.replace('SANDBOX_', ''))
    if (name.startsWith('SANDBOX_EXECUTION_') && name !== 'SANDBOX_EXECUTION_IN_PROGRESS_ERROR') {
      this.process?.status(name, frame)
      if (name === 'SANDBOX_EXECUTION_DONE') this.process = null
    } else if (name === 'SANDBOX_RUNNING') {
      this.running = true
      this.mayReturn = true
      this.ready.resolve()
      for (const waiting of this.waiting.splice(0)) this.send(waiting)
    } else if (FATAL.has(name) || name === 'SANDBOX_IN_USE') {
      this.mayReturn = this.mayReturn && !FATAL.has(name)
      this.ready.reject(new Error(frame.message ?? name))
    }
    this.wanted?.(name, frame)
  }

  closed(socket, code) {
    if (socket !== this.socket) return
    this.running = false
    if (this.options.enableAutoReconnect && this.mayReturn) {
      this.reconnects += 1
      // What broke was seen after RUNNING: the output goes on where it was.
      this.open(this.attachPath(), () => this.socket.send('{"action":"reconnect"}'))
      return
    }
    this.ready.reject(this.failure ?? new Error(`closed (${code})`))
    this.over.resolve(code)
  }

  async exec(language, code) {
    assert.ok(this.running, 'the sandbox does not run')
    const process = new Process(this)
    this.process = process
    this.send({ language, code })
    await within(process.started.promise, 'the start')
    return process
  }

  // Waits for one of these statuses.
  expect(...names) {
    const seen = deferred()
    this.wanted = (name, frame) => {
      if (names.includes(name.replace('SANDBOX_', ''))) seen.resolve(frame)
    }
    return within(seen.promise, names.join(' or '))
  }

  async act(frame, good, bad) {
    const answer = this.expect(good, bad)
    this.send(frame)
    const { status, message } = await answer
    if (status !== `SANDBOX_${good}`) throw new Error(message ?? status)
  }

  async checkpoint() {
    const answer = this.expect('CHECKPOINTED', 'CHECKPOINT_ERROR', 'EXECUTION_IN_PROGRESS_ERROR')
    this.send({ action: 'checkpoint' })
    const { status, message } = await answer
    if (status !== 'SANDBOX_CHECKPOINTED') throw new Error(message ?? status)
    this.mayReturn = false
    assert.equal(await within(this.over.promise, 'the close'), 1000)
  }

  snapshotFilesystem(name) {
    const frame = { action: 'snapshot_filesystem', name }
    return this.act(frame, 'FILESYSTEM_SNAPSHOT_CREATED', 'FILESYSTEM_SNAPSHOT_ERROR')
  }

  async kill() {
    this.mayReturn = false
    await this.act({ action: 'kill_sandbox' }, 'KILLED', 'KILL_ERROR')
    assert.equal(await within(this.over.promise, 'the close'), 1000)
  }

  // The client goes; the sandbox stays.
  async leave() {
    this.mayReturn = false
    this.socket.close()
    await once(this.socket, 'close')
  }

  async run(language, code) {
    const process = await this.exec(language, code)
    const [stdout, stderr] = await Promise.all([readAll(process.stdout), readAll(process.stderr)])
    return { stdout, stderr, exitCode: await process.wait() }
  }
}

export { assert }
