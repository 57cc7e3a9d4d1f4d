#!/usr/bin/env node
// Runs the programs in `js/`, one after the other, against what the environment names (README.md).
//
//   node run.mjs <folder with node_modules of sandbox-agent 0.4.2 and ws> [name part]...
import { spawnSync } from 'node:child_process'
import { cpSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
/** Longer than any program takes. */
const PROGRAM_TIMEOUT_MS = 600_000

/**
 * Runs the programs whose names have one of `parts` in them (all, if there are none) and says how
 * many failed. `environment` gives each its environment.
 */
export function runPrograms(modules, parts, environment) {
  // Modules are looked for from where a program is: it runs as a copy beside them.
  const programs = join(resolve(modules), '.programs')
  rmSync(programs, { recursive: true, force: true })
  cpSync(join(here, 'js'), programs, { recursive: true })
  const failed = []
  for (const name of readdirSync(programs).sort()) {
    if (!name.endsWith('.mjs') || name.startsWith('_')) continue
    if (parts.length && !parts.some((part) => name.includes(part))) continue
    console.log(`\n--- ${name}`)
    const how = { env: environment(name), stdio: 'inherit', timeout: PROGRAM_TIMEOUT_MS }
    if (spawnSync(process.execPath, [join(programs, name)], how).status !== 0) failed.push(name)
  }
  rmSync(programs, { recursive: true, force: true })
  console.log(failed.length ? `\nfailed: ${failed.join(' ')}` : '\nall programs passed')
  return failed.length
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [modules, ...parts] = process.argv.slice(2)
  if (!modules) {
    console.error('usage: run.mjs <folder with node_modules> [name part]...')
    process.exit(2)
  }
  process.exit(runPrograms(modules, parts, () => process.env) ? 1 : 0)
}
