"""The life of a sandbox through the synchronous SDK."""

import os
import time
import datetime

from e2b import NotFoundException, Sandbox, SandboxQuery, SandboxState

from _check import case, raises, run, until

TAG = f"py-{os.getpid()}-{time.time_ns()}"


@case
def create_gives_a_usable_sandbox():
    sbx = Sandbox.create(
        "base", timeout=120, metadata={"tag": TAG, "with space": "a b&c=d"}, envs={"GREETING": "hello"}
    )
    try:
        assert sbx.commands.run("echo $GREETING").stdout == "hello\n"
        assert sbx.commands.run("whoami; pwd").stdout == "user\n/home/user\n"
        assert sbx.commands.run("sudo -n whoami").stdout == "root\n"
        info = sbx.get_info()
        assert info.metadata["with space"] == "a b&c=d"
        assert info.state == SandboxState.RUNNING
        assert sbx.is_running()
    finally:
        assert sbx.kill() is True
    assert sbx.kill() is False
    assert sbx.is_running() is False


@case
def connect_only_extends():
    first = Sandbox.create(timeout=300)
    first.files.write("state.txt", "kept")
    before = first.get_info().end_at
    second = Sandbox.connect(first.sandbox_id, timeout=10)
    assert second.files.read("state.txt") == "kept"
    assert second.get_info().end_at >= before
    Sandbox.connect(first.sandbox_id, timeout=600)
    assert second.get_info().end_at > before
    second.kill()
    raises(NotFoundException, lambda: Sandbox.connect(first.sandbox_id))


@case
def a_timeout_ends_it():
    with Sandbox.create(timeout=300) as sbx:
        sbx.set_timeout(10)
        until(lambda: not sbx.is_running(), "expiry")
        raises(NotFoundException, sbx.get_info)


@case
def lists_page_and_filter():
    made = [
        Sandbox.create(metadata={"tag": TAG, "list": "yes", "number": n}, timeout=60) for n in "123"
    ]
    try:
        paginator = Sandbox.list(query=SandboxQuery(metadata={"tag": TAG, "list": "yes"}), limit=1)
        seen = []
        while paginator.has_next:
            seen.extend(paginator.next_items())
        assert [item.metadata["number"] for item in seen] == ["3", "2", "1"], seen
        both = [SandboxState.RUNNING, SandboxState.PAUSED]
        query = SandboxQuery(metadata={"tag": TAG, "number": "2"}, state=both)
        assert [i.sandbox_id for i in Sandbox.list(query=query).next_items()] == [made[1].sandbox_id]
        paused = SandboxQuery(metadata={"tag": TAG}, state=[SandboxState.PAUSED])
        assert Sandbox.list(query=paused).next_items() == []
    finally:
        for sbx in made:
            sbx.kill()


@case
def metrics_appear():
    with Sandbox.create(timeout=120) as sbx:
        metrics = until(sbx.get_metrics, "metrics", 30)
        assert metrics[0].cpu_count >= 1
        assert 0 < metrics[0].mem_used <= metrics[0].mem_total
        old = datetime.datetime.now() - datetime.timedelta(hours=2)
        assert sbx.get_metrics(start=old, end=old + datetime.timedelta(minutes=5)) == []


@case
def unknown_things_are_not_found():
    assert "not found" in str(raises(Exception, lambda: Sandbox.create("no-such-template-here")))
    raises(NotFoundException, lambda: Sandbox.connect("inosuchsandboxatall"))
    assert Sandbox.kill("inosuchsandboxatall") is False


@case
def network_options():
    with Sandbox.create(timeout=60, allow_internet_access=False) as sbx:
        assert sbx.commands.run("echo works").stdout == "works\n"
    raises(Exception, lambda: Sandbox.create(network={"deny_out": ["not-an-address"]}))


@case
def network_rules_and_proxies():
    def rules(headers):
        return {"rules": {"api.egress.test": [{"transform": {"headers": headers}}]}}

    with Sandbox.create(timeout=60, network=rules({"X-Key": "secret-1"})) as sbx:
        told = str(sbx.get_info().network)
        assert "api.egress.test" in told and "secret-1" not in told, told
        trusted = "python3 -c 'import ssl; c = ssl.create_default_context(); print([x for x in c.get_ca_certs() if \"egress\" in str(x)] != [])'"
        assert sbx.commands.run(trusted).stdout == "True\n"
    refused = raises(Exception, lambda: Sandbox.create(network=rules({"a b": "c"})))
    assert "network.rules.api.egress.test" in str(refused), refused
    proxy = {"address": "203.0.113.5:1080", "username": "ann", "password": "secret-2", "tls": True}
    with Sandbox.create(timeout=60, network={"egress_proxy": proxy}) as sbx:
        told = str(sbx.get_info().network)
        assert "203.0.113.5:1080" in told and "secret-2" not in told, told
    for address in ["127.0.0.1:1080", "169.254.169.254:80", "10.0.0.1:1080", "nonsense"]:
        network = {"egress_proxy": {"address": address}}
        refused = raises(Exception, lambda: Sandbox.create(network=network))
        assert "network.egressProxy" in str(refused), refused


run()
