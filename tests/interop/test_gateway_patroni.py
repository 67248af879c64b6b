"""Patroni on pyetcd, which it knows only through the JSON gateway: what it asks, and a real one with
PostgreSQL."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_streams import Lines
from patroni_nodes import Nodes, eventually, what_is_missing
from servers import Etcd, GoEtcd, Server

PREFIX = "/service/demo/"
LEADER = PREFIX + "leader"
MEMBER = PREFIX + "members/one"
REAL_SECONDS = 600


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Gateway:
    """A client as Patroni's: one kept connection, JSON, integers as the strings they came as."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)

    def ask(self, path: str, body: object) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": "Patroni"}
        self._connection.request("POST", "/v3" + path, json.dumps(body), headers)
        answer: dict[str, Any] = json.loads(self._connection.getresponse().read())
        return answer

    def version(self) -> str:
        self._connection.request("GET", "/version")
        answer: dict[str, str] = json.loads(self._connection.getresponse().read())
        return answer["etcdserver"]

    def put_if(self, key: str, value: str, lease: str, **compare: str) -> dict[str, Any]:
        target = "CREATE" if "create_revision" in compare else "MOD"
        fields = {"key": b64(key), "value": b64(value), "lease": lease}
        condition = {"target": target, "key": fields["key"], **compare}
        return self.ask("/kv/txn", {"compare": [condition], "success": [{"request_put": fields}]})

    def close(self) -> None:
        self._connection.close()


def told(answer: dict[str, Any], base: int) -> dict[str, Any]:
    """Without what two clusters differ in; revisions counted from `base`."""

    def masked(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            hidden = ("cluster_id", "member_id", "raft_term", "ID", "lease")
            return {key: "_" if key in hidden else masked(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [masked(each) for each in value]
        return str(int(value) - base) if name.endswith("revision") else value

    found: dict[str, Any] = masked(answer)
    return found


def a_leaders_life(server: Server) -> list[Any]:
    """What a Patroni asks from its start until it has let go of the lock."""
    gateway = Gateway(server)
    assert gateway.version() == "3.7.1"
    (member,) = gateway.ask("/cluster/member/list", {})["members"]
    assert member["clientURLs"] == [server.client_url]
    everything = {"key": b64(PREFIX), "range_end": b64(PREFIX[:-1] + "0")}
    story: list[Any] = [gateway.ask("/kv/range", {**everything, "serializable": True})]
    since = story[0]["header"]["revision"]
    lease = gateway.ask("/lease/grant", {"TTL": 30})["ID"]
    assert isinstance(lease, str)
    with Lines(server, "/v3/watch", watch_body(everything, since)) as watch:
        story.append(watch.next())
        story.append(gateway.put_if(PREFIX + "initialize", "7", lease, create_revision="0"))
        story.append(gateway.ask("/kv/put", {"key": b64(MEMBER), "value": b64("{}"), "lease": lease}))
        story.append(gateway.put_if(LEADER, "one", lease, create_revision="0"))
        story.append(gateway.put_if(LEADER, "two", lease, create_revision="0"))
        story.append(events_of(watch, 3))
        story.append(gateway.ask("/lease/keepalive", {"ID": lease}))
        kept = gateway.ask("/kv/range", everything)
        story.append(kept)
        story.append(gateway.put_if(LEADER, "one", lease, mod_revision=kept["kvs"][1]["mod_revision"]))
        story.append(watch.next())
        story.append(gateway.ask("/kv/deleterange", {"key": b64(LEADER)}))
        story.append(watch.next())
        story.append(gateway.ask("/lease/revoke", {"ID": lease}))
        story.append(watch.next())
    story.append(gateway.ask("/lease/keepalive", {"ID": lease}))
    story.append(gateway.ask("/lease/revoke", {"ID": lease}))
    story.append(gateway.ask("/kv/range", everything))
    gateway.close()
    base = int(since)
    return [told(answer, base) for answer in story]


def events_of(watch: Lines, count: int) -> dict[str, Any]:
    """So many, in however many messages they come."""
    events: list[Any] = []
    while len(events) < count:
        message = watch.next()
        assert message is not None
        events += message["result"].get("events", ())
    return {"events": events}


def watch_body(everything: dict[str, str], since: str) -> bytes:
    return json.dumps({"create_request": {**everything, "start_revision": since, "filters": []}}).encode()


def test_what_patroni_asks_is_answered_as_by_real_etcd(goetcd: Path, tmp_path: Path) -> None:
    stories = []
    for name in ("go", "ours"):
        directory = tmp_path / name
        directory.mkdir()
        server: Server = GoEtcd(goetcd, directory) if name == "go" else Etcd(directory)
        try:
            stories.append(a_leaders_life(server))
        finally:
            server.close()
    assert stories[1] == stories[0]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    server = Etcd(tmp_path)
    yield server
    server.close()


@pytest.fixture
def nodes(etcd: Etcd) -> Iterator[Nodes]:
    made = Nodes(f"127.0.0.1:{etcd.port}")
    yield made
    made.close()


def lock_holder(etcd: Etcd) -> str:
    kvs = etcd.range(LEADER.encode()).kvs
    return kvs[0].value.decode() if kvs else ""


@pytest.mark.timeout(REAL_SECONDS)
@pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "-")
def test_a_real_patroni_elects_a_leader_and_fails_over(etcd: Etcd, nodes: Nodes) -> None:
    first = nodes.leading()
    second = nodes.other(first)
    assert lock_holder(etcd) == first.name
    first.sql("create table kept (x int); insert into kept values (1)")
    eventually("the table is not replicated", lambda: second.sql("select to_regclass('kept')") == "kept")

    first.kill()
    eventually("nobody takes over from a leader that is killed", second.leads)
    assert lock_holder(etcd) == second.name
    second.sql("insert into kept values (2)")

    first.start()
    assert nodes.leading() is second
    rows = "select sum(x) from kept"
    eventually("the old leader does not follow", lambda: first.sql(rows) == "3")

    etcd.restart()
    eventually("no leader after a restart of etcd", lambda: nodes.leading() in (first, second))

    leader = nodes.leading()
    heir = nodes.other(leader)
    leader.stop()
    eventually("nobody takes over from a leader that stops", heir.leads)
    assert lock_holder(etcd) == heir.name
    assert heir.sql(rows) == "3"
