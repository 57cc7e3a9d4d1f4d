"""The asynchronous SDK: `commands` and `pty` from an event loop."""

import asyncio

from e2b import (
    AsyncSandbox,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    SandboxException,
    TimeoutException,
)

from _check import case, raises_async, run_async, until_async


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


async def is_listed(sbx, pid):
    return any(process.pid == pid for process in await sbx.commands.list())


async def is_gone(sbx, pid):
    return not await is_listed(sbx, pid)


@case
async def output_codes_and_options(sbx):
    out, err = [], []
    script = "echo one; echo two >&2; exit 3"
    running = sbx.commands.run(script, on_stdout=out.append, on_stderr=err.append)
    error = await raises_async(CommandExitException, running)
    assert (error.exit_code, error.stdout, error.stderr) == (3, "one\n", "two\n")
    assert "".join(out) == "one\n" and "".join(err) == "two\n"
    script = 'echo "$A" $(pwd) $(whoami)'
    result = await sbx.commands.run(script, envs={"A": "x y"}, cwd="/tmp", user="root")
    assert result.stdout == "x y /tmp root\n"
    await raises_async(InvalidArgumentException, sbx.commands.run("true", cwd="/no/such/dir"))
    await raises_async(TimeoutException, sbx.commands.run("sleep 302", timeout=0.5))


@case
async def a_handle_writes_to_its_command_and_ends_the_input(sbx):
    handle = await sbx.commands.run("cat", background=True, stdin=True)
    assert handle.exit_code is None and handle.error is None
    await handle.send_stdin("one ")
    await handle.send_stdin(b"two ")
    second = await sbx.commands.connect(handle.pid)
    await second.send_stdin("three")
    await second.close_stdin()
    assert (await handle.wait()).stdout == "one two three"
    assert (handle.exit_code, handle.stdout, handle.stderr) == (0, "one two three", "")
    assert (await second.wait()).exit_code == 0


@case
async def streamed_input(sbx):
    if not hasattr(sbx.commands, "stream_input"):
        return
    texts = []
    handle = await sbx.commands.run("cat", background=True, stdin=True, on_stdout=texts.append)
    async with sbx.commands.stream_input(handle.pid) as stream:
        for piece in ["to ", b"the ", "end"]:
            await stream.send(piece)
        await until_async(lambda: "".join(texts) == "to the end", "the echo of an open stream")
    await raises_async(SandboxException, stream.send("too late"))
    await sbx.commands.close_stdin(handle.pid)
    assert (await handle.wait()).stdout == "to the end"
    await raises_async(NotFoundException, sbx.commands.stream_input(999_999).close())


@case
async def list_connect_disconnect_kill(sbx):
    script = "until [ -e /tmp/go-on ]; do sleep 0.05; done; echo went on; sleep 600"
    handle = await sbx.commands.run(script, background=True, timeout=0)
    assert await is_listed(sbx, handle.pid)
    await handle.disconnect()
    texts = []
    second = await sbx.commands.connect(handle.pid, timeout=0, on_stdout=texts.append)
    await sbx.files.write("/tmp/go-on", "")
    await until_async(lambda: "went on" in "".join(texts), "the output")
    assert await second.kill() is True
    await raises_async(CommandExitException, second.wait())
    await until_async(lambda: is_gone(sbx, handle.pid), "it to leave the list")
    assert await sbx.commands.kill(handle.pid) is False
    await raises_async(NotFoundException, sbx.commands.connect(999_999))


@case
async def pty(sbx):
    screen = bytearray()
    size = PtySize(rows=24, cols=80)
    handle = await sbx.pty.create(size, on_data=screen.extend, timeout=0)
    await sbx.pty.send_stdin(handle.pid, b"echo $((40+2)); stty size\n")
    await until_async(lambda: b"42" in screen and b"24 80" in screen, "the terminal")
    await sbx.pty.resize(handle.pid, PtySize(rows=30, cols=100))
    await sbx.pty.send_stdin(handle.pid, b"stty size\n")
    await until_async(lambda: b"30 100" in screen, "the new size")
    await handle.kill()


@case
async def pty_connect_continues_a_terminal(sbx):
    size = PtySize(rows=24, cols=80)
    first = await sbx.pty.create(size, on_data=lambda data: None, timeout=0)
    await first.disconnect()
    screen = bytearray()
    handle = await sbx.pty.connect(first.pid, on_data=screen.extend, timeout=0)
    if hasattr(sbx.pty, "stream_input"):
        async with sbx.pty.stream_input(handle.pid) as stream:
            await stream.send("echo still-$((1+1))")
            await stream.send(b"-here\n")
    else:
        await sbx.pty.send_stdin(handle.pid, b"echo still-$((1+1))-here\n")
    await until_async(lambda: b"still-2-here" in screen, "the output")
    assert await sbx.pty.kill(handle.pid) is True
    await until_async(lambda: is_gone(sbx, handle.pid), "it to leave the list")
    assert await sbx.pty.kill(handle.pid) is False


@case
async def many_sandboxes_at_once(_):
    made = await asyncio.gather(*(AsyncSandbox.create(timeout=60) for _ in range(5)))
    assert len({s.sandbox_id for s in made}) == 5
    assert all(await asyncio.gather(*(s.kill() for s in made)))


async def set_up():
    return await AsyncSandbox.create(timeout=300)


async def clean_up(sbx):
    await sbx.kill()


run_async(set_up, clean_up)
