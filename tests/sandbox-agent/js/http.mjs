// Status codes and problem bodies of the whole face, without an SDK.
import { assert, run, test } from './_check.mjs'
import { Events, call, close, empty, fresh, home, json, openSession, plain, post, problem, reference, send } from './_face.mjs'

const missing = (response, detail) =>
  reference ? problem(response, 400, 'invalid_request', detail) : problem(response, 404, 'not_found')

test('files: replies', async () => {
  const dir = `${home}/${fresh('http')}`
  const at = (name) => encodeURIComponent(`${dir}/${name}`)
  const put = await call('PUT', `/v1/fs/file?path=${at('a/b')}`, { body: 'hello' })
  assert.deepEqual(await json(put), { path: `${dir}/a/b`, bytesWritten: 5 })
  const get = await call('GET', `/v1/fs/file?path=${at('a/b')}`)
  assert.equal(get.headers.get('content-type'), 'application/octet-stream')
  assert.equal(await get.text(), 'hello')
  const [entry] = await json(await call('GET', `/v1/fs/entries?path=${encodeURIComponent(dir)}`))
  assert.deepEqual(Object.keys(entry).sort(), ['entryType', 'modified', 'name', 'path', 'size'])
  assert.deepEqual(await json(await call('POST', `/v1/fs/mkdir?path=${at('c')}`)), { path: `${dir}/c` })
  const moved = await json(await send('POST', '/v1/fs/move', { from: `${dir}/a/b`, to: `${dir}/c/d` }))
  assert.deepEqual(moved, { from: `${dir}/a/b`, to: `${dir}/c/d` })
  const stat = await json(await call('GET', `/v1/fs/stat?path=${at('c/d')}`))
  assert.deepEqual(Object.keys(stat).sort(), ['entryType', 'modified', 'path', 'size'])
  assert.deepEqual(await json(await call('DELETE', `/v1/fs/entry?path=${encodeURIComponent(dir)}&recursive=true`)), { path: dir })
})

test('files: refusals', async () => {
  const nowhere = `${home}/${fresh('none')}`
  for (const [method, path] of [['GET', 'file'], ['GET', 'stat'], ['GET', 'entries'], ['DELETE', 'entry']]) {
    await missing(await call(method, `/v1/fs/${path}?path=${nowhere}`), new RegExp(`^invalid request: path not found: ${nowhere}$`))
  }
  for (const path of ['../x', 'a/../../x']) {
    await problem(await call('GET', `/v1/fs/file?path=${path}`), 400, 'invalid_request', /^invalid request: invalid relative path: /)
  }
  for (const [method, path] of [['GET', 'file'], ['PUT', 'file'], ['GET', 'stat'], ['DELETE', 'entry'], ['POST', 'mkdir']]) {
    await plain(await call(method, `/v1/fs/${path}`, { body: method === 'GET' ? undefined : '' }), 400, /^Failed to deserialize query string: missing field `path`$/)
  }
  await plain(await call('DELETE', '/v1/fs/entry?path=x&recursive=maybe'), 400, /^Failed to deserialize query string/)
  await plain(await call('POST', '/v1/fs/move', { body: '{}' }), 415, /^Expected request with `Content-Type: application\/json`$/)
  await plain(await send('POST', '/v1/fs/move', {}), 422, /missing field `from`/)
  await plain(await call('POST', '/v1/fs/move', { body: '{', headers: { 'content-type': 'application/json' } }), 400, /^Failed to parse the request body as JSON/)
  const upload = (type, body) => call('POST', `/v1/fs/upload-batch?path=${nowhere}`, { headers: { 'content-type': type }, body })
  await problem(await upload('text/plain', 'x'), 400, 'invalid_request', /content-type must be application\/x-tar/)
  const broken = await upload('application/x-tar', 'this is no archive')
  if (reference) await problem(broken, 502, 'stream_error')
  else await problem(broken, 400, 'invalid_request')
})

test('configuration', async () => {
  const directory = `${home}/${fresh('config')}`
  await empty(await send('PUT', `/v1/config/mcp?directory=${directory}&mcpName=a`, { type: 'local', command: 'x' }))
  await json(await call('GET', `/v1/config/mcp?directory=${directory}&mcp_name=a`))
  await empty(await call('DELETE', `/v1/config/mcp?directory=${directory}&mcpName=a`))
  await empty(await call('DELETE', `/v1/config/mcp?directory=${directory}&mcpName=a`))
  for (const [kind, name] of [['mcp', 'mcpName'], ['skills', 'skillName']]) {
    const gone = await problem(await call('GET', `/v1/config/${kind}?directory=${directory}&${name}=a`), 404, 'session_not_found')
    assert.equal(gone.sessionId, `${kind}:a`)
    await plain(await call('GET', `/v1/config/${kind}?directory=${directory}`), 400, new RegExp(`missing field \`${name}\``))
    await plain(await call('GET', `/v1/config/${kind}?${name}=a`), 400, /missing field `directory`/)
    await problem(await call('GET', `/v1/config/${kind}?directory=&${name}=a`), 400, 'invalid_request', /missing required 'directory' query parameter/)
    await problem(await call('GET', `/v1/config/${kind}?directory=${directory}&${name}=`), 400, 'invalid_request', new RegExp(`missing required '${name}' query parameter`))
  }
  await plain(await send('PUT', `/v1/config/mcp?directory=${directory}&mcpName=a`, { type: 'zzz' }), 422, /unknown variant `zzz`/)
  await plain(await send('PUT', `/v1/config/mcp?directory=${directory}&mcpName=a`, { type: 'local' }), 422, /missing field `command`/)
  await plain(await send('PUT', `/v1/config/skills?directory=${directory}&skillName=a`, {}), 422, /missing field `sources`/)
  await call('DELETE', `/v1/fs/entry?path=${directory}&recursive=true`)
})

test('processes', async () => {
  const none = await problem(await call('GET', '/v1/processes/proc_999999'), 404, 'not_found', /^not found: process proc_999999$/)
  assert.deepEqual(none.details, { resource: 'process', id: 'proc_999999' })
  for (const [method, path, body] of [
    ['DELETE', ''], ['POST', '/stop'], ['POST', '/kill'], ['GET', '/logs'], ['POST', '/input', { data: '' }], ['POST', '/terminal/resize', { cols: 80, rows: 24 }],
  ]) {
    const path_ = `/v1/processes/proc_999999${path}`
    await problem(body ? await send(method, path_, body) : await call(method, path_), 404, 'not_found')
  }
  await problem(await send('POST', '/v1/processes/run', { command: '' }), 400, 'invalid_request', /command must not be empty/)
  await plain(await send('POST', '/v1/processes/run', {}), 422, /missing field `command`/)
  await plain(await call('POST', '/v1/processes', { body: '{}' }), 415)
  await plain(await call('GET', '/v1/processes?owner=x'), 400, /unknown variant `x`, expected one of `user`, `desktop`, `system`/)
  const config = await json(await call('GET', '/v1/processes/config'))
  for (const name of Object.keys(config)) {
    await problem(await send('POST', '/v1/processes/config', { ...config, [name]: 0 }), 400, 'invalid_request', /must be greater than 0/)
  }
  await plain(await send('POST', '/v1/processes/config', { maxConcurrentProcesses: 3 }), 422, /missing field `defaultRunTimeoutMs`/)
  const { id } = await json(await send('POST', '/v1/processes', { command: 'sleep', args: ['60'] }))
  await plain(await call('GET', `/v1/processes/${id}/logs?stream=bogus`), 400, /unknown variant `bogus`/)
  await plain(await call('GET', `/v1/processes/${id}/terminal/ws`), 400, /upgrade/)
  await problem(await send('POST', `/v1/processes/${id}/terminal/resize`, { cols: 80, rows: 24 }), 409, 'conflict', /process is not running in tty mode/)
  await problem(await call('DELETE', `/v1/processes/${id}`), 409, 'conflict', /process is still running; stop or kill it before delete/)
  await json(await call('POST', `/v1/processes/${id}/kill?waitMs=30000`))
  await problem(await send('POST', `/v1/processes/${id}/input`, { data: 'aGkK' }), 409, 'conflict', /process is not running/)
  await empty(await call('DELETE', `/v1/processes/${id}`))
})

test('logs as a stream: frames and Last-Event-ID', async () => {
  // What is read at once is one frame: each line waits until the one before is here.
  const { id } = await json(await send('POST', '/v1/processes', { command: 'sh', args: ['-c', 'echo a; read x; echo b; read x; echo c'], interactive: true }))
  const all = await Events.open(`/v1/processes/${id}/logs?follow=true`)
  for (const line of [1, 2]) {
    await all.wait((frame) => frame.json.sequence === line, `line ${line}`)
    await json(await send('POST', `/v1/processes/${id}/input`, { data: 'Cg==' }))
  }
  await all.wait((frame) => frame.json.sequence === 3, 'three lines')
  for (const frame of all.frames) {
    assert.equal(frame.event, 'log')
    assert.equal(frame.id, String(frame.json.sequence))
  }
  const rest = await Events.open(`/v1/processes/${id}/logs?follow=true`, { after: 1 })
  await rest.wait((frame) => frame.json.sequence === 3, 'the rest')
  assert.deepEqual(rest.frames, all.frames.slice(1, 3))
  all.close()
  rest.close()
  await json(await call('POST', `/v1/processes/${id}/kill?waitMs=30000`))
  await empty(await call('DELETE', `/v1/processes/${id}`))
})

test('agents', async () => {
  const unknown = await problem(await call('GET', '/v1/agents/nope'), 400, 'unsupported_agent', /^unsupported agent: nope$/)
  assert.equal(unknown.agent, 'nope')
  await problem(await send('POST', '/v1/agents/nope/install', {}), 400, 'unsupported_agent')
  await plain(await call('GET', '/v1/agents?config=maybe'), 400, /was not `true` or `false`/)
  await plain(await send('POST', '/v1/agents/mock/install', { reinstall: 'x' }), 422, /expected a boolean/)
})

test('agent servers: the first POST names the agent', async () => {
  const server = fresh('http')
  const request = { jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: 1 } }
  await problem(await post(server, request), 400, 'invalid_request', new RegExp(`missing required 'agent' query parameter for first POST to /v1/acp/${server}$`))
  await problem(await post(server, request, { agent: 'zzz' }), 400, 'unsupported_agent', /zzz/)
  await problem(await post(server, request, { agent: '' }), 400, 'unsupported_agent')
  await openSession(server)
  const conflict = await problem(await post(server, request, { agent: 'claude' }), 409, 'conflict')
  assert.equal(conflict.detail, `conflict: server '${server}' already exists for agent 'mock'; requested 'claude'`)
  const listed = await json(await call('GET', '/v1/acp'))
  const mine = listed.servers.find((one) => one.serverId === server)
  assert.deepEqual(Object.keys(mine).sort(), ['agent', 'createdAtMs', 'serverId'])
  await close(server)
  if (!reference) await empty(await call('DELETE', `/v1/acp/${fresh('never')}`))
})

await run()
