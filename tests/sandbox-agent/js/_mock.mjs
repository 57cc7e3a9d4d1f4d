// What the scripted agent `mock` is told: the text of a prompt that makes it do the steps.
//
// One step per line after `mock:`; see docs/reference/mock-agent.md.

/** The prompt for a list of steps. */
export function script(...steps) {
  return [{ type: 'text', text: `mock:\n${steps.map((step) => JSON.stringify(step)).join('\n')}` }]
}

/** Says `text` in one chunk. */
export const say = (text) => ({ say: text })
/** Thinks aloud. */
export const think = (text) => ({ think: text })
/** A tool call from start to end. */
export const tool = (title, output, kind = 'execute') => ({ tool: { title, kind, output } })
/** Publishes a plan. */
export const plan = (...entries) => ({ plan: entries })
/** Asks for permission and says `permission: <option id or cancelled>`. */
export const permission = (title, kinds = ['allow_once', 'allow_always', 'reject_once']) => ({ permission: { title, kinds } })
/** Waits. */
export const delay = (ms) => ({ delay: ms })
/** Waits for `session/cancel`. */
export const hang = () => ({ delay: 600_000 })
/** Writes to stderr. */
export const stderr = (text) => ({ stderr: text })
/** Ends the process. */
export const exit = (code) => ({ exit: code })
/** Fails the prompt. */
export const fail = (code, message) => ({ fail: { code, message } })
/** Prints a line that is no JSON. */
export const garbage = (text) => ({ garbage: text })
/** Changes the mode by itself. */
export const mode = (id) => ({ mode: id })

/** Plain words, which the agent gives back. */
export function words(text) {
  return [{ type: 'text', text }]
}

/** The agent's message text in a list of envelopes. */
export function saidIn(envelopes) {
  return envelopes
    .map((envelope) => envelope?.params?.update)
    .filter((update) => update?.sessionUpdate === 'agent_message_chunk')
    .map((update) => update.content.text)
    .join('')
}

/** The updates of a kind in a list of envelopes. */
export function updatesIn(envelopes, kind) {
  return envelopes.map((envelope) => envelope?.params?.update).filter((update) => update?.sessionUpdate === kind)
}
