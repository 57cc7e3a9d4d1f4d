#!/usr/bin/env node
// Checks the programs in `../js` against the reference server, so that a failure with ours means
// that ours differs.
//
//   node run.mjs <folder with node_modules of sandbox-agent 0.4.2 and ws> [name part]...
//
// Everything runs in a network namespace of its own, with loopback only. The server's agent `mock`
// is replaced, by its own setting, with `mock-acp.mjs`: the built-in one only echoes.
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runPrograms } from '../run.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const [modules, ...parts] = process.argv.slice(2)
if (!modules) {
  console.error('usage: run.mjs <folder with node_modules> [name part]...')
  process.exit(2)
}
if (process.env.WOODFROG_REFERENCE_INSIDE !== '1') {
  const script = 'ip link set lo up && exec "$@"'
  const args = ['-rn', 'sh', '-c', script, 'sh', process.execPath, ...process.argv.slice(1)]
  const env = { ...process.env, WOODFROG_REFERENCE_INSIDE: '1' }
  process.exit(spawnSync('unshare', args, { stdio: 'inherit', env }).status ?? 1)
}

const root = resolve(modules)
const dir = mkdtempSync(join(tmpdir(), 'wf-reference-'))
const wrapper = join(dir, 'agent')
const launch = `#!/bin/sh\nexec "${process.execPath}" "${join(here, 'mock-acp.mjs')}"\n`
writeFileSync(wrapper, launch, { mode: 0o755 })
// The server takes a launcher for granted that only an installation writes.
const launchers = join(dir, 'data/sandbox-agent/bin/agent_processes')
mkdirSync(launchers, { recursive: true })
writeFileSync(join(launchers, 'mock-acp'), launch, { mode: 0o755 })
mkdirSync(join(dir, 'work'))

const token = 'secret'
const binary = join(root, 'node_modules/@sandbox-agent/cli-linux-x64/bin/sandbox-agent')
chmodSync(binary, 0o755)

/** Starts a server and waits until it answers. */
async function start(port, more = {}) {
  const args = ['server', '--host', '127.0.0.1', '--port', String(port), '--token', token, '--no-telemetry']
  const env = { ...process.env, HOME: join(dir, 'work'), XDG_DATA_HOME: join(dir, 'data'), SANDBOX_AGENT_BIN: wrapper, ...more }
  const child = spawn(binary, args, { env, stdio: ['ignore', 'ignore', 'inherit'] })
  const url = `http://127.0.0.1:${port}`
  for (let i = 0; ; i += 1) {
    const ok = await fetch(`${url}/v1/health`, { headers: { authorization: `Bearer ${token}` } }).then((r) => r.ok, () => false)
    if (ok) return { child, url }
    if (i > 200) throw new Error('the reference server does not answer')
    await new Promise((done) => setTimeout(done, 50))
  }
}

const usual = await start(4000)
const limited = await start(4001, { SANDBOX_AGENT_REQUIRE_PREINSTALL: '1', SANDBOX_AGENT_ACP_REQUEST_TIMEOUT_MS: '6000' })

/** What a program is told; `limits.mjs` has a server of its own. */
function environment(name) {
  const env = { ...process.env, REFERENCE: '1', WOODFROG_AGENT_URL: usual.url, WOODFROG_AGENT_TOKEN: token, WOODFROG_AGENT_DIR: join(dir, 'work') }
  delete env.WOODFROG_URL
  return name === 'limits.mjs' ? { ...env, WOODFROG_AGENT_URL: limited.url, WOODFROG_AGENT_LIMITS: '1' } : env
}

const failed = runPrograms(root, parts, environment)
for (const { child } of [usual, limited]) child.kill('SIGKILL')
rmSync(dir, { recursive: true, force: true })
process.exit(failed ? 1 : 0)
