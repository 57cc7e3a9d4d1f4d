// Connections that break: nothing of the output is lost, nothing comes twice.
import { Sandbox, URL, assert, readAll, within } from './_client.mjs'

const CUTS = 20
// Enough that there are more messages than cuts, however many lines go into one.
const LINES = 1_000_000
const sandbox = await Sandbox.create(URL, { enableAutoReconnect: true })
const process = await sandbox.exec('bash', `for i in $(seq 1 20000); do echo $i; done; seq 20001 ${LINES}; read x; echo got $x; exit 4`)
let seen = 0
sandbox.onOutput = (frame) => {
  seen += frame.data.length
  // Right after a message, and without a word.
  if (sandbox.reconnects < CUTS && seen > (sandbox.reconnects + 1) * 20_000) sandbox.socket.terminate()
}
const output = readAll(process.stdout)
// Input that is written while the connection is away arrives, too.
const cut = async () => {
  while (sandbox.reconnects < CUTS) await new Promise((again) => setTimeout(again, 5))
}
await within(cut(), 'the last cut')
process.writeToStdin('it\n')
assert.equal(await process.wait(), 4)
const wanted = Array.from({ length: LINES }, (_, at) => `${at + 1}\n`).join('') + 'got it\n'
assert.ok((await output) === wanted, 'the output is not what was printed')
assert.equal(sandbox.reconnects, CUTS)
await sandbox.kill()

// A client that has gone without a word gives its place to the next one that has the token.
const dead = await Sandbox.create(URL)
dead.socket._socket.pause()
const began = Date.now()
const alive = await Sandbox.attach(URL, dead.sandboxId, dead.sandboxToken)
assert.ok(Date.now() - began < 20_000, 'the place was not free')
await alive.kill()
await within(Promise.resolve(dead.socket.terminate()), 'the end')
