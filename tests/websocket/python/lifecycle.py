"""A sandbox outlives its client, belongs to one client at a time, and to who has its token."""

import asyncio

from _client import URL, Sandbox, refused


async def main():
    first = await Sandbox.create(URL)
    name = (first.sandbox_id, first.token)
    await first.run("bash", "echo kept > ~/file")
    await refused(Sandbox.attach(URL, *name), "Another client is attached")
    await refused(Sandbox.attach(URL, name[0], "wrong"), "Invalid sandbox token")
    await first.leave()
    second = await Sandbox.attach(URL, *name)
    assert (await second.run("bash", "cat ~/file"))[0] == "kept\n"
    await second.kill()
    await refused(Sandbox.attach(URL, *name), "doesn't exist", "NOT_FOUND")
    idle = await Sandbox.create(URL, idle_timeout=5)
    assert (await idle.run("bash", "sleep 8; echo done"))[0] == "done\n"
    assert await idle.closed() == 1000
    assert idle.statuses[-2:] == ["DELETING", "DELETED"], idle.statuses


asyncio.run(main())
