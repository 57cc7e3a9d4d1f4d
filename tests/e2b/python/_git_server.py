"""A Git server to run in a sandbox: it answers the user `ann` with the password `s3cret` alone."""

URL = "http://127.0.0.1:8000/remote.git"
UP = "curl -s -o /dev/null 127.0.0.1:8000 && echo up || true"
PROGRAM = """
import base64, http.server
WANTED = 'Basic ' + base64.b64encode(b'ann:s3cret').decode()
class H(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers['Authorization'] == WANTED:
            return super().do_GET()
        self.send_response(401)
        self.send_header('WWW-Authenticate', 'Basic realm="git"')
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', 8000), H).serve_forever()
"""
