"""A client of the WebSocket sandbox that behaves as those in the field do: it knows no extension,
remembers no cursor, and takes a process's life from the statuses alone."""

import asyncio
import json
import os

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL = os.environ["WOODFROG_WS_URL"]
HEADERS = {"X-API-Key": os.environ["WOODFROG_API_KEY"]}
FATAL = {
    "SANDBOX_" + name
    for name in (
        "ERROR NOT_FOUND CREATION_ERROR CHECKPOINT_ERROR RESTORE_ERROR DELETED IN_USE "
        "LOCK_RENEWAL_ERROR PERMISSION_DENIAL_ERROR"
    ).split()
}


class SandboxError(Exception):
    """What the server refused, with its reason."""


class Process:
    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.output = {"stdout": [], "stderr": []}
        self.started = asyncio.get_running_loop().create_future()
        self.done = asyncio.get_running_loop().create_future()
        self.killed = asyncio.get_running_loop().create_future()

    def status(self, name, frame):
        if name == "SANDBOX_EXECUTION_RUNNING":
            settle(self.started)
        elif name == "SANDBOX_EXECUTION_FORCE_KILLED":
            settle(self.killed)
        elif name == "SANDBOX_EXECUTION_DONE":
            settle(self.done, frame.get("exit_code"))
        else:
            fail(self.started, frame.get("message", name))

    @property
    def stdout(self):
        return "".join(self.output["stdout"])

    @property
    def stderr(self):
        return "".join(self.output["stderr"])

    async def wait(self):
        return await asyncio.wait_for(asyncio.shield(self.done), 60)

    async def write_to_stdin(self, data):
        await self.sandbox.send({"event": "stdin", "data": data})

    async def kill(self):
        await self.sandbox.send({"action": "kill_process"})
        await asyncio.wait_for(self.killed, 60)
        await asyncio.wait_for(asyncio.shield(self.done), 60)


def settle(future, value=None):
    if not future.done():
        future.set_result(value)


def fail(future, message):
    if not future.done():
        future.set_exception(SandboxError(message))


class Sandbox:
    def __init__(self, url, enable_auto_reconnect=False):
        self.url = url.rstrip("/")
        self.auto_reconnect = enable_auto_reconnect
        loop = asyncio.get_running_loop()
        self.ready, self.over = loop.create_future(), loop.create_future()
        self.statuses, self.process, self.cookie = [], None, None
        self.may_return, self.reconnects, self.wanted = False, 0, None
        self.on_output = None
        self.running = asyncio.Event()

    @classmethod
    async def create(cls, url, idle_timeout=60, enable_auto_reconnect=False, **flags):
        self = cls(url, enable_auto_reconnect)
        first = {"idle_timeout": idle_timeout}
        first.update({name: value for name, value in flags.items() if value})
        self.reader = asyncio.create_task(self.read("/create", first))
        return await self.opened()

    @classmethod
    async def attach(cls, url, sandbox_id, token, enable_auto_reconnect=False):
        self = cls(url, enable_auto_reconnect)
        self.sandbox_id, self.token = sandbox_id, token
        self.reader = asyncio.create_task(self.read(self.attach_path()))
        return await self.opened()

    def attach_path(self):
        return f"/attach/{self.sandbox_id}?sandbox_token={self.token}"

    async def opened(self):
        await asyncio.wait_for(asyncio.shield(self.ready), 60)
        return self

    async def read(self, path, first=None):
        while True:
            code = await self.connection(path, first)
            self.running.clear()
            if not (self.auto_reconnect and self.may_return):
                break
            self.reconnects += 1
            path, first = self.attach_path(), {"action": "reconnect"}
        fail(self.ready, f"closed ({code})")
        settle(self.over, code)

    async def connection(self, path, first):
        headers = dict(HEADERS, **({"Cookie": self.cookie} if self.cookie else {}))
        async with connect(self.url + path, additional_headers=headers) as self.socket:
            self.cookie = self.socket.response.headers.get("Set-Cookie", self.cookie)
            try:
                if first:
                    await self.socket.send(json.dumps(first))
                async for text in self.socket:
                    self.frame(json.loads(text))
            except ConnectionClosed:
                pass
        return self.socket.close_code

    def frame(self, frame):
        event = frame["event"]
        if event == "sandbox_id":
            self.sandbox_id, self.token = frame["sandbox_id"], frame["sandbox_token"]
        elif event in ("stdout", "stderr"):
            if self.process:
                self.process.output[event].append(frame["data"])
            if self.on_output:
                self.on_output(frame["data"])
        elif event == "status_update":
            self.status(frame["status"], frame)

    def status(self, name, frame):
        self.statuses.append(name.removeprefix("SANDBOX_"))
        routed = name.startswith("SANDBOX_EXECUTION_")
        if routed and name != "SANDBOX_EXECUTION_IN_PROGRESS_ERROR":
            if self.process:
                self.process.status(name, frame)
        elif name == "SANDBOX_RUNNING":
            self.may_return = True
            self.running.set()
            settle(self.ready)
        elif name in FATAL:
            self.may_return = False
            fail(self.ready, frame.get("message", name))
        if self.wanted and name.removeprefix("SANDBOX_") in self.wanted[0]:
            settle(self.wanted[1], frame)

    async def send(self, frame):
        await asyncio.wait_for(self.running.wait(), 60)
        await self.socket.send(json.dumps(frame))

    async def exec(self, language, code):
        self.process = Process(self)
        await self.send({"language": language, "code": code})
        await asyncio.wait_for(asyncio.shield(self.process.started), 60)
        return self.process

    async def run(self, language, code):
        process = await self.exec(language, code)
        code = await process.wait()
        return process.stdout, process.stderr, code

    async def act(self, frame, good, *bad):
        answer = asyncio.get_running_loop().create_future()
        self.wanted = ((good, *bad), answer)
        await self.send(frame)
        said = await asyncio.wait_for(answer, 60)
        if said["status"] != "SANDBOX_" + good:
            raise SandboxError(said.get("message", said["status"]))

    async def checkpoint(self):
        bad = ("CHECKPOINT_ERROR", "EXECUTION_IN_PROGRESS_ERROR")
        await self.act({"action": "checkpoint"}, "CHECKPOINTED", *bad)
        assert await self.closed() == 1000

    async def snapshot_filesystem(self, name):
        frame = {"action": "snapshot_filesystem", "name": name}
        await self.act(frame, "FILESYSTEM_SNAPSHOT_CREATED", "FILESYSTEM_SNAPSHOT_ERROR")

    async def kill(self):
        self.may_return = False
        await self.act({"action": "kill_sandbox"}, "KILLED", "KILL_ERROR")
        assert await self.closed() == 1000

    async def closed(self):
        return await asyncio.wait_for(asyncio.shield(self.over), 60)

    async def leave(self):
        self.may_return = False
        await self.socket.close()
        await self.closed()


async def refused(awaitable, *words):
    """What is refused says why."""
    try:
        await awaitable
    except SandboxError as error:
        assert any(word in str(error) for word in words), error
        return
    raise AssertionError("it was not refused")
