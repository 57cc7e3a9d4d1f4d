"""What takes the place of an MCP gateway: it tells what it was started with to who has the token."""

PROGRAM = """#!/usr/bin/env python3
import http.server, os, sys
token, config = os.environ['GATEWAY_ACCESS_TOKEN'], sys.argv[sys.argv.index('--config') + 1].encode()
os.makedirs('/etc/mcp-gateway', exist_ok=True)
with open(os.open('/etc/mcp-gateway/.token', os.O_CREAT | os.O_WRONLY, 0o600), 'w') as file:
    file.write(token)
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == '/mcp' and self.headers['Authorization'] == 'Bearer ' + token
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(config if known else b'')
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 50005), H)
if os.fork():
    os._exit(0)
os.setsid()
for fd in range(3):
    os.dup2(os.open(os.devnull, os.O_RDWR), fd)
server.serve_forever()
"""
