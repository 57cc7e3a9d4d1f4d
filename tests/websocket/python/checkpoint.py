"""Checkpoints on demand and by idleness: files, memory and processes come back."""

import asyncio

from _client import URL, Sandbox, refused

COUNTER = """
import os, time
i = 0
while True:
    i += 1
    open("/tmp/next", "w").write(str(i))
    os.replace("/tmp/next", "/tmp/count")
    time.sleep(0.02)
"""


async def count(sandbox):
    code = "until [ -e /tmp/count ]; do sleep 0.05; done; cat /tmp/count"
    return int((await sandbox.run("bash", code))[0])


async def main():
    sandbox = await Sandbox.create(URL, idle_timeout=300, enable_checkpoint=True)
    name = (sandbox.sandbox_id, sandbox.token)
    background = "setsid -f python3 /tmp/counter.py >/dev/null 2>&1 </dev/null; echo file > ~/file"
    await sandbox.run("bash", f"cat > /tmp/counter.py <<'END'\n{COUNTER}END\n{background}")
    before = await count(sandbox)
    busy = await sandbox.exec("bash", "read line; echo $line")
    await refused(sandbox.checkpoint(), "in progress")
    await busy.write_to_stdin("still here\n")
    await busy.wait()
    assert busy.stdout == "still here\n"
    for _ in range(5):
        await sandbox.checkpoint()
        wanted = ["CHECKPOINTING", "DELETING", "DELETED", "CHECKPOINTED"]
        assert sandbox.statuses[-4:] == wanted, sandbox.statuses
        sandbox = await Sandbox.attach(URL, *name)
        assert sandbox.statuses == ["RESTORING", "RUNNING"], sandbox.statuses
        now = await count(sandbox)
        assert now >= before > 0, (now, before)
        before = now
        looked = await sandbox.run("bash", "cat ~/file; pgrep -fc ^python3./tmp/counter")
        assert looked[0] == "file\n1\n", looked
    await sandbox.kill()

    auto = await Sandbox.create(
        URL, idle_timeout=5, enable_checkpoint=True, enable_idle_timeout_auto_checkpoint=True
    )
    assert await auto.closed() == 1000
    assert auto.statuses[-1] == "CHECKPOINTED", auto.statuses
    back = await Sandbox.attach(URL, auto.sandbox_id, auto.token)
    await back.kill()


asyncio.run(main())
