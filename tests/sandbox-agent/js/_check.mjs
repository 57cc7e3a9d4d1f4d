// A few lines of test harness: named cases, one after the other, counted at the end.
import assert from 'node:assert/strict'

export { assert }

const cases = []

// The SDK leaves the failure of a connection unhandled beside rejecting the call that it failed: a
// `session/cancel` that comes after the end of its agent server is such a one. Cases judge the calls.
process.on('unhandledRejection', (error) => console.log(`        (unhandled: ${error?.message ?? error})`))

/** Registers a case. */
export function test(name, body) {
  cases.push([name, body])
}

/** Waits until `probe` is truthy; the last value is returned. */
export async function until(probe, what, timeoutMs = 45_000) {
  const end = Date.now() + timeoutMs
  for (;;) {
    const value = await probe()
    if (value) return value
    if (Date.now() > end) throw new Error(`timed out: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** `promise`, or a failure that names what did not come in time. */
export async function within(timeoutMs, what, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`took more than ${timeoutMs} ms: ${what}`)), timeoutMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Runs the registered cases, prints them, cleans up, and exits with 1 if one failed. */
export async function run(cleanUp = async () => {}) {
  let failed = 0
  for (const [name, body] of cases) {
    const start = performance.now()
    try {
      await within(Number(process.env.CASE_TIMEOUT_MS ?? 150_000), 'the case', body())
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
