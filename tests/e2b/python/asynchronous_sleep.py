"""Pause, resume, automatic pause, snapshots and forks through the asynchronous SDK."""

import asyncio
import contextlib
import os
import re
import time

from e2b import AsyncSandbox, NotFoundException, SandboxQuery, SandboxState

from _check import case, raises_async, run_async, until_async
from _http import get

TAG = f"py-async-sleep-{os.getpid()}-{time.time_ns()}"
COUNTER = "i=0; while true; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done"


@contextlib.asynccontextmanager
async def sandbox(**opts):
    """A sandbox for one case, gone after it."""
    sbx = await AsyncSandbox.create("base", **{"timeout": 300, **opts})
    try:
        yield sbx
    finally:
        await AsyncSandbox.kill(sbx.sandbox_id)


async def count(sbx):
    if not await sbx.files.exists("/tmp/count"):
        return 0
    text = (await sbx.files.read("/tmp/count")).strip()
    return int(text) if re.fullmatch(r"\d+", text) else 0


async def count_beyond(sbx, number):
    async def is_beyond():
        return await count(sbx) > number

    await until_async(is_beyond, f"the counter beyond {number}")


async def pids(sbx):
    return [process.pid for process in await sbx.commands.list()]


async def expire(sbx):
    """Its time is over soon: whatever must be ready is ready."""

    async def is_paused():
        return not await sbx.is_running()

    await sbx.set_timeout(1)
    await until_async(is_paused, "the pause")


@case
async def a_paused_sandbox_resumes_with_its_processes():
    async with sandbox(metadata={"tag": TAG}) as sbx:
        handle = await sbx.commands.run(COUNTER, background=True)
        await count_beyond(sbx, 3)
        before = await count(sbx)
        assert await sbx.pause() is True
        assert await sbx.is_running() is False
        assert await sbx.pause() is False

        async def listed(*state):
            query = SandboxQuery(metadata={"tag": TAG}, state=list(state))
            return [item.sandbox_id for item in await AsyncSandbox.list(query=query).next_items()]

        assert await listed(SandboxState.PAUSED) == [sbx.sandbox_id]
        assert await listed(SandboxState.RUNNING) == []
        assert await listed(SandboxState.RUNNING, SandboxState.PAUSED) == [sbx.sandbox_id]
        again = await AsyncSandbox.connect(sbx.sandbox_id, timeout=300)
        assert await sbx.is_running() is True
        assert handle.pid in await pids(sbx)
        await count_beyond(sbx, before)
        assert await (await again.commands.connect(handle.pid)).kill() is True


@case
async def a_pause_of_the_files_alone_boots_anew():
    async with sandbox() as sbx:
        await sbx.files.write("kept.txt", "kept")
        handle = await sbx.commands.run("sleep 100000", background=True)
        assert await sbx.beta_pause() is True
        await sbx.connect()
        assert handle.pid in await pids(sbx)
        assert await sbx.pause(keep_memory=False) is True
        await sbx.connect()
        assert await pids(sbx) == []
        assert await sbx.files.read("kept.txt") == "kept"


@case
async def a_timeout_pauses_and_a_request_resumes():
    async with sandbox(lifecycle={"on_timeout": "pause", "auto_resume": True}) as sbx:
        await sbx.files.write("www/index.html", "woken")
        await sbx.commands.run("python3 -m http.server 8000 --directory www", background=True)

        async def answers():
            return await asyncio.to_thread(get, sbx, 8000) == (200, "woken")

        await until_async(answers, "the server")
        await expire(sbx)
        assert (await AsyncSandbox.get_info(sbx.sandbox_id)).state == SandboxState.PAUSED
        assert await answers()
        assert (await sbx.get_info()).state == SandboxState.RUNNING


@case
async def snapshots_are_started_from_and_deleted_once():
    async with sandbox() as sbx:
        await sbx.files.write("state.txt", "of the snapshot")
        snapshot = await sbx.create_snapshot()
        await sbx.files.write("state.txt", "of later")
        listed = await sbx.list_snapshots().next_items()
        assert [item.snapshot_id for item in listed] == [snapshot.snapshot_id]
        async with await AsyncSandbox.create(snapshot.snapshot_id, timeout=300) as copy:
            assert await copy.files.read("state.txt") == "of the snapshot"
            assert await sbx.files.read("state.txt") == "of later"
        assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is True
        assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is False


@case
async def forks_have_the_memory_and_are_independent():
    async with sandbox() as sbx:
        handle = await sbx.commands.run(COUNTER, background=True)
        await count_beyond(sbx, 3)
        await sbx.files.write("who.txt", "source")
        forks = await sbx.fork(count=2, timeout=300)
        try:
            assert len(forks) == 2
            for number, fork in enumerate(forks):
                if isinstance(fork, BaseException):
                    raise fork
                assert await fork.files.read("who.txt") == "source"
                await fork.files.write("who.txt", f"fork {number}")
                assert handle.pid in await pids(fork)
                await count_beyond(fork, await count(fork))
            assert await sbx.files.read("who.txt") == "source"
            assert await forks[0].files.read("who.txt") == "fork 0"
        finally:
            await asyncio.gather(*(f.kill() for f in forks if not isinstance(f, BaseException)))


@case
async def pauses_snapshots_and_forks_work_by_id():
    async with sandbox() as sbx:
        sandbox_id = sbx.sandbox_id
        await sbx.files.write("state.txt", "kept")
        assert await AsyncSandbox.pause(sandbox_id) is True
        assert await AsyncSandbox.pause(sandbox_id) is False
        assert await AsyncSandbox.beta_pause(sandbox_id) is False
        await AsyncSandbox.connect(sandbox_id, timeout=300)
        snapshot = await AsyncSandbox.create_snapshot(sandbox_id)
        listed = await AsyncSandbox.list_snapshots(sandbox_id=sandbox_id).next_items()
        assert [item.snapshot_id for item in listed] == [snapshot.snapshot_id]
        assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is True
        for fork in await AsyncSandbox.fork(sandbox_id, count=1, timeout=300):
            if isinstance(fork, BaseException):
                raise fork
            async with fork:
                assert await fork.files.read("state.txt") == "kept"
    for call in [
        AsyncSandbox.pause("inosuchsandboxatall"),
        AsyncSandbox.create_snapshot("inosuchsandboxatall"),
        AsyncSandbox.fork("inosuchsandboxatall"),
    ]:
        await raises_async(NotFoundException, call)


run_async()
