// MCP servers and skills: kept in the project's folder.
import { SandboxAgent, SandboxAgentError } from 'sandbox-agent'
import { assert, run, test } from './_check.mjs'
import { fresh, home, options } from './_face.mjs'

const sdk = await SandboxAgent.connect(options())
const directory = `${home}/${fresh('settings')}`
await sdk.mkdirFs({ path: directory })
const stored = async (name) =>
  JSON.parse(new TextDecoder().decode(await sdk.readFsFile({ path: `${directory}/.sandbox-agent/config/${name}.json` })))

test('an MCP server that is a program', async () => {
  const query = { directory, mcpName: 'files' }
  const config = { type: 'local', command: 'npx', args: ['-y', 'x'], env: { A: 'b' }, enabled: false, timeoutMs: 5000, cwd: '/tmp' }
  await sdk.setMcpConfig(query, config)
  assert.deepEqual(await sdk.getMcpConfig(query), config)
  assert.deepEqual(await stored('mcp'), { files: config })
})

test('an MCP server elsewhere', async () => {
  const query = { directory, mcpName: 'remote' }
  const config = { type: 'remote', url: 'http://127.0.0.1:9/mcp', headers: { a: 'b' }, bearerTokenEnvVar: 'T', transport: 'sse', oauth: false }
  await sdk.setMcpConfig(query, config)
  assert.deepEqual(await sdk.getMcpConfig(query), config)
  assert.deepEqual(Object.keys(await stored('mcp')).sort(), ['files', 'remote'])
})

test('other names for the same', async () => {
  await sdk.setMcpConfig({ directory, mcpName: 'alias' }, { type: 'http', url: 'http://127.0.0.1:9' })
  assert.deepEqual(await sdk.getMcpConfig({ directory, mcpName: 'alias' }), { type: 'remote', url: 'http://127.0.0.1:9' })
  await sdk.setMcpConfig({ directory, mcpName: 'stdio' }, { type: 'stdio', command: ['a', 'b'], environment: { X: 'y' }, timeout: 7 })
  assert.deepEqual(await sdk.getMcpConfig({ directory, mcpName: 'stdio' }), { type: 'local', command: ['a', 'b'], args: [], env: { X: 'y' }, timeoutMs: 7 })
})

test('replace and delete', async () => {
  const query = { directory, mcpName: 'files' }
  await sdk.setMcpConfig(query, { type: 'local', command: 'other' })
  assert.deepEqual(await sdk.getMcpConfig(query), { type: 'local', command: 'other', args: [] })
  await sdk.deleteMcpConfig(query)
  await sdk.deleteMcpConfig(query)
  await assert.rejects(sdk.getMcpConfig(query), (error) => {
    assert.ok(error instanceof SandboxAgentError)
    assert.equal(error.status, 404)
    assert.equal(error.problem.type, 'urn:sandbox-agent:error:session_not_found')
    assert.equal(error.problem.sessionId, 'mcp:files')
    return true
  })
})

test('skills', async () => {
  const query = { directory, skillName: 'writing' }
  const config = {
    sources: [
      { type: 'github', source: 'a/b', skills: ['k'], ref: 'main', subpath: 'x' },
      { type: 'local', source: '/skills' },
      { type: 'git', source: 'https://example.test/r.git' },
    ],
  }
  await sdk.setSkillsConfig(query, config)
  assert.deepEqual(await sdk.getSkillsConfig(query), config)
  assert.deepEqual(await stored('skills'), { writing: config })
  await sdk.deleteSkillsConfig(query)
  await assert.rejects(sdk.getSkillsConfig(query), (error) => error.status === 404 && error.problem.sessionId === 'skills:writing')
})

await run(async () => {
  await sdk.deleteFsEntry({ path: directory, recursive: true })
  await sdk.dispose()
})
