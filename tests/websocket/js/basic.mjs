// Code in both languages, its outputs apart, and what is refused.
import { Sandbox, URL, assert } from './_client.mjs'

const sandbox = await Sandbox.create(`${URL}/`, { idleTimeout: 120 })
assert.deepEqual(sandbox.statuses, ['CREATING', 'RUNNING'])
const python = await sandbox.run('python', 'import sys\nprint("grüße 🐸")\nprint("no", file=sys.stderr)')
assert.deepEqual(python, { stdout: 'grüße 🐸\n', stderr: 'no\n', exitCode: 0 })
const bash = await sandbox.run('bash', 'echo $((6 * 7)); exit 3')
assert.deepEqual(bash, { stdout: '42\n', stderr: '', exitCode: 3 })
// A character that lies across the border of what is read at once.
const border = await sandbox.run('python', 'print("a" * 1023 + "é" * 5000)')
assert.equal(border.stdout, 'a'.repeat(1023) + 'é'.repeat(5000) + '\n')
const numbers = await sandbox.run('bash', 'seq 1 300000')
assert.equal(numbers.stdout, Array.from({ length: 300000 }, (_, at) => `${at + 1}\n`).join(''))
await assert.rejects(sandbox.exec('ruby', 'puts 1'), {
  message: "Unsupported language: 'ruby'. Supported languages are: python, bash",
})
await sandbox.kill()
assert.deepEqual(sandbox.statuses.slice(-4), ['KILLING', 'DELETING', 'DELETED', 'KILLED'])
await assert.rejects(Sandbox.create(URL, { enableSandboxHandoff: true }), {
  message: 'Sandbox handoff requires checkpointing to be enabled.',
})
