// Network rules and access control through the SDK.
import { NotFoundError, Sandbox, Secret } from 'e2b'
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
  const sbx = await Sandbox.create({ timeoutMs: 300_000 })
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
  const sbx = await Sandbox.create({ timeoutMs: 300_000, allowInternetAccess: false })
  try {
    assert.equal((await sbx.commands.run('echo works')).stdout, 'works\n')
    await sbx.updateNetwork({ allowOut: ['203.0.113.7'], denyOut: ['0.0.0.0/0'] })
    await sbx.updateNetwork({})
  } finally {
    await sbx.kill()
  }
})

test('rules are replaced by id, and told as they are', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 300_000 })
  const update = (network) => Sandbox.updateNetwork(sbx.sandboxId, network)
  const told = async () => (await Sandbox.getInfo(sbx.sandboxId)).network
  try {
    await update({ allowOut: ['203.0.113.7'], denyOut: ['0.0.0.0/0'] })
    assert.deepEqual((await told()).allowOut, ['203.0.113.7'])
    assert.deepEqual((await told()).denyOut, ['0.0.0.0/0'])
    await update({ denyOut: ['198.51.100.0/24'] })
    assert.deepEqual((await told()).allowOut ?? [], [])
    assert.deepEqual((await told()).denyOut, ['198.51.100.0/24'])
    await assert.rejects(update({ denyOut: ['not-an-address'] }))
    assert.deepEqual((await told()).denyOut, ['198.51.100.0/24'])
    await update({ rules: { 'api.egress.test': [{ transform: { headers: { 'X-Key': 'secret-3' } } }] } })
    assert.match(JSON.stringify((await told()).rules), /api\.egress\.test/)
    assert.doesNotMatch(JSON.stringify(await told()), /secret-3/)
    await update({})
    assert.doesNotMatch(JSON.stringify((await told()) ?? {}), /egress\.test|198\.51/)
    assert.equal((await sbx.commands.run('echo works')).stdout, 'works\n')
  } finally {
    await sbx.kill()
  }
  await assert.rejects(Sandbox.updateNetwork('inosuchsandboxatall', {}), NotFoundError)
})

test('bad rules are refused', async () => {
  await assert.rejects(Sandbox.create({ network: { denyOut: ['not-an-address'] } }))
  await assert.rejects(Sandbox.create({ network: { allowOut: ['example.com'] } }))
})

test('a sandbox without public traffic asks for its token', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 300_000, network: { allowPublicTraffic: false } })
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
    timeoutMs: 300_000,
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

test('rules set headers, and their values are not told', async () => {
  const headers = { 'X-Key': 'secret-1' }
  const rules = { 'API.egress.test': [{ transform: { headers } }] }
  const sbx = await Sandbox.create({ timeoutMs: 300_000, network: { rules } })
  try {
    const told = JSON.stringify((await sbx.getInfo()).network.rules)
    assert.match(told, /api\.egress\.test/)
    assert.doesNotMatch(told, /secret-1/)
    const trusted = 'ls /usr/local/share/ca-certificates; grep -c "woodfrog egress" /etc/ssl/certs/ca-certificates.crt || true'
    assert.equal((await sbx.commands.run(trusted)).stdout, 'woodfrog-egress.crt\n2\n')
    assert.equal((await sbx.commands.run('env | grep -c secret-1 || true')).stdout, '0\n')
    await sbx.updateNetwork({})
    assert.equal((await sbx.commands.run(trusted)).stdout, '0\n')
    await sbx.updateNetwork({ rules })
    assert.equal((await sbx.commands.run(trusted)).stdout, 'woodfrog-egress.crt\n2\n')
  } finally {
    await sbx.kill()
  }
})

test('secrets are filled into headers and told to nobody', async () => {
  const name = `net-key-${Date.now()}`
  await Secret.create(name, 'value-of-it')
  const rules = (secret) => {
    const headers = { Authorization: `Bearer ${Secret.fill(secret)}` }
    return { 'api.egress.test': [{ transform: { headers } }] }
  }
  const sbx = await Sandbox.create({ timeoutMs: 300_000, network: { rules: rules(name) } })
  try {
    assert.doesNotMatch(JSON.stringify(await sbx.getInfo()), /value-of-it/)
    assert.equal((await sbx.commands.run('env | grep -c value-of-it || true')).stdout, '0\n')
    const unknown = sbx.updateNetwork({ rules: rules('nobody-has-it') })
    await assert.rejects(unknown, /secret 'nobody-has-it' not found/)
  } finally {
    await sbx.kill()
    await Secret.destroy(name)
  }
  const unknown = Sandbox.create({ network: { rules: rules('nobody-has-it') } })
  await assert.rejects(unknown, /secret 'nobody-has-it' not found/)
})

test('bad headers are refused', async () => {
  for (const headers of [{ 'a b': 'c' }, { Host: 'other' }, { a: 'b\r\nc: d' }]) {
    const rules = { 'api.egress.test': [{ transform: { headers } }] }
    await assert.rejects(Sandbox.create({ network: { rules } }), /network\.rules\.api\.egress\.test/)
  }
  const rules = Object.fromEntries(Array.from({ length: 11 }, (_, n) => [`h${n}.test`, []]))
  await assert.rejects(Sandbox.create({ network: { rules } }), /network\.rules/)
})

test('an egress proxy is used, and must not be on the host', async () => {
  const proxy = (address) => ({ address, username: 'ann', password: 'secret-2' })
  const network = { egressProxy: proxy('203.0.113.5:1080') }
  const sbx = await Sandbox.create({ timeoutMs: 300_000, network })
  try {
    const told = (await sbx.getInfo()).network.egressProxy
    assert.deepEqual(told, { address: '203.0.113.5:1080', username: 'ann' })
  } finally {
    await sbx.kill()
  }
  for (const address of ['127.0.0.1:1080', '169.254.169.254:80', '10.0.0.1:1080', 'nonsense']) {
    const refused = Sandbox.create({ network: { egressProxy: proxy(address) } })
    await assert.rejects(refused, /network\.egressProxy/, address)
  }
})

test('httpsPorts are reached over TLS', async () => {
  const sbx = await Sandbox.create({ timeoutMs: 300_000, network: { httpsPorts: [8443] } })
  try {
    await sbx.files.write('secure.py', `
import http.server, ssl, subprocess
subprocess.run('openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -days 2 -subj /CN=x'.split(), check=True)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('c', 'k')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8443), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
`)
    await sbx.files.write('page', 'over tls')
    await sbx.commands.run('python3 secure.py', { background: true })
    await until(async () => {
      const probe = await sbx.commands.run('curl -sk -o /dev/null https://localhost:8443 && echo up || true')
      return probe.stdout === 'up\n'
    }, 'the server')
    const response = await fetch(`${target(sbx, 8443)}/page`, { headers: routing(sbx, 8443) })
    assert.equal(await response.text(), 'over tls')
  } finally {
    await sbx.kill()
  }
})

await run()
