// Templates through the SDK: build from another template, copy files, use it, tags.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { Sandbox, Template, waitForPort } from 'e2b'
import { assert, run, test, until } from './_check.mjs'

const name = `js-build-${process.pid}-${Date.now()}`
const context = join(tmpdir(), name)
mkdirSync(join(context, 'src'), { recursive: true })
writeFileSync(join(context, 'src/app.txt'), 'copied file')

test('build: copy, run, env, workdir, start command', async () => {
  const logs = []
  const template = Template({ fileContextPath: context })
    .fromTemplate('base')
    .copy('src/app.txt', '/opt/app/app.txt')
    .runCmd('echo built > /opt/built.txt', { user: 'root' })
    .setEnvs({ FROM_TEMPLATE: 'yes' })
    .setWorkdir('/opt/app')
    .setStartCmd('python3 -m http.server 8000', waitForPort(8000))
  const info = await Template.build(template, name, {
    cpuCount: 1,
    memoryMB: 512,
    onBuildLogs: (entry) => logs.push(entry.message),
  })
  assert.ok(info.templateId && info.buildId)
  assert.ok(logs.length > 0)
  assert.equal(await Template.exists(name), true)
  assert.equal(await Template.exists(`${name}-not`), false)
})

test('a sandbox from it has the files, the environment and the started server', async () => {
  const sbx = await Sandbox.create(name, { timeoutMs: 300_000 })
  try {
    assert.equal(await sbx.files.read('/opt/app/app.txt'), 'copied file')
    assert.equal(await sbx.files.read('/opt/built.txt'), 'built\n')
    assert.equal((await sbx.commands.run('echo $FROM_TEMPLATE')).stdout, 'yes\n')
    const body = await until(async () => {
      const result = await sbx.commands.run('curl -s localhost:8000/app.txt || true')
      return result.stdout
    }, 'the started server')
    assert.equal(body, 'copied file')
  } finally {
    await sbx.kill()
  }
})

test('a failing step fails the build and says which', async () => {
  const template = Template().fromTemplate('base').runCmd('echo before; exit 7')
  await assert.rejects(Template.build(template, `${name}-bad`, {}))
})

await run()
