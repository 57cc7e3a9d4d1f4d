// Network rules and access control through the SDK.
import { Sandbox } from 'e2b'
import { assert, run, test, until } from './_check.mjs'

const plain = process.env.E2B_SANDBOX_URL
const target = (sbx, port) => plain ?? `https://${sbx.getHost(port)}`
const routing = (sbx, port) =>
  plain ? { 'E2b-Sandbox-Id': sbx.sandboxId, 'E2b-Sandbox-Port': String(port) } : {}

async function serve(sbx, port) {
  await sbx.files.write('echo.py', `
import http.server, json
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({'host': self.headers['Host'], 'raw': str(self.headers)}).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', ${port}), H).serve_forever()
`)
  await sbx.commands.run('python3 echo.py', { background: true })
  await until(async () => {
    const probe = await sbx.commands.run(`curl -s -o /dev/null localhost:${port} && echo up || true`)
    return probe.stdout === 'up\n'
  }, 'the server')
}

test('the metadata address and the host are out of reach', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 60_000 })
  try {
    for (const address of ['169.254.169.254:80', '10.200.0.1:22', '192.168.0.1:80']) {
      const result = await sbx.commands.run(
        `timeout 5 bash -c 'exec 3<>/dev/tcp/${address.replace(':', '/')}' 2>/dev/null && echo open || echo closed`,
      )
      assert.equal(result.stdout, 'closed\n', address)
    }
  } finally {
    await sbx.kill()
  }
})

test('create without internet access, and rules can be replaced', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 60_000, allowInternetAccess: false })
  try {
    assert.equal((await sbx.commands.run('echo works')).stdout, 'works\n')
    await sbx.updateNetwork({ allowOut: ['203.0.113.7'], denyOut: ['0.0.0.0/0'] })
    await sbx.updateNetwork({})
  } finally {
    await sbx.kill()
  }
})

test('bad rules are refused', async () => {
  await assert.rejects(Sandbox.create({ network: { denyOut: ['not-an-address'] } }))
  await assert.rejects(Sandbox.create({ network: { allowOut: ['example.com'] } }))
})

test('a sandbox without public traffic asks for its token', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 60_000, network: { allowPublicTraffic: false } })
  try {
    await serve(sbx, 8000)
    const refused = await fetch(target(sbx, 8000), { headers: routing(sbx, 8000) })
    assert.equal(refused.status, 403)
    assert.ok(sbx.trafficAccessToken)
    const allowed = await fetch(target(sbx, 8000), {
      headers: { ...routing(sbx, 8000), 'e2b-traffic-access-token': sbx.trafficAccessToken },
    })
    assert.equal(allowed.status, 200)
  } finally {
    await sbx.kill()
  }
})

test('maskRequestHost replaces the Host header', async () => {
  const sbx = await Sandbox.create({
    timeoutMs: 60_000,
    network: { maskRequestHost: 'localhost:${PORT}' },
  })
  try {
    await serve(sbx, 8000)
    const response = await fetch(target(sbx, 8000), { headers: routing(sbx, 8000) })
    const seen = await response.json()
    assert.equal(seen.host, 'localhost:8000')
    assert.match(seen.raw, /^Host: /m)
  } finally {
    await sbx.kill()
  }
})

await run()
