"""Pause, resume, automatic pause and resume, snapshots and forks through the synchronous SDK."""

import os
import re
import time
import datetime
import contextlib

from e2b import NotFoundException, Sandbox, SandboxQuery, SandboxState

from _check import case, raises, run, until
from _http import get

TAG = f"py-sleep-{os.getpid()}-{time.time_ns()}"
COUNTER = "i=0; while true; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done"


@contextlib.contextmanager
def sandbox(**opts):
    """A sandbox for one case, gone after it."""
    sbx = Sandbox.create("base", **{"timeout": 300, **opts})
    try:
        yield sbx
    finally:
        Sandbox.kill(sbx.sandbox_id)


def mark(sbx):
    """Something that lives as long as the sandbox's memory does."""
    pid = sbx.commands.run("sleep 100000", background=True).pid
    # A shell came first, which reads its profile.
    until(lambda: remembers(sbx, pid), "the process")
    return pid


def remembers(sbx, pid):
    seen = sbx.commands.run('pgrep -fx "sleep 100000" || true').stdout
    return str(pid) in seen.split()


def expire(sbx):
    """Its time is over soon: whatever must be ready is ready."""
    sbx.set_timeout(1)
    until(lambda: not sbx.is_running(), "the pause")


def count(sbx):
    if not sbx.files.exists("/tmp/count"):
        return 0
    text = sbx.files.read("/tmp/count").strip()
    return int(text) if re.fullmatch(r"\d+", text) else 0


def pids(sbx):
    return [process.pid for process in sbx.commands.list()]


@case
def a_paused_sandbox_resumes_with_its_processes():
    with sandbox(metadata={"tag": TAG}) as sbx:
        sbx.files.write("state.txt", "kept")
        handle = sbx.commands.run(COUNTER, background=True)
        until(lambda: count(sbx) > 3, "the counter")
        before = count(sbx)
        assert sbx.pause() is True
        assert sbx.is_running() is False
        assert sbx.pause() is False
        assert Sandbox.get_info(sbx.sandbox_id).state == SandboxState.PAUSED

        def listed(*state):
            query = SandboxQuery(metadata={"tag": TAG}, state=list(state))
            return [item.sandbox_id for item in Sandbox.list(query=query).next_items()]

        assert listed(SandboxState.PAUSED) == [sbx.sandbox_id]
        assert listed(SandboxState.RUNNING) == []
        assert listed(SandboxState.RUNNING, SandboxState.PAUSED) == [sbx.sandbox_id]
        again = Sandbox.connect(sbx.sandbox_id, timeout=120)
        assert again.sandbox_id == sbx.sandbox_id
        assert sbx.is_running() is True
        assert sbx.files.read("state.txt") == "kept"
        assert handle.pid in pids(sbx)
        until(lambda: count(sbx) > before, "the counter to go on")
        assert again.commands.connect(handle.pid).kill() is True


@case
def files_survive_several_rounds():
    with sandbox() as sbx:
        for number in range(4):
            sbx.files.write(f"round-{number}", f"written in round {number}")
            assert sbx.pause() is True
            sbx.connect()
            for past in range(number + 1):
                assert sbx.files.read(f"round-{past}") == f"written in round {past}"


@case
def a_server_inside_answers_again():
    with sandbox() as sbx:
        sbx.files.write("www/index.html", "served from inside")
        sbx.commands.run("python3 -m http.server 8000 --directory www", background=True)
        until(lambda: get(sbx, 8000) == (200, "served from inside"), "the server")
        sbx.pause()
        status, body = get(sbx, 8000)
        assert status == 502 and "was not found" in body, (status, body)
        sbx.connect()
        until(lambda: get(sbx, 8000) == (200, "served from inside"), "the server after the resume")


@case
def a_pause_of_the_files_alone_boots_anew():
    with sandbox() as sbx:
        sbx.files.write("kept.txt", "kept")
        before = mark(sbx)
        assert sbx.pause(keep_memory=False) is True
        sbx.connect()
        assert not remembers(sbx, before)
        assert sbx.files.read("kept.txt") == "kept"
        kept = mark(sbx)
        assert sbx.beta_pause() is True
        sbx.connect()
        assert remembers(sbx, kept)


@case
def a_timeout_pauses_and_a_request_resumes():
    lifecycle = {"on_timeout": "pause", "auto_resume": True}
    with sandbox(lifecycle=lifecycle) as sbx:
        sbx.files.write("www/index.html", "woken")
        sbx.commands.run("python3 -m http.server 8000 --directory www", background=True)
        until(lambda: get(sbx, 8000) == (200, "woken"), "the server")
        expire(sbx)
        assert Sandbox.get_info(sbx.sandbox_id).state == SandboxState.PAUSED
        assert get(sbx, 8000) == (200, "woken")
        info = sbx.get_info()
        assert info.state == SandboxState.RUNNING
        left = info.end_at - datetime.datetime.now(datetime.timezone.utc)
        assert left.total_seconds() > 250, left


@case
def a_timeout_pauses_and_a_request_does_not_resume():
    with sandbox(lifecycle={"on_timeout": "pause"}) as sbx:
        sbx.files.write("kept.txt", "kept")
        expire(sbx)
        assert get(sbx, 8000)[0] == 502
        raises(Exception, lambda: sbx.files.read("kept.txt"))
        again = Sandbox.connect(sbx.sandbox_id, timeout=60)
        assert again.files.read("kept.txt") == "kept"


@case
def a_paused_sandbox_is_killed_once():
    sbx = Sandbox.create(timeout=60)
    sbx.pause()
    assert Sandbox.kill(sbx.sandbox_id) is True
    assert Sandbox.kill(sbx.sandbox_id) is False
    raises(NotFoundException, lambda: Sandbox.connect(sbx.sandbox_id))


@case
def snapshots_are_started_from_and_deleted_once():
    with sandbox() as sbx:
        sbx.files.write("state.txt", "of the snapshot")
        snapshot = sbx.create_snapshot()
        sbx.files.write("state.txt", "of later")
        listed = sbx.list_snapshots().next_items()
        assert [item.snapshot_id for item in listed] == [snapshot.snapshot_id]
        with Sandbox.create(snapshot.snapshot_id, timeout=60) as copy:
            assert copy.sandbox_id != sbx.sandbox_id
            assert copy.files.read("state.txt") == "of the snapshot"
            assert sbx.files.read("state.txt") == "of later"
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is False


@case
def forks_have_the_memory_and_are_independent():
    with sandbox() as sbx:
        handle = sbx.commands.run(COUNTER, background=True)
        until(lambda: count(sbx) > 3, "the counter")
        sbx.files.write("who.txt", "source")
        forks = sbx.fork(count=2, timeout=60)
        try:
            assert len(forks) == 2
            for number, fork in enumerate(forks):
                if isinstance(fork, BaseException):
                    raise fork
                assert fork.files.read("who.txt") == "source"
                fork.files.write("who.txt", f"fork {number}")
                assert handle.pid in pids(fork)
                before = count(fork)
                until(lambda: count(fork) > before, "the counter of a fork")
            assert sbx.files.read("who.txt") == "source"
            assert forks[0].files.read("who.txt") == "fork 0"
        finally:
            for fork in forks:
                if not isinstance(fork, BaseException):
                    fork.kill()
        assert sbx.is_running() is True


@case
def pauses_snapshots_and_forks_work_by_id():
    with sandbox() as sbx:
        sandbox_id = sbx.sandbox_id
        sbx.files.write("state.txt", "kept")
        assert Sandbox.pause(sandbox_id) is True
        assert Sandbox.pause(sandbox_id) is False
        assert Sandbox.beta_pause(sandbox_id) is False
        assert Sandbox.get_info(sandbox_id).state == SandboxState.PAUSED
        Sandbox.connect(sandbox_id, timeout=300)
        name = f"by-id-{os.getpid()}-{time.time_ns()}"
        snapshot = Sandbox.create_snapshot(sandbox_id, name=name)
        assert any(full.endswith(f"/{name}:default") for full in snapshot.names), snapshot.names
        for query in [{"sandbox_id": sandbox_id}, {"name": name}, {"sandbox_id": sandbox_id, "limit": 1}]:
            listed = Sandbox.list_snapshots(**query).next_items()
            assert [item.snapshot_id for item in listed] == [snapshot.snapshot_id]
        assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
        for fork in Sandbox.fork(sandbox_id, count=1, timeout=300):
            if isinstance(fork, BaseException):
                raise fork
            with fork:
                assert fork.files.read("state.txt") == "kept"
    unknown = "inosuchsandboxatall"
    raises(NotFoundException, lambda: Sandbox.pause(unknown))
    raises(NotFoundException, lambda: Sandbox.create_snapshot(unknown))
    raises(NotFoundException, lambda: Sandbox.fork(unknown))


run()
