"""The asynchronous SDK: the same sandbox from an event loop."""

import asyncio

from e2b import AsyncSandbox, FilesystemEventType, NotFoundException, PtySize

from _check import case, run_async, until_async


@case
async def commands_in_parallel(sbx):
    results = await asyncio.gather(
        *(sbx.commands.run(f"sleep 0.1; echo {i}") for i in range(20))
    )
    assert [r.stdout for r in results] == [f"{i}\n" for i in range(20)]


@case
async def background_and_stdin(sbx):
    texts = []
    handle = await sbx.commands.run(
        "cat", background=True, stdin=True, on_stdout=texts.append, timeout=0
    )
    await sbx.commands.send_stdin(handle.pid, "line\n")
    await until_async(lambda: "line" in "".join(texts), "the echo")
    await sbx.commands.close_stdin(handle.pid)
    assert (await handle.wait()).exit_code == 0


@case
async def files_and_watcher(sbx):
    await sbx.files.make_dir("watched")
    events = []
    handle = await sbx.files.watch_dir("watched", on_event=events.append)
    await sbx.files.write("watched/a.txt", "a")
    await until_async(
        lambda: any(e.name == "a.txt" and e.type == FilesystemEventType.WRITE for e in events), "write"
    )
    await handle.stop()
    assert await sbx.files.read("watched/a.txt") == "a"
    chunks = [chunk async for chunk in await sbx.files.read("watched/a.txt", format="stream")]
    assert b"".join(chunks) == b"a"
    try:
        await sbx.files.read("missing")
        raise AssertionError("found")
    except NotFoundException:
        pass


@case
async def pty(sbx):
    screen = bytearray()
    handle = await sbx.pty.create(PtySize(rows=24, cols=80), on_data=screen.extend)
    await sbx.pty.send_stdin(handle.pid, b"echo $((40+2))\n")
    await until_async(lambda: b"42" in screen, "the terminal")
    await handle.kill()


@case
async def many_sandboxes_at_once(sbx):
    made = await asyncio.gather(*(AsyncSandbox.create(timeout=60) for _ in range(5)))
    assert len({s.sandbox_id for s in made}) == 5
    assert all(await asyncio.gather(*(s.kill() for s in made)))


async def set_up():
    return await AsyncSandbox.create(timeout=300)


async def clean_up(sbx):
    await sbx.kill()


run_async(set_up, clean_up)
