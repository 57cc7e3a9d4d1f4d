// A shell that is typed into, and ends when it is told to.
import { Sandbox, URL, assert, readAll } from './_client.mjs'

const sandbox = await Sandbox.create(URL)
const shell = await sandbox.exec('bash', 'while read -r line; do eval "$line"; done')
const output = readAll(shell.stdout)
for (let at = 0; at < 100; at += 1) shell.writeToStdin(`echo line ${at}\n`)
shell.writeToStdin('cd /tmp\npwd\nexit 0\n')
assert.equal(await shell.wait(), 0)
const wanted = Array.from({ length: 100 }, (_, at) => `line ${at}\n`).join('') + '/tmp\n'
assert.equal(await output, wanted)
const python = await sandbox.exec('python', 'name = input("who? ")\nprint("hello", name)')
python.writeToStdin('frog\n')
assert.equal(await readAll(python.stdout), 'who? hello frog\n')
const stuck = await sandbox.exec('bash', 'sleep 1000')
await stuck.kill()
assert.equal((await sandbox.run('bash', 'echo free')).stdout, 'free\n')
await sandbox.kill()
