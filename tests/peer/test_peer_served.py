"""What is answered to requests under `/raft` and beside it: etcd's statuses, headers and texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import datetime

import pytest
from peer_fakes import CLUSTER_ID, FakeRequest, Member, Net, run

from pyetcd._native import CANCEL, HALF_CLOSE, MESSAGE, HttpRequest, Meta
from pyetcd.peer.port import Handler, PeerPort
from pyetcd.peer.seams import Refused
from pyetcd.peer.wire import STREAMED_PATHS
from pyetcd.raft import Entry, Message, MessageType
from pyetcd.raft.codec import encode_message

CLUSTER = ("X-Etcd-Cluster-ID", f"{CLUSTER_ID:x}")
GOOD = {
    "x-server-from": "2",
    "x-server-version": "3.7.1",
    "x-min-cluster-version": "3.0.0",
    "x-etcd-cluster-id": f"{CLUSTER_ID:x}",
    "x-raft-to": "1",
    "x-peerurls": "http://10.0.0.2:2380,http://10.0.1.2:2380",
}
HEARTBEAT = encode_message(Message(MessageType.MsgHeartbeat, to=1, from_=2, term=3))


def ask(
    member: Member, method: str, path: str, body: bytes = b"", **changed: str | None
) -> Callable[[], tuple[int, dict[str, str], bytes]]:
    """Send a request; returns how to get the answer."""
    headers = dict(GOOD)
    for name, value in changed.items():
        if value is None:
            del headers[name.replace("_", "-")]
        else:
            headers[name.replace("_", "-")] = value
    call = member.server.request(FakeRequest(method, path, list(headers.items())))
    if path in STREAMED_PATHS:
        member.server.push(MESSAGE, call, body)
        member.server.push(HALF_CLOSE, call)

    def answer() -> tuple[int, dict[str, str], bytes]:
        found = member.server.answered[call]
        return found.status, dict(found.headers), found.body

    return answer


async def asked(
    member: Member, method: str, path: str, body: bytes = b"", **changed: str | None
) -> tuple[int, dict[str, str], bytes]:
    answer = ask(member, method, path, body, **changed)
    await asyncio.sleep(0.001)
    return answer()


def test_a_message_is_processed_and_acknowledged(net: Net) -> None:
    async def work() -> None:
        one = Member(1)
        assert await asked(one, "POST", "/raft", HEARTBEAT) == (204, dict([CLUSTER]), b"")
        assert one.raft.got == [Message(MessageType.MsgHeartbeat, to=1, from_=2, term=3)]
        assert one.raft.strangers == [(2, ["http://10.0.0.2:2380", "http://10.0.1.2:2380"])]

    run(work())


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"x_server_version": None}, b"incompatible version\n"),
        ({"x_server_version": "2.3.8"}, b"incompatible version\n"),
        ({"x_server_version": "no version"}, b"incompatible version\n"),
        ({"x_server_version": "3.7"}, b"incompatible version\n"),
        ({"x_server_version": "3.x.1"}, b"incompatible version\n"),
        ({"x_min_cluster_version": "3.8.0"}, b"incompatible version\n"),
        ({"x_min_cluster_version": "4"}, b"incompatible version\n"),
        ({"x_etcd_cluster_id": "1"}, b"cluster ID mismatch\n"),
        ({"x_etcd_cluster_id": None}, b"cluster ID mismatch\n"),
        ({"x_etcd_cluster_id": f"{CLUSTER_ID:X}"}, b"cluster ID mismatch\n"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/raft"), ("POST", "/raft/snapshot"), ("GET", "/raft/stream/msgapp/2")],
)
def test_who_does_not_fit_is_refused(
    net: Net, method: str, path: str, changed: dict[str, str | None], text: bytes
) -> None:
    async def work() -> None:
        one = Member(1)
        status, headers, body = await asked(one, method, path, HEARTBEAT, **changed)
        assert (status, body) == (412, text)
        assert headers["X-Etcd-Cluster-ID"] == f"{CLUSTER_ID:x}"
        assert one.raft.got == []
        assert one.raft.strangers == []

    run(work())


@pytest.mark.parametrize("version", ["3.0.0", "3.7.9", "3.8.0-alpha.0", "4.1.0+git", "3.4.27-rc.1"])
def test_other_versions_fit(net: Net, version: str) -> None:
    async def work() -> None:
        one = Member(1)
        status, _, _ = await asked(one, "POST", "/raft", HEARTBEAT, x_server_version=version)
        assert status == 204

    run(work())


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/raft", "POST"),
        ("PUT", "/raft/snapshot", "POST"),
        ("POST", "/raft/stream/message/2", "GET"),
    ],
)
def test_methods_are_etcds(net: Net, method: str, path: str, allowed: str) -> None:
    async def work() -> None:
        status, headers, body = await asked(Member(1), method, path)
        assert (status, headers["Allow"], body) == (405, allowed, b"Method Not Allowed\n")

    run(work())


@pytest.mark.parametrize(
    ("body", "changed", "status", "text"),
    [
        (b"\xff\xff", {}, 400, b"error unmarshalling raft message\n"),
        (HEARTBEAT, {"x_server_from": "3"}, 400, b"from field mismatch\n"),
        (HEARTBEAT, {"x_server_from": None}, 400, b"from field mismatch\n"),
        (HEARTBEAT, {"x_server_from": "0x2"}, 400, b"from field mismatch\n"),
        (HEARTBEAT, {"x_server_from": "1" * 40}, 400, b"from field mismatch\n"),
    ],
)
def test_a_message_that_cannot_be_is_refused(
    net: Net, body: bytes, changed: dict[str, str | None], status: int, text: bytes
) -> None:
    async def work() -> None:
        one = Member(1)
        got = await asked(one, "POST", "/raft", body, **changed)
        assert (got[0], got[2]) == (status, text)
        assert one.raft.got == []

    run(work())


@pytest.mark.parametrize(
    ("removed", "status", "text"),
    [
        (True, 403, b"cannot process message from removed member\n"),
        (False, 503, b"cannot process message from unknown member\n"),
    ],
)
def test_what_only_members_may_send_is_refused_others_with_what_ends_only_removed_ones(
    net: Net, removed: bool, status: int, text: bytes
) -> None:
    """Whoever reads 403 takes itself for removed."""

    async def work() -> None:
        one = Member(1)
        if removed:
            one.raft.removed_ids.add(2)
        proposal = Message(MessageType.MsgProp, to=1, from_=3, entries=[Entry(0, 0, 0, b"x")])
        for path, body in (("/raft", encode_message(proposal)), ("/raft/snapshot", b"")):
            got = await asked(one, "POST", path, body)
            assert (got[0], got[2]) == (status, text), path
        assert one.raft.got == []
        assert one.raft.sinks == []

    run(work())


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (
            Refused(403, 'cannot process message from "removed" member'),
            403,
            b'{"message":"cannot process message from \\"removed\\" member"}',
        ),
        (RuntimeError("a bug"), 500, b"error processing raft message\n"),
    ],
)
def test_what_the_member_refuses_is_told(net: Net, error: Exception, status: int, text: bytes) -> None:
    async def work() -> None:
        one = Member(1)
        one.raft.raises = error
        got = await asked(one, "POST", "/raft", HEARTBEAT)
        assert (got[0], got[2]) == (status, text)

    run(work())


@pytest.mark.parametrize(
    ("path", "changed", "status", "text"),
    [
        ("/raft/stream/msgapp/2", {}, 404, b"error sender not found\n"),
        ("/raft/stream/other/2", {}, 404, b"invalid path\n"),
        ("/raft/stream/msgapp/x", {}, 404, b"invalid from\n"),
        ("/raft/stream/msgapp/", {}, 404, b"invalid from\n"),
        ("/raft/stream/msgapp/2/3", {}, 404, b"invalid path\n"),
        ("/raft/stream/message/7", {}, 410, b"removed member\n"),
        ("/raft/stream/message/3", {"x_raft_to": "9"}, 412, b"to field mismatch\n"),
        ("/raft/stream/message/3", {"x_raft_to": None}, 412, b"to field mismatch\n"),
    ],
)
def test_streams_are_refused_as_etcd_refuses_them(
    net: Net, path: str, changed: dict[str, str | None], status: int, text: bytes
) -> None:
    async def work() -> None:
        one, three = Member(1), Member(3)
        one.knows(three)
        one.raft.removed_ids.add(7)
        got, headers, body = await asked(one, "GET", path, **changed)
        assert (got, body) == (status, text)
        assert headers["X-Server-Version"] == "3.7.1"
        assert headers["X-Etcd-Cluster-ID"] == f"{CLUSTER_ID:x}"
        strangers = [(2, ["http://10.0.0.2:2380", "http://10.0.1.2:2380"])]
        assert one.raft.strangers == (strangers if text == b"error sender not found\n" else [])

    run(work())


def test_a_stranger_is_told_of_until_it_is_known(net: Net) -> None:
    async def work() -> None:
        one, two = Member(1), Member(2)
        await asked(one, "POST", "/raft", HEARTBEAT)
        await asked(one, "POST", "/raft", HEARTBEAT)
        assert len(one.raft.strangers) == 2
        one.transport.add_remote(2, [two.url])
        await asked(one, "POST", "/raft", HEARTBEAT)
        one.knows(two)
        await asked(one, "POST", "/raft", HEARTBEAT)
        await asked(one, "POST", "/raft", HEARTBEAT, x_server_from="1")
        assert len(one.raft.strangers) == 2

    run(work())


def test_a_member_that_cannot_read_a_strangers_urls_does_not_leave_it_waiting(net: Net) -> None:
    async def work() -> None:
        one = Member(1)

        def stranger(id: int, urls: Sequence[str]) -> None:
            raise ValueError("no URL")

        one.raft.stranger = stranger  # type: ignore[method-assign]
        status, _, _ = await asked(one, "POST", "/raft", HEARTBEAT)
        assert status == 500

    run(work())


def test_probing_tells_the_time(net: Net) -> None:
    async def work() -> None:
        status, headers, body = await asked(Member(1), "GET", "/raft/probing")
        assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert body.endswith(b"\n")
        answer = json.loads(body)
        assert answer["OK"] is True
        assert datetime.fromisoformat(answer["Now"]).tzinfo is not None

    run(work())


def test_before_anybody_serves_and_after_the_end_requests_are_put_off(net: Net) -> None:
    async def work() -> None:
        one = Member(1)
        one.wire.on_request = one.wire._not_ready
        assert (await asked(one, "GET", "/members"))[0] == 503
        one.wire.on_request = one.port._request
        await one.transport.stop()
        assert (await asked(one, "POST", "/raft", HEARTBEAT))[0] == 503
        assert one.raft.strangers == []

    run(work())


# Other paths


async def _fine(request: HttpRequest, meta: Meta) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    return 200, (("Content-Type", "text/plain"),), request.target.encode()


async def _slow(request: HttpRequest, meta: Meta) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    await asyncio.sleep(1000)
    return 200, (), b""


async def _broken(request: HttpRequest, meta: Meta) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    raise KeyError("bug")


async def _refusing(request: HttpRequest, meta: Meta) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    raise Refused(412, "not now")


async def _promoting(request: HttpRequest, meta: Meta) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    return 200, (), b"promoted"


def serving() -> tuple[Member, PeerPort]:
    one = Member(1)
    exact: dict[str, Handler] = {"/members": _fine, "/slow": _slow, "/broken": _broken, "/no": _refusing}
    prefixes: dict[str, Handler] = {"/members/": _fine, "/members/promote/": _promoting}
    return one, PeerPort(one.wire, one.transport, exact, prefixes)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/members", 200, b"/members"),
        ("/members?linearizable=false", 200, b"/members?linearizable=false"),
        ("/members/promote/12", 200, b"promoted"),
        ("/members/other", 200, b"/members/other"),
        ("/memberss", 404, b"404 page not found\n"),
        ("/", 404, b"404 page not found\n"),
        ("*", 404, b"404 page not found\n"),
        ("/raft/other", 404, b"404 page not found\n"),
        ("/raftother", 404, b"404 page not found\n"),
        ("/broken", 500, b"Internal Server Error\n"),
        ("/no", 412, b'{"message":"not now"}'),
    ],
)
def test_paths_find_their_handlers(net: Net, path: str, status: int, body: bytes) -> None:
    async def work() -> None:
        one, _ = serving()
        got = await asked(one, "GET", path)
        assert (got[0], got[2]) == (status, body)

    run(work())


def test_a_request_whose_sender_has_gone_is_given_up(net: Net) -> None:
    async def work() -> None:
        one, port = serving()
        call = one.server.request(FakeRequest("GET", "/slow"))
        await asyncio.sleep(0.001)
        assert len(port._tasks) == 1
        one.server.push(CANCEL, call)
        await asyncio.sleep(0.001)
        assert not port._tasks
        one.server.request(FakeRequest("GET", "/slow"))
        await asyncio.sleep(0.001)
        await port.close()
        assert not port._tasks

    run(work())


def test_handlers_are_bounded_in_number(net: Net) -> None:
    async def work() -> None:
        one, port = serving()
        calls = [one.server.request(FakeRequest("GET", "/slow")) for _ in range(1001)]
        await asyncio.sleep(0.001)
        assert one.server.answered[calls[-1]].status == 503
        assert len(one.server.answered) == 1
        await port.close()

    run(work())
