// `mcp`: a gateway is started in the sandbox with a token, and reached at the URL the SDK tells.
import { Sandbox, NotFoundError } from 'e2b'
import { assert, run, test } from './_check.mjs'

const tag = `js-mcp-${process.pid}-${Date.now()}`
const plain = process.env.E2B_SANDBOX_URL
const mcp = { exa: { apiKey: "with 'quotes'" } }
const listed = async () => Sandbox.list({ query: { metadata: { tag } } }).nextItems()

/** Takes the place of a gateway: tells what it was started with to who has the token. */
const gateway = `#!/usr/bin/env python3
import http.server, os, sys
token, config = os.environ['GATEWAY_ACCESS_TOKEN'], sys.argv[sys.argv.index('--config') + 1].encode()
os.makedirs('/etc/mcp-gateway', exist_ok=True)
with open(os.open('/etc/mcp-gateway/.token', os.O_CREAT | os.O_WRONLY, 0o600), 'w') as file:
    file.write(token)
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == '/mcp' and self.headers['Authorization'] == 'Bearer ' + token
        self.send_response(200 if known else 401); self.end_headers(); self.wfile.write(config if known else b'')
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 50005), H)
if os.fork():
    os._exit(0)
os.setsid()
for fd in range(3):
    os.dup2(os.open(os.devnull, os.O_RDWR), fd)
server.serve_forever()
`

/** What the gateway answers, with a token or without. */
const ask = (sbx, token) => {
  const url = plain ? `${plain}/mcp` : sbx.getMcpUrl()
  const routing = plain ? { 'E2b-Sandbox-Id': sbx.sandboxId, 'E2b-Sandbox-Port': '50005' } : {}
  return fetch(url, { headers: { ...routing, ...(token && { Authorization: `Bearer ${token}` }) } })
}

test('a template without a gateway is refused, and no sandbox stays', async () => {
  const refused = Sandbox.create('base', { mcp, metadata: { tag }, timeoutMs: 300_000 })
  await assert.rejects(refused, /Failed to start MCP gateway: .*mcp-gateway/)
  assert.deepEqual(await listed(), [])
  // Without a template it is the SDK's own, which nobody made here.
  await assert.rejects(Sandbox.create({ mcp, metadata: { tag } }), /404: .*mcp-gateway.*not found/)
  assert.deepEqual(await listed(), [])
})

test('a gateway that fails is told of, and no sandbox stays', async () => {
  const source = await Sandbox.create('base', { timeoutMs: 300_000 })
  const program = '/usr/local/bin/mcp-gateway'
  let snapshot
  try {
    await source.files.write(program, '#!/bin/sh\necho no such server >&2\nexit 3\n', { user: 'root' })
    await source.commands.run(`chmod 755 ${program}`, { user: 'root' })
    snapshot = await source.createSnapshot()
    const refused = Sandbox.create(snapshot.snapshotId, { mcp, metadata: { tag }, timeoutMs: 300_000 })
    await assert.rejects(refused, /Failed to start MCP gateway: no such server/)
    assert.deepEqual(await listed(), [])
  } finally {
    await source.kill()
    if (snapshot) await Sandbox.deleteSnapshot(snapshot.snapshotId)
  }
})

test('a gateway is started with its servers and answers who has the token', async () => {
  const source = await Sandbox.create('base', { timeoutMs: 300_000 })
  const made = [source]
  let snapshot
  try {
    await source.files.write('/usr/local/bin/mcp-gateway', gateway, { user: 'root' })
    await source.commands.run('chmod 755 /usr/local/bin/mcp-gateway', { user: 'root' })
    snapshot = await source.createSnapshot()
    const sbx = await Sandbox.create(snapshot.snapshotId, { mcp, timeoutMs: 300_000 })
    made.push(sbx)
    assert.equal(sbx.getMcpUrl(), `https://${sbx.getHost(50005)}/mcp`)
    const token = await sbx.getMcpToken()
    assert.ok(token)
    const answer = await ask(sbx, token)
    assert.equal(answer.status, 200)
    assert.deepEqual(await answer.json(), mcp)
    assert.equal((await ask(sbx)).status, 401)
    // Whoever connects later reads the token that the gateway left for root.
    const later = await Sandbox.connect(sbx.sandboxId)
    assert.equal(await later.getMcpToken(), token)
    await assert.rejects(source.getMcpToken(), NotFoundError)
  } finally {
    await Promise.all(made.map((sbx) => sbx.kill()))
    if (snapshot) await Sandbox.deleteSnapshot(snapshot.snapshotId)
  }
})

await run()
