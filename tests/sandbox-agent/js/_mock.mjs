// What the scripted agent `mock` is told: the text of a prompt that makes it do the steps of
// docs/reference/mock-agent.md.

/** The prompt for a list of steps. */
export function script(...steps) {
  return [{ type: 'text', text: steps.flat().map((step) => `mock: ${step}`).join('\n') }]
}

/** A text that may be anything. */
const quoted = (text) => JSON.stringify(text)

/** Says `text` in one chunk. */
export const say = (text) => `say ${quoted(text)}`
/** Thinks aloud. */
export const think = (text) => `think ${quoted(text)}`
/** A tool call from start to end. */
export const tool = (title, output, kind = 'execute') => [`tool t1 ${kind} ${title}`, `tool-done t1 ${quoted(output)}`]
/** Publishes a plan. */
export const plan = (...entries) => `plan ${entries.join(' | ')}`
/** Asks for permission, once or always; what follows, up to `anyway`, is done if allowed. */
export const ask = (title) => `ask ${title}`
/** Asks a question whose options are the answers. */
export const choose = (question, ...answers) => `choose ${[question, ...answers].join(' | ')}`
/** From here on even after a refusal. */
export const anyway = () => 'anyway'
/** Waits. */
export const delay = (ms) => `delay ${ms}`
/** Waits for `session/cancel`. */
export const hang = () => 'hang'
/** Says a line on stderr. */
export const stderr = (text) => `stderr ${text}`
/** Ends the process with `code`, `text` on its stderr. */
export const crash = (code, text) => `crash ${code} ${text}`
/** Ends the turn with an error. */
export const fail = (code, message) => `error ${code} ${message}`
/** Prints a line that is no JSON. */
export const garbage = (text) => `garbage ${text}`
/** Changes the mode by itself. */
export const mode = (id) => `mode ${id}`
/** Tells how much of the context is used. */
export const usage = (used, size) => `usage ${used} ${size}`

/** Plain words, which the agent gives back. */
export function words(text) {
  return [{ type: 'text', text }]
}

/** What the agent says to plain words. */
export function echo(text) {
  return `mock: ${text}`
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
