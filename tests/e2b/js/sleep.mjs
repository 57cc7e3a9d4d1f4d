// Pause, resume, automatic pause and resume, snapshots and forks through the SDK.
import { Sandbox, NotFoundError } from 'e2b'
import { assert, run, test, until } from './_check.mjs'

const tag = `js-sleep-${process.pid}-${Date.now()}`
const plain = process.env.E2B_SANDBOX_URL
const target = (sbx, port) => plain ?? `https://${sbx.getHost(port)}`
const routing = (sbx, port) =>
  plain ? { 'E2b-Sandbox-Id': sbx.sandboxId, 'E2b-Sandbox-Port': String(port) } : {}
const get = (sbx, port) => fetch(target(sbx, port), { headers: routing(sbx, port) })

/** Something that lives as long as the sandbox's memory does. */
const mark = async (sbx) => {
  const handle = await sbx.commands.run('sleep 100000', { background: true })
  // A shell came first, which reads its profile.
  await until(() => remembers(sbx, handle), 'the process')
  return handle
}
const remembers = async (sbx, { pid }) => {
  const seen = await sbx.commands.run('pgrep -fx "sleep 100000" || true')
  return seen.stdout.split('\n').includes(String(pid))
}
const counter = 'i=0; while true; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done'
const count = async (sbx) => Number(await sbx.files.read('/tmp/count'))

/** Its time is over soon: whatever must be ready is ready. */
async function expire(sbx) {
  await sbx.setTimeout(1_000)
  await until(async () => !(await sbx.isRunning()), 'the pause')
}

/** A sandbox for one case, gone after it. */
async function within(opts, body) {
  const sbx = await Sandbox.create('base', { timeoutMs: 300_000, ...opts })
  try {
    await body(sbx)
  } finally {
    await Sandbox.kill(sbx.sandboxId)
  }
}

test('a paused sandbox is not running, is listed as paused, and resumes with its processes', async () => {
  await within({ metadata: { tag } }, async (sbx) => {
    await sbx.files.write('state.txt', 'kept')
    const handle = await sbx.commands.run(counter, { background: true })
    await until(async () => (await sbx.files.exists('/tmp/count')) && (await count(sbx)) > 3, 'the counter')
    const before = await count(sbx)
    assert.equal(await sbx.pause(), true)
    assert.equal(await sbx.isRunning(), false)
    assert.equal(await sbx.pause(), false)
    const info = await Sandbox.getInfo(sbx.sandboxId)
    assert.equal(info.state, 'paused')
    const listed = async (state) => {
      const items = await Sandbox.list({ query: { metadata: { tag }, state } }).nextItems()
      return items.map((item) => item.sandboxId)
    }
    assert.deepEqual(await listed(['paused']), [sbx.sandboxId])
    assert.deepEqual(await listed(['running']), [])
    assert.deepEqual(await listed(['running', 'paused']), [sbx.sandboxId])
    await assert.rejects(sbx.setTimeout(60_000))
    const again = await Sandbox.connect(sbx.sandboxId, { timeoutMs: 120_000 })
    assert.equal(again.sandboxId, sbx.sandboxId)
    assert.equal(await sbx.isRunning(), true)
    assert.equal(await sbx.files.read('state.txt'), 'kept')
    assert.ok((await sbx.commands.list()).some((process) => process.pid === handle.pid))
    await until(async () => (await count(sbx)) > before, 'the counter to go on')
    const joined = await again.commands.connect(handle.pid)
    assert.equal(joined.pid, handle.pid)
    assert.equal(await joined.kill(), true)
    assert.ok((await sbx.getInfo()).endAt > new Date())
  })
})

test('files survive several rounds', async () => {
  await within({}, async (sbx) => {
    for (const round of [1, 2, 3, 4]) {
      await sbx.files.write(`round-${round}`, `written in round ${round}`)
      assert.equal(await sbx.pause(), true)
      await sbx.connect()
      for (let past = 1; past <= round; past += 1) {
        assert.equal(await sbx.files.read(`round-${past}`), `written in round ${past}`)
      }
    }
    assert.equal((await sbx.commands.run('echo still here')).stdout, 'still here\n')
  })
})

test('a server inside answers again after a resume', async () => {
  await within({}, async (sbx) => {
    await sbx.files.write('www/index.html', 'served from inside')
    await sbx.commands.run('python3 -m http.server 8000 --directory www', { background: true })
    const served = async () => {
      const response = await get(sbx, 8000)
      return response.status === 200 && (await response.text()) === 'served from inside'
    }
    await until(served, 'the server')
    await sbx.pause()
    const asleep = await get(sbx, 8000)
    assert.equal(asleep.status, 502)
    assert.match((await asleep.json()).message, /was not found/)
    assert.equal(await sbx.isRunning(), false)
    await sbx.connect()
    await until(served, 'the server after the resume')
  })
})

test('a pause ends what is being streamed', async () => {
  await within({}, async (sbx) => {
    const handle = await sbx.commands.run('sleep 600', { background: true })
    const waiting = handle.wait()
    waiting.catch(() => {})
    await sbx.pause()
    await assert.rejects(waiting)
    await sbx.connect()
    assert.ok((await sbx.commands.list()).some((process) => process.pid === handle.pid))
  })
})

test('a pause of the files alone boots anew', async () => {
  await within({}, async (sbx) => {
    await sbx.files.write('kept.txt', 'kept')
    const before = await mark(sbx)
    assert.equal(await sbx.pause({ keepMemory: false }), true)
    await sbx.connect()
    assert.equal(await remembers(sbx, before), false)
    assert.equal(await sbx.files.read('kept.txt'), 'kept')
    const kept = await mark(sbx)
    await sbx.betaPause()
    await sbx.connect()
    assert.equal(await remembers(sbx, kept), true)
  })
})

test('onResume reboot ignores the memory', async () => {
  await within({}, async (sbx) => {
    const before = await mark(sbx)
    await sbx.commands.run('sync')
    await sbx.pause()
    const again = await Sandbox.connect(sbx.sandboxId, { onResume: 'reboot' })
    assert.equal(await remembers(again, before), false)
  })
})

test('a timeout pauses and a request resumes, where that is wanted', async () => {
  const opts = { lifecycle: { onTimeout: 'pause', autoResume: true } }
  await within(opts, async (sbx) => {
    await sbx.files.write('www/index.html', 'woken')
    await sbx.commands.run('python3 -m http.server 8000 --directory www', { background: true })
    await until(async () => (await get(sbx, 8000)).status === 200, 'the server')
    const info = await sbx.getInfo()
    assert.deepEqual(info.lifecycle, { onTimeout: 'pause', autoResume: true })
    await expire(sbx)
    assert.equal((await Sandbox.getInfo(sbx.sandboxId)).state, 'paused')
    const response = await get(sbx, 8000)
    assert.equal(response.status, 200, await response.clone().text())
    assert.equal(await response.text(), 'woken')
    const after = await sbx.getInfo()
    assert.equal(after.state, 'running')
    const left = after.endAt.getTime() - Date.now()
    assert.ok(left > 250_000, `${left} ms left`)
  })
})

test('a timeout pauses and a request does not resume, where that is not wanted', async () => {
  const opts = { lifecycle: { onTimeout: 'pause' } }
  await within(opts, async (sbx) => {
    await sbx.files.write('kept.txt', 'kept')
    await expire(sbx)
    assert.equal((await get(sbx, 8000)).status, 502)
    await assert.rejects(sbx.files.read('kept.txt'))
    assert.equal((await Sandbox.getInfo(sbx.sandboxId)).state, 'paused')
    const again = await Sandbox.connect(sbx.sandboxId, { timeoutMs: 60_000 })
    assert.equal(await again.files.read('kept.txt'), 'kept')
  })
})

test('an automatic pause may keep the files alone', async () => {
  const opts = { lifecycle: { onTimeout: { action: 'pause', keepMemory: false } } }
  await within(opts, async (sbx) => {
    await sbx.files.write('kept.txt', 'kept')
    const before = await mark(sbx)
    await expire(sbx)
    const again = await Sandbox.connect(sbx.sandboxId, { timeoutMs: 60_000 })
    assert.equal(await remembers(again, before), false)
    assert.equal(await again.files.read('kept.txt'), 'kept')
  })
})

test('a paused sandbox is killed once', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 60_000 })
  await sbx.pause()
  assert.equal(await Sandbox.kill(sbx.sandboxId), true)
  assert.equal(await Sandbox.kill(sbx.sandboxId), false)
  await assert.rejects(Sandbox.connect(sbx.sandboxId), NotFoundError)
})

test('snapshots are listed, started from, and deleted once', async () => {
  await within({}, async (sbx) => {
    await sbx.files.write('state.txt', 'of the snapshot')
    const snapshot = await sbx.createSnapshot()
    assert.ok(snapshot.snapshotId)
    await sbx.files.write('state.txt', 'of later')
    const listed = await sbx.listSnapshots().nextItems()
    assert.deepEqual(listed.map((item) => item.snapshotId), [snapshot.snapshotId])
    const copy = await Sandbox.create(snapshot.snapshotId, { timeoutMs: 60_000 })
    try {
      assert.notEqual(copy.sandboxId, sbx.sandboxId)
      assert.equal(await copy.files.read('state.txt'), 'of the snapshot')
      assert.equal(await sbx.files.read('state.txt'), 'of later')
    } finally {
      await copy.kill()
    }
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
    await assert.rejects(Sandbox.create(snapshot.snapshotId))
  })
})

test('snapshots have names, which move to a newer one', async () => {
  await within({}, async (sbx) => {
    const name = `snap-${process.pid}-${Date.now()}`
    await sbx.files.write('state.txt', 'first')
    const first = await sbx.createSnapshot({ name })
    assert.ok(first.names.some((full) => full.endsWith(`/${name}:default`)), first.names.join())
    await sbx.files.write('state.txt', 'second')
    const second = await sbx.createSnapshot({ name })
    assert.deepEqual(second.names, first.names)
    const copy = await Sandbox.create(name, { timeoutMs: 60_000 })
    try {
      assert.equal(await copy.files.read('state.txt'), 'second')
    } finally {
      await copy.kill()
    }
    assert.equal(await Sandbox.deleteSnapshot(second.snapshotId), true)
  })
})

test('forks have the memory and are independent', async () => {
  await within({}, async (sbx) => {
    const handle = await sbx.commands.run(counter, { background: true })
    await until(async () => (await sbx.files.exists('/tmp/count')) && (await count(sbx)) > 3, 'the counter')
    await sbx.files.write('who.txt', 'source')
    const endAt = (await sbx.getInfo()).endAt.getTime()
    const forks = await sbx.fork({ count: 2, timeoutMs: 60_000 })
    try {
      assert.equal(forks.length, 2)
      for (const [number, fork] of forks.entries()) {
        if (fork instanceof Error) throw fork
        assert.equal(await fork.files.read('who.txt'), 'source')
        await fork.files.write('who.txt', `fork ${number}`)
        assert.ok((await fork.commands.list()).some((process) => process.pid === handle.pid))
        const before = await count(fork)
        await until(async () => (await count(fork)) > before, 'the counter of a fork')
      }
      assert.notEqual(forks[0].sandboxId, forks[1].sandboxId)
      assert.equal(await sbx.files.read('who.txt'), 'source')
      assert.equal(await forks[0].files.read('who.txt'), 'fork 0')
      assert.equal((await sbx.getInfo()).endAt.getTime(), endAt)
    } finally {
      await Promise.all(forks.map((fork) => fork instanceof Error || fork.kill()))
    }
    assert.equal(await sbx.isRunning(), true)
  })
})

test('pauses, snapshots and forks work by id', async () => {
  await within({}, async (sbx) => {
    const id = sbx.sandboxId
    await sbx.files.write('state.txt', 'kept')
    assert.equal(await Sandbox.pause(id), true)
    assert.equal(await Sandbox.pause(id), false)
    assert.equal(await Sandbox.betaPause(id), false)
    assert.equal((await Sandbox.getInfo(id)).state, 'paused')
    await Sandbox.connect(id, { timeoutMs: 300_000 })
    const name = `by-id-${process.pid}-${Date.now()}`
    const snapshot = await Sandbox.createSnapshot(id, { name })
    assert.ok(snapshot.names.some((full) => full.endsWith(`/${name}:default`)), snapshot.names.join())
    for (const query of [{ sandboxId: id }, { name }, { sandboxId: id, limit: 1 }]) {
      const listed = await Sandbox.listSnapshots(query).nextItems()
      assert.deepEqual(listed.map((item) => item.snapshotId), [snapshot.snapshotId])
    }
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
    const forks = await Sandbox.fork(id, { timeoutMs: 300_000 })
    try {
      assert.equal(forks.length, 1)
      if (forks[0] instanceof Error) throw forks[0]
      assert.equal(await forks[0].files.read('state.txt'), 'kept')
    } finally {
      await Promise.all(forks.map((fork) => fork instanceof Error || fork.kill()))
    }
  })
  const unknown = 'inosuchsandboxatall'
  await assert.rejects(Sandbox.pause(unknown), NotFoundError)
  await assert.rejects(Sandbox.createSnapshot(unknown), NotFoundError)
  await assert.rejects(Sandbox.fork(unknown), NotFoundError)
})

await run()
