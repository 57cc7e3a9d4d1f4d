"""Requests to ports in a sandbox, in both ways to reach a server."""

import os
import urllib.error
import urllib.request

PLAIN = os.environ.get("E2B_SANDBOX_URL")


def get(sbx, port, path="", headers=None):
    """Status and body of a request to a port inside."""
    url = (PLAIN or f"https://{sbx.get_host(port)}") + path
    headers = dict(headers or {})
    if PLAIN:
        headers |= {"E2b-Sandbox-Id": sbx.sandbox_id, "E2b-Sandbox-Port": str(port)}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=90) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
