// Where the face is, and how raw requests to it are made and judged.
//
// WOODFROG_AGENT_URL    base URL of the face, with its path prefix: http://host:port/agent/<sandbox>
// WOODFROG_AGENT_TOKEN  its bearer token (absent: none is sent)
// REFERENCE=1           the other side is the sandbox-agent 0.4.2 binary: what it is known to get
//                       wrong is then expected as it does it, so that these programs can be checked
import { randomUUID } from 'node:crypto'
import { assert, within } from './_check.mjs'

/** The face's base URL, without a slash at its end. */
export const url = (process.env.WOODFROG_AGENT_URL ?? '').replace(/\/$/, '')
/** The bearer token, if the face wants one. */
export const token = process.env.WOODFROG_AGENT_TOKEN || undefined
/** Whether the other side is the reference server. */
export const reference = process.env.REFERENCE === '1'
/** A folder that exists on the other side and that programs may fill. */
export const home = process.env.WOODFROG_AGENT_DIR ?? '/tmp'

if (!url) {
  console.error('WOODFROG_AGENT_URL is not set')
  process.exit(2)
}

/** A name nobody used before. */
export function fresh(prefix) {
  return `${prefix}-${randomUUID().slice(0, 13)}`
}

/** What `SandboxAgent.connect` is given. */
export function options(more = {}) {
  return { baseUrl: url, token, ...more }
}

/** A request below the base URL; the token is sent unless `auth` is given. */
export async function call(method, path, { headers = {}, body, auth, signal } = {}) {
  const bearer = auth === undefined ? token && `Bearer ${token}` : auth
  const all = { ...headers }
  if (bearer) all.authorization = bearer
  const init = { method, headers: all, signal }
  if (body !== undefined) init.body = body
  if (body instanceof ReadableStream) init.duplex = 'half'
  return fetch(url + path, init)
}

/** A request with a JSON body. */
export async function send(method, path, value, headers = {}) {
  return call(method, path, {
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(value),
  })
}

/** The body of a reply that must have succeeded. */
export async function json(response, status = 200) {
  const text = await response.text()
  assert.equal(response.status, status, text)
  assert.match(response.headers.get('content-type') ?? '', /^application\/json/)
  return JSON.parse(text)
}

/** A reply without a body. */
export async function empty(response, status = 204) {
  assert.equal(await response.text(), '')
  assert.equal(response.status, status)
}

/**
 * The reply is a problem document of the face: its type, title and status agree with `code`, and
 * its detail matches.
 */
export async function problem(response, status, code, detail, title) {
  const text = await response.text()
  assert.equal(response.status, status, text)
  assert.match(response.headers.get('content-type') ?? '', /^application\/problem\+json/)
  const body = JSON.parse(text)
  assert.equal(body.type, `urn:sandbox-agent:error:${code}`)
  assert.equal(body.status, status)
  const words = code.split('_').map((word) => word[0].toUpperCase() + word.slice(1))
  assert.equal(body.title, title ?? words.join(' '))
  if (detail) assert.match(body.detail, detail)
  return body
}

/** A reply of the HTTP layer: plain text, nothing more. */
export async function plain(response, status, text) {
  const body = await response.text()
  assert.equal(response.status, status, body)
  assert.match(response.headers.get('content-type') ?? '', /^text\/plain/)
  if (text) assert.match(body, text)
}

/** JSON-RPC to an agent server. */
export function post(server, envelope, { agent, headers } = {}) {
  const query = agent === undefined ? '' : `?agent=${encodeURIComponent(agent)}`
  return send('POST', `/v1/acp/${encodeURIComponent(server)}${query}`, envelope, headers)
}

/** The result of a JSON-RPC request. */
export async function rpc(server, id, method, params, how) {
  const reply = await json(await post(server, { jsonrpc: '2.0', id, method, params }, how))
  assert.equal(reply.id, id)
  assert.equal(reply.error, undefined, JSON.stringify(reply.error))
  return reply.result
}

/** Starts an agent behind `server` and opens one session; its id is returned. */
export async function openSession(server, agent = 'mock', cwd = home) {
  const clientInfo = { name: 'raw', version: '1' }
  await rpc(server, 'i', 'initialize', { protocolVersion: 1, clientCapabilities: {}, clientInfo }, { agent })
  return (await rpc(server, 'n', 'session/new', { cwd, mcpServers: [] })).sessionId
}

/** Ends an agent server; how long it took is returned. */
export async function close(server) {
  const start = performance.now()
  const signal = AbortSignal.timeout(reference ? 300 : 45_000)
  try {
    await empty(await call('DELETE', `/v1/acp/${encodeURIComponent(server)}`, { signal }))
  } catch (error) {
    if (!(reference && error.name === 'TimeoutError')) throw error
  }
  return performance.now() - start
}

/** A server-sent event stream, parsed as it comes. */
export class Events {
  frames = []
  comments = 0
  #abort = new AbortController()
  #done

  /** Opens the stream at `path`; `after` is sent as `Last-Event-ID`. */
  static async open(path, { after, headers = {} } = {}) {
    const events = new Events()
    const all = { accept: 'text/event-stream', ...headers }
    if (after !== undefined) all['last-event-id'] = String(after)
    const response = await call('GET', path, { headers: all, signal: events.#abort.signal })
    assert.equal(response.status, 200, `GET ${path}`)
    assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/)
    events.#done = events.#read(response.body).catch(() => {})
    return events
  }

  async #read(body) {
    let buffer = ''
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      buffer += chunk
      for (let end; (end = buffer.indexOf('\n\n')) >= 0; buffer = buffer.slice(end + 2)) {
        this.#frame(buffer.slice(0, end))
      }
    }
  }

  #frame(text) {
    const frame = { data: '' }
    for (const line of text.split('\n')) {
      const [, field, value] = /^([a-z]*): ?(.*)$/s.exec(line) ?? []
      if (field === '') this.comments += 1
      else if (field === 'data') frame.data += value
      else if (field) frame[field] = value
    }
    if (frame.data) this.frames.push({ ...frame, json: JSON.parse(frame.data) })
  }

  /** Waits until a frame satisfies `wanted` and returns it. */
  async wait(wanted, what, timeoutMs = 45_000) {
    const poll = async () => {
      for (;;) {
        const found = this.frames.find(wanted)
        if (found) return found
        await new Promise((resolve) => setTimeout(resolve, 10))
        if (this.#abort.signal.aborted) throw new Error('the stream is closed')
      }
    }
    return within(timeoutMs, what, poll())
  }

  /** Waits for the other side to end the stream. */
  async ended(timeoutMs = 45_000) {
    await within(timeoutMs, 'the end of the stream', this.#done)
  }

  /** Goes away. */
  close() {
    this.#abort.abort()
  }
}

/** The SSE stream of an agent server. */
export function stream(server, how) {
  return Events.open(`/v1/acp/${encodeURIComponent(server)}`, how)
}
