#!/usr/bin/env node
// A scripted agent that speaks ACP on stdio, for checking the programs beside it against a server
// whose own mock only echoes. It understands the prompts that `js/_mock.mjs` makes.
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
    cancel: undefined,
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

const steps = {
  say: (session, value) => update(session.id, 'agent_message_chunk', text(value)),
  think: (session, value) => update(session.id, 'agent_thought_chunk', text(value)),
  mode: (session, value) => setMode(session, value),
  stderr: (_, value) => process.stderr.write(`${value}\n`),
  garbage: (_, value) => process.stdout.write(`${value}\n`),
  plan(session, value) {
    const entries = value.map((content) => ({ content, priority: 'medium', status: 'pending' }))
    update(session.id, 'plan', { entries })
  },
  tool(session, { title, kind, output }) {
    const toolCallId = `call-${randomUUID()}`
    update(session.id, 'tool_call', { toolCallId, title, kind, status: 'in_progress' })
    const content = [{ type: 'content', ...text(output) }]
    update(session.id, 'tool_call_update', { toolCallId, status: 'completed', content })
  },
  async permission(session, { title, kinds }) {
    const options = kinds.map((kind) => ({ optionId: kind, name: kind, kind }))
    const toolCall = { toolCallId: `call-${randomUUID()}`, title, kind: 'execute', status: 'pending' }
    const reply = await ask('session/request_permission', { sessionId: session.id, options, toolCall })
    const outcome = reply.result?.outcome
    const said = outcome?.outcome === 'selected' ? outcome.optionId : 'cancelled'
    update(session.id, 'agent_message_chunk', text(`permission: ${said}`))
  },
  delay: (session, ms) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      session.cancel = () => {
        clearTimeout(timer)
        session.cancelled = true
        resolve()
      }
    }),
  exit: (_, code) => process.exit(code),
  fail(_, { code, message }) {
    throw new Failure(code, message)
  },
}

async function prompt({ sessionId, prompt }) {
  const session = sessions.get(sessionId)
  if (!session) throw new Failure(-32602, `unknown session ${sessionId}`)
  const texts = prompt.filter((block) => block.type === 'text').map((block) => block.text)
  const scripted = texts.find((value) => value.startsWith('mock:'))
  session.cancelled = false
  if (scripted === undefined) {
    for (const value of texts) steps.say(session, value)
  } else {
    for (const line of scripted.slice(5).split('\n').filter(Boolean)) {
      const [[name, value]] = Object.entries(JSON.parse(line))
      await steps[name](session, value)
      if (session.cancelled) return { stopReason: 'cancelled' }
    }
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
