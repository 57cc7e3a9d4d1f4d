// Mode, model, thought level: what can be chosen, and that the choice is kept.
import {
  SandboxAgent, UnsupportedSessionCategoryError, UnsupportedSessionConfigOptionError, UnsupportedSessionValueError,
} from 'sandbox-agent'
import { assert, run, test, until } from './_check.mjs'
import { home, options } from './_face.mjs'
import { mode, script } from './_mock.mjs'

const sdk = await SandboxAgent.connect(options())
const open = (more) => sdk.createSession({ agent: 'mock', cwd: home, ...more })
const current = async (session, id) => (await session.getConfigOptions()).find((option) => option.id === id).currentValue

test('what a new session offers', async () => {
  const session = await open()
  const offered = await session.getConfigOptions()
  assert.deepEqual(offered.map((option) => [option.id, option.category, option.currentValue]), [
    ['model', 'model', 'mock'],
    ['mode', 'mode', 'normal'],
    ['thought_level', 'thought_level', 'low'],
  ])
  const modes = await session.getModes()
  assert.equal(modes.currentModeId, 'normal')
  assert.deepEqual(modes.availableModes.map((one) => one.id), ['normal', 'plan'])
})

test('model, thought level and mode are set and kept', async () => {
  const session = await open()
  await session.setModel('mock-fast')
  await session.setThoughtLevel('high')
  await session.setMode('plan')
  assert.equal(await current(session, 'model'), 'mock-fast')
  assert.equal(await current(session, 'thought_level'), 'high')
  assert.equal(await current(session, 'mode'), 'plan')
  assert.equal((await session.getModes()).currentModeId, 'plan')
  const record = (await sdk.getSession(session.id)).toRecord()
  assert.equal(record.modes.currentModeId, 'plan')
  assert.equal(record.configOptions[0].currentValue, 'mock-fast')
})

test('an option by its id', async () => {
  const session = await open()
  const response = await session.setConfigOption('thought_level', 'medium')
  assert.equal(response.configOptions.find((option) => option.id === 'thought_level').currentValue, 'medium')
  await session.setConfigOption('mode', 'plan')
  assert.equal((await session.getModes()).currentModeId, 'plan')
})

test('choices at creation', async () => {
  const session = await open({ model: 'mock-fast', mode: 'plan', thoughtLevel: 'medium' })
  assert.equal(await current(session, 'model'), 'mock-fast')
  assert.equal(await current(session, 'mode'), 'plan')
  assert.equal(await current(session, 'thought_level'), 'medium')
})

test('what is not offered is refused before the agent hears of it', async () => {
  const session = await open()
  await assert.rejects(session.setModel('gpt-0'), UnsupportedSessionValueError)
  await assert.rejects(session.setMode('turbo'), UnsupportedSessionValueError)
  await assert.rejects(session.setConfigOption('colour', 'red'), UnsupportedSessionConfigOptionError)
  await assert.rejects(session.setMode(' '), /non-empty modeId/)
  assert.ok(UnsupportedSessionCategoryError)
  await assert.rejects(open({ model: 'gpt-0' }), UnsupportedSessionValueError)
})

test('a mode that the agent changes by itself is kept too', async () => {
  const session = await open()
  await session.prompt(script(mode('plan')))
  await until(async () => (await session.getModes()).currentModeId === 'plan', 'the new mode')
})

await run(() => sdk.dispose())
