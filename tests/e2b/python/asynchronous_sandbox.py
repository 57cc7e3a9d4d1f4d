"""The life of a sandbox through the asynchronous SDK: create, connect, lists, timeouts, metrics,
network rules, a gateway."""

import asyncio
import contextlib
import datetime
import json
import os
import time

from e2b import AsyncSandbox, NotFoundException, SandboxException, SandboxQuery, SandboxState

from _check import case, raises_async, run_async, until_async
from _gateway import PROGRAM
from _http import get

TAG = f"py-async-{os.getpid()}-{time.time_ns()}"
UNKNOWN = "inosuchsandboxatall"


async def items(paginator):
    """All pages of a list."""
    seen = []
    while paginator.has_next:
        seen.extend(await paginator.next_items())
    return seen


async def is_gone(sbx):
    return not await sbx.is_running()


@case
async def create_gives_a_usable_sandbox():
    metadata = {"tag": TAG, "with space": "a b&c=d"}
    sbx = await AsyncSandbox.create("base", timeout=300, metadata=metadata, envs={"GREETING": "hello"})
    try:
        assert (await sbx.commands.run("echo $GREETING")).stdout == "hello\n"
        info = await sbx.get_info()
        assert info.metadata["with space"] == "a b&c=d"
        assert info.state == SandboxState.RUNNING
        assert await sbx.is_running()
    finally:
        assert await sbx.kill() is True
    assert await sbx.kill() is False
    assert await sbx.is_running() is False


@case
async def connect_only_extends():
    async with await AsyncSandbox.create(timeout=300) as first:
        await first.files.write("state.txt", "kept")
        before = (await first.get_info()).end_at
        second = await AsyncSandbox.connect(first.sandbox_id, timeout=10)
        assert await second.files.read("state.txt") == "kept"
        assert (await second.get_info()).end_at >= before
        await second.connect(timeout=600)
        assert (await second.get_info()).end_at > before
    await raises_async(NotFoundException, AsyncSandbox.connect(first.sandbox_id))


@case
async def a_timeout_ends_it():
    sbx = await AsyncSandbox.create(timeout=300)
    await sbx.set_timeout(10)
    left = (await sbx.get_info()).end_at - datetime.datetime.now(datetime.timezone.utc)
    assert left.total_seconds() < 11, left
    await until_async(lambda: is_gone(sbx), "expiry")
    await raises_async(NotFoundException, sbx.get_info())


@case
async def lists_page_filter_and_have_an_order():
    made = []
    for number in "123":
        metadata = {"tag": TAG, "list": "yes", "number": number}
        made.append(await AsyncSandbox.create(metadata=metadata, timeout=300))

    async def numbers(query=None, **opts):
        query = SandboxQuery(metadata={"tag": TAG, "list": "yes"}, **(query or {}))
        return [item.metadata["number"] for item in await items(AsyncSandbox.list(query=query, **opts))]

    try:
        assert await numbers(limit=1) == ["3", "2", "1"]
        assert await numbers(limit=1, order="asc") == ["1", "2", "3"]
        assert await numbers({"state": [SandboxState.RUNNING]}) == ["3", "2", "1"]
        assert await numbers({"state": [SandboxState.PAUSED]}) == []
        started = (await made[1].get_info()).started_at
        assert await numbers({"started_after": started}) == ["3", "2"]
        assert await numbers({"template": "base"}) == ["3", "2", "1"]
        assert await numbers({"template": "no-such-template-here"}) == []
    finally:
        await asyncio.gather(*(sbx.kill() for sbx in made))


@case
async def metrics_appear():
    async with await AsyncSandbox.create(timeout=300) as sbx:
        metrics = await until_async(sbx.get_metrics, "metrics")
        assert metrics[0].cpu_count >= 1
        assert 0 < metrics[0].mem_used <= metrics[0].mem_total
        old = datetime.datetime.now() - datetime.timedelta(hours=2)
        assert await sbx.get_metrics(start=old, end=old + datetime.timedelta(minutes=5)) == []


@case
async def static_methods_work_by_id():
    sbx = await AsyncSandbox.create(timeout=60)
    await AsyncSandbox.set_timeout(sbx.sandbox_id, 300)
    left = (await AsyncSandbox.get_info(sbx.sandbox_id)).end_at - datetime.datetime.now(datetime.timezone.utc)
    assert left.total_seconds() > 100, left
    metrics = await until_async(lambda: AsyncSandbox.get_metrics(sbx.sandbox_id), "metrics")
    assert metrics[0].cpu_count >= 1
    assert await AsyncSandbox.kill(sbx.sandbox_id) is True
    assert await AsyncSandbox.kill(sbx.sandbox_id) is False


@case
async def unknown_things_are_not_found():
    refused = await raises_async(Exception, AsyncSandbox.create("no-such-template-here"))
    assert "not found" in str(refused), refused
    for call in [
        AsyncSandbox.connect(UNKNOWN),
        AsyncSandbox.get_info(UNKNOWN),
        AsyncSandbox.get_metrics(UNKNOWN),
        AsyncSandbox.set_timeout(UNKNOWN, 60),
        AsyncSandbox.update_network(UNKNOWN, {}),
    ]:
        await raises_async(NotFoundException, call)
    assert await AsyncSandbox.kill(UNKNOWN) is False


@case
async def network_rules_are_set_and_replaced():
    async def told(sbx):
        return str((await sbx.get_info()).network)

    rules = {"api.egress.test": [{"transform": {"headers": {"X-Key": "secret-1"}}}]}
    async with await AsyncSandbox.create(timeout=300, network={"rules": rules}) as sbx:
        text = await told(sbx)
        assert "api.egress.test" in text and "secret-1" not in text, text
        await sbx.update_network({"allow_out": ["203.0.113.7"], "deny_out": ["0.0.0.0/0"]})
        text = await told(sbx)
        assert "203.0.113.7" in text and "egress.test" not in text, text
        await AsyncSandbox.update_network(sbx.sandbox_id, {"deny_out": ["198.51.100.0/24"]})
        text = await told(sbx)
        assert "198.51.100.0/24" in text and "203.0.113.7" not in text, text
        await raises_async(Exception, sbx.update_network({"deny_out": ["not-an-address"]}))
        assert await told(sbx) == text
    async with await AsyncSandbox.create(timeout=300, allow_internet_access=False) as sbx:
        assert (await sbx.commands.run("echo works")).stdout == "works\n"
    refused = AsyncSandbox.create(network={"egress_proxy": {"address": "127.0.0.1:1080"}})
    assert "network.egressProxy" in str(await raises_async(Exception, refused))


@case
async def a_port_inside_asks_for_the_traffic_token():
    network = {"allow_public_traffic": False}
    async with await AsyncSandbox.create(timeout=300, network=network) as sbx:
        await sbx.files.write("www/index.html", "served from inside")
        await sbx.commands.run("python3 -m http.server 8000 --directory www", background=True)
        token = {"e2b-traffic-access-token": sbx.traffic_access_token}

        async def served():
            answer = await asyncio.to_thread(get, sbx, 8000, "", token)
            return answer == (200, "served from inside")

        await until_async(served, "the server")
        assert (await asyncio.to_thread(get, sbx, 8000))[0] == 403


@contextlib.asynccontextmanager
async def template_with_a_gateway():
    """A snapshot to start from, gone after it."""
    async with await AsyncSandbox.create(timeout=300) as source:
        await source.files.write("/usr/local/bin/mcp-gateway", PROGRAM, user="root")
        await source.commands.run("chmod 755 /usr/local/bin/mcp-gateway", user="root")
        snapshot = (await source.create_snapshot()).snapshot_id
    try:
        yield snapshot
    finally:
        assert await AsyncSandbox.delete_snapshot(snapshot) is True


@case
async def a_gateway_is_started_and_answers_who_has_the_token():
    mcp = {"exa": {"apiKey": "with 'quotes'"}}
    query = SandboxQuery(metadata={"tag": TAG, "mcp": "yes"})
    create = AsyncSandbox.create("base", mcp=mcp, metadata=query.metadata, timeout=300)
    refused = await raises_async(SandboxException, create)
    assert "Failed to start MCP gateway" in str(refused) and "mcp-gateway" in str(refused), refused
    assert await items(AsyncSandbox.list(query=query)) == []
    async with template_with_a_gateway() as template:
        async with await AsyncSandbox.create(template, mcp=mcp, timeout=300) as sbx:
            assert sbx.get_mcp_url() == f"https://{sbx.get_host(50005)}/mcp"
            token = await sbx.get_mcp_token()
            bearer = {"Authorization": f"Bearer {token}"}
            status, body = await asyncio.to_thread(get, sbx, 50005, "/mcp", bearer)
            assert status == 200 and json.loads(body) == mcp, (status, body)
            later = await AsyncSandbox.connect(sbx.sandbox_id)
            assert await later.get_mcp_token() == token


run_async()
