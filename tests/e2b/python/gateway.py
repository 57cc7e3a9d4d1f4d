"""`mcp`: a gateway is started in the sandbox with a token, and reached at the URL the SDK tells."""

import json
import os
import time

from e2b import NotFoundException, Sandbox, SandboxException, SandboxQuery

from _check import case, raises, run
from _gateway import PROGRAM
from _http import get

TAG = f"py-mcp-{os.getpid()}-{time.time_ns()}"
MCP = {"exa": {"apiKey": "with 'quotes'"}}


def listed():
    return Sandbox.list(query=SandboxQuery(metadata={"tag": TAG})).next_items()


@case
def a_template_without_a_gateway_is_refused_and_no_sandbox_stays():
    create = lambda: Sandbox.create("base", mcp=MCP, metadata={"tag": TAG}, timeout=300)
    refused = raises(SandboxException, create)
    assert "Failed to start MCP gateway" in str(refused) and "mcp-gateway" in str(refused), refused
    assert refused.__cause__.exit_code == 127
    assert listed() == []
    # Without a template it is the SDK's own, which nobody made here.
    refused = raises(Exception, lambda: Sandbox.create(mcp=MCP, metadata={"tag": TAG}))
    assert "mcp-gateway" in str(refused) and "not found" in str(refused), refused
    assert listed() == []


@case
def a_gateway_is_started_and_answers_who_has_the_token():
    with Sandbox.create("base", timeout=300) as source:
        source.files.write("/usr/local/bin/mcp-gateway", PROGRAM, user="root")
        source.commands.run("chmod 755 /usr/local/bin/mcp-gateway", user="root")
        raises(NotFoundException, source.get_mcp_token)
        snapshot = source.create_snapshot().snapshot_id
    try:
        with Sandbox.create(snapshot, mcp=MCP, timeout=300) as sbx:
            assert sbx.get_mcp_url() == f"https://{sbx.get_host(50005)}/mcp"
            token = sbx.get_mcp_token()
            status, body = get(sbx, 50005, "/mcp", {"Authorization": f"Bearer {token}"})
            assert status == 200 and json.loads(body) == MCP, (status, body)
            assert get(sbx, 50005, "/mcp")[0] == 401
            # Whoever connects later reads the token that the gateway left for root.
            assert Sandbox.connect(sbx.sandbox_id).get_mcp_token() == token
    finally:
        assert Sandbox.delete_snapshot(snapshot) is True


run()
