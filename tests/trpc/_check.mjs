// A few lines of test harness: named cases, one after the other, counted at the end.
import assert from 'node:assert/strict'

export { assert }

const cases = []

/** Registers a case. */
export function test(name, body) {
  cases.push([name, body])
}

/** Waits until `probe` is truthy; the last value is returned. */
export async function until(probe, what, timeoutMs = 60_000) {
  const end = Date.now() + timeoutMs
  for (;;) {
    const value = await probe()
    if (value) return value
    if (Date.now() > end) throw new Error(`timed out: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Runs the registered cases, prints them, cleans up, and exits with 1 if one failed. */
export async function run(cleanUp = async () => {}) {
  let failed = 0
  for (const [name, body] of cases) {
    const start = performance.now()
    try {
      await body()
      console.log(`ok      ${name} (${(performance.now() - start).toFixed(0)} ms)`)
    } catch (error) {
      failed += 1
      console.log(`not ok  ${name}\n        ${error?.stack ?? error}`.replaceAll('\n', '\n        '))
    }
  }
  console.log(`${cases.length - failed} of ${cases.length} cases passed`)
  await cleanUp()
  process.exit(failed ? 1 : 0)
}
