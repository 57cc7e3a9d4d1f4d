// Milliseconds of commands.run("true") on a kept connection, one number a line.
import { Sandbox } from 'e2b'

const sbx = await Sandbox.create({ timeoutMs: 120_000 })
for (let i = 0; i < 20; i++) await sbx.commands.run('true')
for (let i = 0; i < 300; i++) {
  const start = performance.now()
  await sbx.commands.run('true')
  console.log((performance.now() - start).toFixed(3))
}
await sbx.kill()
process.exit(0)
