"""Code in both languages, its outputs apart, and what is refused."""

import asyncio

from _client import URL, Sandbox, refused


async def main():
    sandbox = await Sandbox.create(URL + "/", idle_timeout=120)
    assert sandbox.statuses == ["CREATING", "RUNNING"], sandbox.statuses
    code = 'import sys\nprint("grüße 🐸")\nprint("no", file=sys.stderr)'
    assert await sandbox.run("python", code) == ("grüße 🐸\n", "no\n", 0)
    assert await sandbox.run("bash", "echo $((6 * 7)); exit 3") == ("42\n", "", 3)
    out, _, _ = await sandbox.run("python", 'print("a" * 1023 + "é" * 5000)')
    assert out == "a" * 1023 + "é" * 5000 + "\n"
    out, _, _ = await sandbox.run("bash", "seq 1 300000")
    assert out == "".join(f"{number}\n" for number in range(1, 300001))
    await refused(sandbox.exec("ruby", "puts 1"), "Unsupported language: 'ruby'")
    await sandbox.kill()
    assert sandbox.statuses[-4:] == ["KILLING", "DELETING", "DELETED", "KILLED"]
    flags = {"enable_sandbox_handoff": True}
    await refused(Sandbox.create(URL, **flags), "requires checkpointing to be enabled")


asyncio.run(main())
