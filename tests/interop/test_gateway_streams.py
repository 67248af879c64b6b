"""Streams of the JSON gateway: watches and keep-alives over plain HTTP and websockets, beside real etcd's."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gateway_streams import ACCEPT, Lines, Socket
from gateway_twins import comparable
from servers import Etcd, GoEtcd, Server
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

WAIT_SECONDS = 10
REVISION = re.compile(r'("(?:(?:|create_|mod_)revision|rev)":)"([0-9]+)"')


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def watch(key: bytes, **more: object) -> str:
    return json.dumps({"create_request": {"key": b64(key), **more}})


def gauge(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"{server.client_url}/metrics", timeout=20) as response:
        for line in response.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
    raise AssertionError(f"no {name}")


def eventually(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < until


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    server = Etcd(tmp_path_factory.mktemp("ours"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def servers(
    ours: Etcd, goetcd: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GoEtcd, Etcd]]:
    go = GoEtcd(goetcd, tmp_path_factory.mktemp("go"))
    yield go, ours
    go.close()


def same(servers: tuple[Server, Server], story: Callable[[Server], list[Any]]) -> list[Any]:
    """The same story on both, told alike; revisions begin where the server is."""
    told = []
    for server in servers:
        base = server.range(b"none").header.revision
        text = comparable(json.dumps(story(server), separators=(",", ":")).encode()).decode()
        told.append(REVISION.sub(partial(_since, base), text))
    assert told[1] == told[0]
    parsed: list[Any] = json.loads(told[1])
    return parsed


def _since(base: int, match: re.Match[str]) -> str:
    return f'{match[1]}"{int(match[2]) - base}"'


def test_a_watch_tells_of_its_creation_and_of_events_as_real_etcds_does(
    servers: tuple[Server, Server],
) -> None:
    def story(server: Server) -> list[Any]:
        body = watch(b"k", range_end=b64(b"l"), prev_kv=True).encode()
        with Lines(server, "/v3/watch", body) as lines:
            told: list[Any] = [lines.next()]
            server.put(b"k1", b"<1>")
            told.append(lines.next())
            server.put(b"k1", b"2")
            told.append(lines.next())
            told.append([lines.response.status, lines.response.getheader("Content-Type")])
        return told

    told = same(servers, story)
    assert told[0]["result"]["created"] is True
    assert told[2]["result"]["events"][0]["prev_kv"]["value"] == b64(b"<1>")


def test_one_request_may_make_several_watchers_and_cancel_them(servers: tuple[Server, Server]) -> None:
    def story(server: Server) -> list[Any]:
        body = (
            watch(b"m", watch_id=3) + watch(b"m", filters=["NOPUT"]) + '{"cancel_request":{"watch_id":"3"}}'
        )
        with Lines(server, "/v3/watch", body.encode()) as lines:
            return [lines.next() for _ in range(3)]

    assert same(servers, story)[2]["result"]["canceled"] is True


def test_a_watch_of_what_is_compacted_is_refused_in_the_stream(servers: tuple[Server, Server]) -> None:
    def story(server: Server) -> list[Any]:
        with Lines(server, "/v3/watch", watch(b"m", start_revision=-5).encode()) as lines:
            return [lines.next()]

    assert "compacted" in same(servers, story)[0]["result"]["cancel_reason"]


def test_a_deadline_ends_a_watch_with_an_error_line(servers: tuple[Server, Server]) -> None:
    """Real etcd's words are its deadline's or the stream's end's, whichever its gateway hears of first."""
    for server in servers:
        with Lines(server, "/v3/watch", watch(b"m").encode(), {"Grpc-Timeout": "300m"}) as lines:
            created, late, end = lines.next(), lines.next(), lines.next()
        assert created is not None
        assert created["result"]["created"] is True
        assert late is not None
        assert late["error"]["code"] == 4
        if isinstance(server, Etcd):
            assert late["error"]["message"] == "context deadline exceeded"
        assert end is None


def test_what_is_no_json_ends_what_a_client_says_but_not_its_watch(servers: tuple[Server, Server]) -> None:
    def story(server: Server) -> list[Any]:
        with Lines(server, "/v3/watch", watch(b"n").encode() + b"{x}" + watch(b"n").encode()) as lines:
            told: list[Any] = [lines.next()]
            server.put(b"n", b"1")
            return [*told, lines.next()]

    assert len(same(servers, story)[1]["result"]["events"]) == 1


def test_a_client_that_goes_away_leaves_no_watcher_behind(ours: Etcd) -> None:
    watchers = "etcd_debugging_mvcc_watcher_total"
    before = gauge(ours, watchers)
    lines = Lines(ours, "/v3/watch", watch(b"q").encode())
    lines.next()
    assert gauge(ours, watchers) == before + 1
    lines.close()
    eventually(lambda: gauge(ours, watchers) == before)


def test_a_client_that_does_not_read_gets_every_event_in_the_end(ours: Etcd) -> None:
    value = b"x" * 200_000
    with Lines(ours, "/v3/watch", watch(b"slow").encode()) as lines:
        lines.next()
        for _ in range(60):
            ours.put(b"slow", value)
        versions: list[int] = []
        while len(versions) < 60:
            line = lines.next()
            assert line is not None
            versions += [int(event["kv"]["version"]) for event in line["result"].get("events", ())]
        assert versions == list(range(1, 61))


def test_a_long_batch_of_events_comes_whole(ours: Etcd) -> None:
    for at in range(3_000):
        ours.put(b"many/%d" % at, b"v")
    with Lines(
        ours, "/v3/watch", watch(b"many/", range_end=b64(b"many0"), start_revision=1).encode()
    ) as lines:
        seen = 0
        while seen < 3_000:
            line = lines.next()
            assert line is not None
            seen += len(line["result"].get("events", ()))
        assert seen == 3_000


def test_a_websocket_watches_and_takes_requests_in_pieces(servers: tuple[Server, Server]) -> None:
    def story(server: Server) -> list[Any]:
        with Socket(server, "/v3/watch") as socket:
            socket.say(watch(b"w"))
            told = [socket.json()]
            server.put(b"w", b"1")
            told.append(socket.json())
            text = watch(b"w", watch_id=7)
            socket.say(text[:20])
            socket.say(text[20:])
            told.append(socket.json())
            return told

    assert same(servers, story)[2]["result"]["watch_id"] == "7"


def test_a_websocket_answers_pings_and_says_goodbye(servers: tuple[Server, Server]) -> None:
    for server in servers:
        with Socket(server, "/v3/watch") as socket:
            assert socket.head[0] == "HTTP/1.1 101 Switching Protocols"
            assert any(line.lower() == f"sec-websocket-accept: {ACCEPT}".lower() for line in socket.head)
            socket.say(Ping(b"x"))
            assert socket.next() == Pong(b"x")
            socket.say(CloseConnection(1000))
            assert isinstance(socket.next(), CloseConnection)
            assert socket.next() is None


def test_a_websocket_to_nowhere_is_told_so(servers: tuple[Server, Server]) -> None:
    for server in servers:
        with Socket(server, "/v3/none") as socket:
            assert socket.json() == {"code": 5, "message": "Not Found"}


def test_a_websocket_may_carry_a_token(servers: tuple[Server, Server]) -> None:
    for server in servers:
        with Socket(server, "/v3/watch", "Sec-WebSocket-Protocol: Bearer, token") as socket:
            assert any(line.lower() == "sec-websocket-protocol: bearer" for line in socket.head)
            socket.say(watch(b"w"))
            assert socket.json()["result"]["created"] is True


def test_a_websocket_of_one_answer_gives_it_and_ends(ours: Etcd) -> None:
    ours.put(b"one", b"1")
    with Socket(ours, "/v3/kv/range") as socket:
        socket.say(json.dumps({"key": b64(b"one")}))
        assert socket.json()["count"] == "1"
        assert isinstance(socket.next(), CloseConnection)


def test_a_websocket_that_is_cut_leaves_no_watcher_behind(ours: Etcd) -> None:
    watchers = "etcd_debugging_mvcc_watcher_total"
    before = gauge(ours, watchers)
    socket = Socket(ours, "/v3/watch")
    socket.say(watch(b"q"))
    socket.json()
    assert gauge(ours, watchers) == before + 1
    socket.close()
    eventually(lambda: gauge(ours, watchers) == before)


def test_a_websocket_that_says_too_much_at_once_is_closed(ours: Etcd) -> None:
    with Socket(ours, "/v3/watch") as socket:
        try:
            for _ in range(8):
                socket.say(TextMessage("x" * (1 << 20), message_finished=False))
            goodbye = socket.next()
        except ConnectionError:
            return
        assert isinstance(goodbye, CloseConnection)
        assert goodbye.code == 1009


@pytest.mark.parametrize(
    ("header", "status"), [("Sec-WebSocket-Key: x", 400), ("Sec-WebSocket-Version: 12", 400)]
)
def test_a_handshake_that_breaks_the_rules_is_refused_alike(
    servers: tuple[Server, Server], header: str, status: int
) -> None:
    name, _, value = header.partition(": ")
    for server in servers:
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            name: value,
        }
        assert _status(server, headers) == (status, "13", b"Bad Request\n")


def _status(server: Server, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/v3/watch", headers=headers)
    response = connection.getresponse()
    answer = response.status, response.getheader("Sec-Websocket-Version"), response.read()
    connection.close()
    return answer


def test_an_election_is_observed_and_won_as_by_real_etcds_gateway(servers: tuple[Server, Server]) -> None:
    def ask(server: Server, path: str, body: dict[str, Any]) -> Any:
        with Lines(server, path, json.dumps(body).encode()) as lines:
            return [lines.response.status, json.loads(lines.response.read())]

    def story(server: Server) -> list[Any]:
        name = b64(b"president")
        told: list[Any] = [ask(server, "/v3/lease/grant", {"ID": lease, "TTL": 1000}) for lease in (71, 72)]
        with Lines(server, "/v3/election/observe", json.dumps({"name": name}).encode()) as lines:
            first = ask(server, "/v3/election/campaign", {"name": name, "value": b64(b"<one>"), "lease": 71})
            told += [first, lines.next()]
            leader = first[1]["leader"]
            told.append(ask(server, "/v3/election/proclaim", {"leader": leader, "value": b64(b"1")}))
            told.append(lines.next())
            waits = json.dumps({"name": name, "value": b64(b"two"), "lease": 72}).encode()
            with Lines(server, "/v3/election/campaign", waits) as second:
                eventually(lambda: bool(server.range(b"president/48").kvs))
                told.append(ask(server, "/v3/election/resign", {"leader": leader}))
                told += [json.loads(second.response.read()), lines.next()]
        told.append(ask(server, "/v3/lease/revoke", {"ID": 72}))
        return told

    told = same(servers, story)
    leaders = [each["result"]["kv"]["value"] for each in told if isinstance(each, dict) and "result" in each]
    assert leaders == [b64(b"<one>"), b64(b"1"), b64(b"two")]


def test_who_closes_the_connection_does_not_wait_for_a_lock_any_more(servers: tuple[Server, Server]) -> None:
    def story(server: Server) -> list[Any]:
        for lease in (81, 82):
            with Lines(server, "/v3/lease/grant", json.dumps({"ID": lease, "TTL": 1000}).encode()) as granted:
                assert granted.response.read()
        holds = json.dumps({"name": b64(b"door"), "lease": 81}).encode()
        with Lines(server, "/v3/lock/lock", holds) as held:
            key = json.loads(held.response.read())["key"]
        waits = json.dumps({"name": b64(b"door"), "lease": 82}).encode()
        with Lines(server, "/v3/lock/lock", waits):
            eventually(lambda: bool(server.range(b"door/52").kvs))
        eventually(lambda: not server.range(b"door/52").kvs)
        return [key, [each.key.decode() for each in server.range(b"door/", b"door0").kvs]]

    assert same(servers, story) == [b64(b"door/51"), ["door/51"]]
