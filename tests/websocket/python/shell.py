"""A shell that is typed into, and ends when it is told to."""

import asyncio

from _client import URL, Sandbox


async def main():
    sandbox = await Sandbox.create(URL)
    shell = await sandbox.exec("bash", 'while read -r line; do eval "$line"; done')
    for number in range(100):
        await shell.write_to_stdin(f"echo line {number}\n")
    await shell.write_to_stdin("cd /tmp\npwd\nexit 0\n")
    assert await shell.wait() == 0
    wanted = "".join(f"line {number}\n" for number in range(100)) + "/tmp\n"
    assert shell.stdout == wanted, shell.stdout
    asked = await sandbox.exec("python", 'name = input("who? ")\nprint("hello", name)')
    await asked.write_to_stdin("frog\n")
    await asked.wait()
    assert asked.stdout == "who? hello frog\n", asked.stdout
    stuck = await sandbox.exec("bash", "sleep 1000")
    await stuck.kill()
    assert (await sandbox.run("bash", "echo free"))[0] == "free\n"
    await sandbox.kill()


asyncio.run(main())
