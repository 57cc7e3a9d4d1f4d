// Every method of `Secret` that calls the server.
import { Secret, SecretNotFoundError } from 'e2b'
import { assert, run, test } from './_check.mjs'

const name = `Key-${Date.now()}`

test('create, look up, update', async () => {
  const made = await Secret.create(name, 'hidden-1', { metadata: { team: 'a' } })
  assert.match(made.secretId, /^sec_/)
  assert.equal(made.name, name.toLowerCase())
  assert.equal(made.version, 1)
  assert.deepEqual(made.metadata, { team: 'a' })
  assert.deepEqual(await Secret.getInfo(made.secretId), made)
  assert.deepEqual(await Secret.getInfo(name), made)
  const updated = await Secret.update(name, 'hidden-2', { metadata: {} })
  assert.equal(updated.version, 2)
  assert.deepEqual(updated.metadata, {})
  assert.ok(updated.updatedAt >= made.updatedAt)
  assert.ok(!JSON.stringify(updated).includes('hidden'))
})

test('a name is taken once', async () => {
  await assert.rejects(Secret.create(name, 'x'))
})

test('lists page', async () => {
  const second = await Secret.create(`${name}-b`, 'x')
  const pages = Secret.list({ limit: 1 })
  const names = []
  while (pages.hasNext) names.push(...(await pages.nextItems()).map((one) => one.name))
  assert.ok(names.includes(name.toLowerCase()) && names.includes(second.name))
  assert.equal(await Secret.destroy(second.secretId), true)
})

test('exists and destroy', async () => {
  assert.equal(await Secret.exists(name), true)
  assert.equal(await Secret.destroy(name), true)
  assert.equal(await Secret.destroy(name), false)
  assert.equal(await Secret.exists(name), false)
  await assert.rejects(Secret.getInfo(name), SecretNotFoundError)
})

await run()
