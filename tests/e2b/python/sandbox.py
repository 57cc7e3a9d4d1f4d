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
def lists_go_oldest_first_start_at_a_time_and_are_of_one_template():
    made = [
        Sandbox.create(metadata={"tag": TAG, "order": "yes", "number": n}, timeout=300) for n in "123"
    ]

    def numbers(query=None, **opts):
        query = SandboxQuery(metadata={"tag": TAG, "order": "yes"}, **(query or {}))
        paginator, seen = Sandbox.list(query=query, order="asc", **opts), []
        while paginator.has_next:
            seen.extend(paginator.next_items())
        return [item.metadata["number"] for item in seen]

    try:
        assert numbers() == ["1", "2", "3"]
        assert numbers(limit=2) == ["1", "2", "3"]
        started = made[1].get_info().started_at
        assert numbers({"started_after": started}) == ["2", "3"]
        assert numbers({"template": "base"}) == ["1", "2", "3"]
        assert numbers({"template": "no-such-template-here"}) == []
        query = SandboxQuery(metadata={"tag": TAG, "order": "yes"})
        first = Sandbox.list(query=query, order="asc", limit=1)
        first.next_items()
        assert numbers(next_token=first.next_token) == ["2", "3"]
    finally:
        for sbx in made:
            sbx.kill()


@case
def static_methods_work_by_id():
    with Sandbox.create(timeout=60) as sbx:
        Sandbox.set_timeout(sbx.sandbox_id, 300)
        info = Sandbox.get_info(sbx.sandbox_id)
        left = info.end_at - datetime.datetime.now(datetime.timezone.utc)
        assert left.total_seconds() > 100, left
        assert until(lambda: Sandbox.get_metrics(sbx.sandbox_id), "metrics")[0].cpu_count >= 1
        assert Sandbox.kill(sbx.sandbox_id) is True
        assert Sandbox.kill(sbx.sandbox_id) is False


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
    raises(NotFoundException, lambda: Sandbox.get_info("inosuchsandboxatall"))
    raises(NotFoundException, lambda: Sandbox.get_metrics("inosuchsandboxatall"))
    raises(NotFoundException, lambda: Sandbox.set_timeout("inosuchsandboxatall", 60))
    raises(NotFoundException, lambda: Sandbox.update_network("inosuchsandboxatall", {}))
    assert Sandbox.kill("inosuchsandboxatall") is False


@case
def network_options():
    with Sandbox.create(timeout=60, allow_internet_access=False) as sbx:
        assert sbx.commands.run("echo works").stdout == "works\n"
    raises(Exception, lambda: Sandbox.create(network={"deny_out": ["not-an-address"]}))


@case
def network_rules_are_replaced():
    with Sandbox.create(timeout=300) as sbx:
        sbx.update_network({"allow_out": ["203.0.113.7"], "deny_out": ["0.0.0.0/0"]})
        told = str(sbx.get_info().network)
        assert "203.0.113.7" in told and "0.0.0.0/0" in told, told
        Sandbox.update_network(sbx.sandbox_id, {"deny_out": ["198.51.100.0/24"]})
        told = str(sbx.get_info().network)
        assert "198.51.100.0/24" in told and "203.0.113.7" not in told, told
        raises(Exception, lambda: sbx.update_network({"deny_out": ["not-an-address"]}))
        assert str(sbx.get_info().network) == told
        rules = {"api.egress.test": [{"transform": {"headers": {"X-Key": "secret-3"}}}]}
        sbx.update_network({"rules": rules})
        told = str(sbx.get_info().network)
        assert "api.egress.test" in told and "secret-3" not in told, told
        sbx.update_network({"allow_internet_access": False})
        sbx.update_network({})
        told = str(sbx.get_info().network)
        assert "egress.test" not in told and "198.51" not in told, told
        assert sbx.commands.run("echo works").stdout == "works\n"


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
