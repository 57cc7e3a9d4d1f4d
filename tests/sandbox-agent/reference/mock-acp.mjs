#!/usr/bin/env node
// A scripted agent that speaks ACP on stdio, for checking the programs beside it against a server
// whose own mock only echoes. It knows those steps of docs/reference/mock-agent.md that the programs use.
import { createInterface } from 'node:readline'
import { randomUUID } from 'node:crypto'

const sessions = new Map()
const waiting = new Map()
let asked = 0

const write = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
const update = (sessionId, kind, more) =>
  write({ method: 'session/update', params: { sessionId, update: { sessionUpdate: kind, ...more } } })
const text = (value) => ({ content: { type: 'text', text: value } })

function select(id, name, category, currentValue, values) {
  const options = values.map(([value, label]) => ({ value, name: label }))
  return { id, name, category, type: 'select', currentValue, options }
}

function newSession() {
  const id = `mock-${randomUUID()}`
  sessions.set(id, {
    id,
    configOptions: [
      select('model', 'Model', 'model', 'mock', [['mock', 'Mock'], ['mock-fast', 'Mock Fast']]),
      select('mode', 'Mode', 'mode', 'normal', [['normal', 'Normal'], ['plan', 'Plan']]),
      select('thought_level', 'Thought Level', 'thought_level', 'low', [['low', 'Low'], ['medium', 'Medium'], ['high', 'High']]),
    ],
    modes: { currentModeId: 'normal', availableModes: [{ id: 'normal', name: 'Normal' }, { id: 'plan', name: 'Plan' }] },
    allowed: new Set(),
  })
  return sessions.get(id)
}

function setMode(session, modeId) {
  session.modes.currentModeId = modeId
  session.configOptions.find((option) => option.id === 'mode').currentValue = modeId
  update(session.id, 'current_mode_update', { currentModeId: modeId })
}

class Failure extends Error {
  constructor(code, message) {
    super(message)
    this.code = code
  }
}

function ask(method, params) {
  const id = `ask-${++asked}`
  write({ id, method, params })
  return new Promise((resolve) => waiting.set(id, resolve))
}

const chunk = (session, value) => update(session.id, 'agent_message_chunk', text(value))
const toolEnd = (status) => (session, rest) => {
  const [id, said] = cut(rest)
  update(session.id, 'tool_call_update', { toolCallId: id, status, content: [{ type: 'content', ...text(plain(said)) }] })
}

/** Waits for `ms` milliseconds, or for the cancellation of the turn. */
function wait(session, ms) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    session.cancel = () => {
      clearTimeout(timer)
      session.cancelled = true
      resolve()
    }
  })
}

async function choice(session, title, options) {
  const toolCall = { toolCallId: `call-${randomUUID()}`, title, kind: 'execute', status: 'pending' }
  const reply = await ask('session/request_permission', { sessionId: session.id, options, toolCall })
  const outcome = reply.result?.outcome
  session.cancelled ||= outcome?.outcome !== 'selected'
  return outcome?.optionId
}

const steps = {
  say: (session, rest) => chunk(session, plain(rest)),
  think: (session, rest) => update(session.id, 'agent_thought_chunk', text(plain(rest))),
  mode: (session, rest) => setMode(session, rest),
  stderr: (_, rest) => process.stderr.write(`${rest}\n`),
  garbage: (_, rest) => process.stdout.write(`${rest}\n`),
  delay: (session, rest) => wait(session, Number(rest)),
  hang: (session) => wait(session, 2 ** 31 - 1),
  anyway: (session) => void (session.skipping = false),
  plan(session, rest) {
    const entries = rest.split('|').map((content) => ({ content: content.trim(), priority: 'medium', status: 'pending' }))
    update(session.id, 'plan', { entries })
  },
  usage(session, rest) {
    const [used, size] = rest.split(' ').map(Number)
    update(session.id, 'usage_update', { used, size })
  },
  tool(session, rest) {
    const [id, more] = cut(rest)
    const [kind, title] = cut(more)
    update(session.id, 'tool_call', { toolCallId: id, title, kind, status: 'in_progress' })
  },
  'tool-done': toolEnd('completed'),
  'tool-fail': toolEnd('failed'),
  async ask(session, title) {
    if (session.allowed.has(title)) return chunk(session, 'permission: allow_always')
    const kinds = ['allow_once', 'allow_always', 'reject_once', 'reject_always']
    const chosen = await choice(session, title, kinds.map((kind) => ({ optionId: kind, name: kind, kind })))
    if (session.cancelled) return
    if (chosen === 'allow_always') session.allowed.add(title)
    session.skipping = !chosen.startsWith('allow')
    chunk(session, `permission: ${chosen}`)
  },
  async choose(session, rest) {
    const [question, ...answers] = rest.split('|').map((part) => part.trim())
    const chosen = await choice(session, question, answers.map((name) => ({ optionId: name, name, kind: 'allow_once' })))
    if (!session.cancelled) chunk(session, `answer: ${chosen}`)
  },
  crash(_, rest) {
    const [code, said] = cut(rest)
    process.stderr.write(`${said}\n`, () => process.exit(Number(code)))
    return new Promise(() => {})
  },
  error(_, rest) {
    const [code, message] = cut(rest)
    throw new Failure(Number(code), message)
  },
}

/** The first word, and the rest. */
function cut(value) {
  const at = value.indexOf(' ')
  return at < 0 ? [value, ''] : [value.slice(0, at), value.slice(at + 1)]
}

const plain = (value) => (value.startsWith('"') ? JSON.parse(value) : value)

async function prompt({ sessionId, prompt }) {
  const session = sessions.get(sessionId)
  if (!session) throw new Failure(-32002, `unknown session ${sessionId}`)
  const last = prompt.filter((block) => block.type === 'text').at(-1)?.text ?? ''
  Object.assign(session, { cancelled: false, skipping: false, cancel: undefined })
  if (last.startsWith('mock:')) {
    for (const line of last.split('\n')) {
      const [name, rest] = cut(line.replace(/^mock: */, ''))
      if (!steps[name]) throw new Failure(-32602, `unknown step ${name}`)
      if (session.skipping && name !== 'anyway') continue
      await steps[name](session, rest)
      if (session.cancelled) return { stopReason: 'cancelled' }
    }
  } else {
    chunk(session, 'mock: ')
    chunk(session, last)
  }
  return { stopReason: 'end_turn', usage: { inputTokens: 1, outputTokens: 1, totalTokens: 2 } }
}

const methods = {
  initialize: () => ({
    protocolVersion: 1,
    agentCapabilities: { loadSession: false, promptCapabilities: { image: true, embeddedContext: true } },
    agentInfo: { name: 'mock', version: '1' },
    authMethods: [],
  }),
  'session/new'() {
    const { id, configOptions, modes } = newSession()
    return { sessionId: id, configOptions, modes }
  },
  'session/prompt': prompt,
  'session/set_mode'({ sessionId, modeId }) {
    setMode(sessions.get(sessionId), modeId)
    return {}
  },
  'session/set_config_option'({ sessionId, configId, value }) {
    const session = sessions.get(sessionId)
    if (configId === 'mode') setMode(session, value)
    session.configOptions.find((option) => option.id === configId).currentValue = value
    return { configOptions: session.configOptions }
  },
  'session/cancel'({ sessionId }) {
    sessions.get(sessionId)?.cancel?.()
  },
}

async function handle(message) {
  if (message.method === undefined) return waiting.get(message.id)?.(message)
  const { id, method, params } = message
  try {
    if (!methods[method]) throw new Failure(-32601, `Method not found: ${method}`)
    const result = await methods[method](params ?? {})
    if (id !== undefined) write({ id, result })
  } catch (error) {
    if (id !== undefined) write({ id, error: { code: error.code ?? -32603, message: error.message } })
  }
}

createInterface({ input: process.stdin })
  .on('line', (line) => void handle(JSON.parse(line)))
  .on('close', () => process.exit(0))
