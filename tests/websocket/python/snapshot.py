"""A snapshot of the files, and a sandbox made from it."""

import asyncio
import os
import time

from _client import URL, Sandbox, refused


async def main():
    name = f"py-{os.getpid()}-{time.time_ns()}"
    first = await Sandbox.create(URL)
    await first.run("bash", "echo hello > ~/file")
    await first.snapshot_filesystem(name)
    await refused(first.snapshot_filesystem("../x"), "no name of a snapshot")
    await refused(first.snapshot_filesystem(name), "exists already")
    assert (await first.run("bash", "echo changed > ~/file; echo ok"))[0] == "ok\n"
    second = await Sandbox.create(URL, filesystem_snapshot_name=name)
    assert (await second.run("bash", "cat ~/file"))[0] == "hello\n"
    await first.kill()
    await second.kill()
    await refused(Sandbox.create(URL, filesystem_snapshot_name=name + "-not"), "not found")


asyncio.run(main())
