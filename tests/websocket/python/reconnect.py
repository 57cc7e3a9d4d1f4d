"""Connections that break: nothing of the output is lost, nothing comes twice."""

import asyncio

from _client import URL, Sandbox

CUTS = 20
# Enough that there are more messages than cuts, however many lines go into one.
LINES = 1_000_000


async def all_cuts(sandbox):
    while sandbox.reconnects < CUTS:
        assert not sandbox.reader.done(), sandbox.statuses[-1]
        await asyncio.sleep(0.005)


async def main():
    sandbox = await Sandbox.create(URL, enable_auto_reconnect=True)
    seen = 0

    def cut(data):
        nonlocal seen
        seen += len(data)
        if sandbox.reconnects < CUTS and seen > (sandbox.reconnects + 1) * 20_000:
            sandbox.socket.transport.abort()

    code = (
        "for i in $(seq 1 20000); do echo $i; done; "
        f"seq 20001 {LINES}; read x; echo got $x; exit 4"
    )
    process = await sandbox.exec("bash", code)
    sandbox.on_output = cut
    await asyncio.wait_for(all_cuts(sandbox), 60)
    await process.write_to_stdin("it\n")
    assert await process.wait() == 4
    wanted = "".join(f"{number}\n" for number in range(1, LINES + 1)) + "got it\n"
    assert process.stdout == wanted, "the output is not what was printed"
    await sandbox.kill()


asyncio.run(main())
