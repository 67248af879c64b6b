"""Two members over real sockets: the native wire under the transport, TCP, Unix sockets and TLS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from go_cluster import free_port
from peer_fakes import Data, FakeRaft

from pyetcd._native import ClientTls, HttpRequest, Meta, Tls
from pyetcd.cluster.urls import Url, parse_url
from pyetcd.listen import Sockets
from pyetcd.peer.context import Timeouts
from pyetcd.peer.headers import Identity, hex_id
from pyetcd.peer.port import PeerPort
from pyetcd.peer.transport import Transport
from pyetcd.peer.wire import PeerWire, Unreachable
from pyetcd.raft import ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata

CERTS = Path(__file__).parents[1] / "native" / "certs"
CLUSTER_ID = 0xCDF818194E3A8C32


TIMEOUTS = Timeouts()


def pem(name: str) -> bytes:
    return (CERTS / name).read_bytes()


async def _hello(request: HttpRequest, meta: Meta) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    return 200, (("Content-Type", "text/plain"),), b"hello"


class Member:
    def __init__(self, id: int, url: Url, secure: bool = False, timeouts: Timeouts = TIMEOUTS) -> None:
        loop = asyncio.get_running_loop()
        tls = ClientTls(ca=pem("ca.pem"), cert=pem("client.pem"), key=pem("client.key")) if secure else None
        self.id, self.url, self.raft = id, url, FakeRaft()
        self.wire = PeerWire(loop, tls=tls, dial_timeout_seconds=1.0)
        self.transport = Transport(id, CLUSTER_ID, [url.text], self.wire, self.raft, loop, timeouts)
        self.port = PeerPort(self.wire, self.transport, {"/hello": _hello}, {})
        served = Tls(pem("server.pem"), pem("server.key"), pem("ca.pem")) if secure else None
        self.port.listen(Sockets().bind([url], served, grpc=False))
        self.wire.after_turn = self.transport.flush
        self.wire.start()

    async def close(self) -> None:
        await self.transport.stop()
        await self.port.close()
        await self.wire.close()


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0.005)


Work = Callable[[Member, Member], Coroutine[Any, Any, None]]


def play(kind: str, directory: Path, work: Work) -> None:
    def url(number: int) -> Url:
        if kind == "unix":
            return parse_url(f"unix://{directory}/{number}.sock")
        scheme = "https" if kind == "https" else "http"
        return parse_url(f"{scheme}://127.0.0.1:{free_port()}")

    async def whole() -> None:
        one, two = (Member(number, url(number), kind == "https") for number in (1, 2))
        try:
            one.transport.add_peer(2, [two.url])
            two.transport.add_peer(1, [one.url])
            await until(lambda: all(stream.attached for stream in streams(one) + streams(two)))
            await work(one, two)
        finally:
            await one.close()
            await two.close()

    asyncio.run(whole())


def streams(member: Member) -> list[Any]:
    [peer] = member.transport._peers.values()
    return [peer._appends, peer._messages]


def append(index: int, count: int, size: int) -> Message:
    entries = [Entry(3, index + 1 + i, 0, os.urandom(size)) for i in range(count)]
    return Message(
        MessageType.MsgApp, to=2, from_=1, term=3, log_term=3, index=index, entries=entries, commit=index
    )


kinds = pytest.mark.parametrize("kind", ["http", "unix", "https"])


@kinds
def test_messages_of_all_sizes_arrive_in_order(kind: str, tmp_path: Path) -> None:
    async def work(one: Member, two: Member) -> None:
        index, sent = 10, []
        for count, size in [(1, 0), (30, 300), (2, 3_000_000), (500, 10), (0, 0), (1, 20_000_000), (3, 3)]:
            sent.append(append(index, count, size))
            index += count
        for message in sent:
            one.transport.send([message])
            one.transport.flush()
        await until(lambda: len(two.raft.got) == len(sent))
        assert two.raft.got == sent
        assert one.raft.unreachable == []

    play(kind, tmp_path, work)


@kinds
def test_a_snapshot_arrives_whole(kind: str, tmp_path: Path) -> None:
    async def work(one: Member, two: Member) -> None:
        database = Data(8_000_001)
        metadata = SnapshotMetadata(7, 3, ConfState((1, 2)))
        message = Message(MessageType.MsgSnap, to=2, from_=1, term=3, snapshot=Snapshot(metadata, b"{}"))
        one.transport.send_snapshot(message, database)
        await until(lambda: one.raft.reports)
        assert one.raft.reports == [(2, True)]
        assert bytes(two.raft.sinks[0].data) == database.content(0, database.size)
        assert two.raft.got == [message]

    play(kind, tmp_path, work)


@kinds
def test_a_member_that_comes_back_is_heard_again(kind: str, tmp_path: Path) -> None:
    async def work(one: Member, two: Member) -> None:
        await two.close()
        await until(lambda: one.transport.active_since(2) is None)
        one.transport.send([append(10, 1, 10)])
        await until(lambda: one.raft.unreachable)
        again = Member(2, two.url, kind == "https")
        try:
            again.transport.add_peer(1, [one.url])
            await until(lambda: all(stream.attached for stream in streams(one)))
            one.transport.send([append(10, 1, 10)])
            await until(lambda: again.raft.got)
        finally:
            await again.close()

    play(kind, tmp_path, work)


@kinds
def test_other_requests_are_answered_and_failures_have_a_text(kind: str, tmp_path: Path) -> None:
    async def work(one: Member, two: Member) -> None:
        response = await one.wire.request(two.url, "GET", "/hello", timeout_seconds=5)
        assert (response.status, response.body) == (200, b"hello")
        response = await one.wire.request(two.url, "GET", "/nothing", timeout_seconds=5)
        assert (response.status, response.body) == (404, b"404 page not found\n")
        answers: list[Awaitable[Any]] = [
            one.wire.request(two.url, "GET", "/hello", timeout_seconds=5) for _ in range(50)
        ]
        assert {found.status for found in await asyncio.gather(*answers)} == {200}
        assert len(one.wire._owners) == 4  # two streams each way, and nothing of what is over
        await two.close()
        with pytest.raises(Unreachable, match="connect: "):
            await one.wire.request(two.url, "GET", "/hello", timeout_seconds=5)

    play(kind, tmp_path, work)


def test_a_request_that_cannot_be_made_fails_as_others_do(tmp_path: Path) -> None:
    async def work(one: Member, two: Member) -> None:
        with pytest.raises(Unreachable):
            await one.wire.request(two.url, "NO METHOD", "/hello", timeout_seconds=5)
        with pytest.raises(Unreachable):
            await one.wire.request(two.url, "GET", "/hello", [("bad name", "x")], timeout_seconds=5)

    play("http", tmp_path, work)


def test_a_request_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    async def slow(request: HttpRequest, meta: Meta) -> tuple[int, Sequence[tuple[str, str]], bytes]:
        await asyncio.sleep(1000)
        raise AssertionError("it has been given up")

    async def work(one: Member, two: Member) -> None:
        port = PeerPort(two.wire, two.transport, {"/slow": slow}, {})
        task = asyncio.create_task(one.wire.request(two.url, "GET", "/slow", timeout_seconds=100))
        await until(lambda: port._tasks)
        task.cancel()
        await until(lambda: not port._tasks)
        with pytest.raises(Unreachable, match=r"deadline exceeded|timeout"):
            await one.wire.request(two.url, "GET", "/slow", timeout_seconds=0.2)
        await port.close()

    play("http", tmp_path, work)


def test_an_answer_in_the_middle_of_a_snapshot_is_heard(tmp_path: Path) -> None:
    async def work(one: Member, two: Member) -> None:
        two.raft.refuses_snapshot = OSError("no place for it")
        metadata = SnapshotMetadata(7, 3, ConfState((1, 2)))
        message = Message(MessageType.MsgSnap, to=2, from_=1, term=3, snapshot=Snapshot(metadata, b"{}"))
        database = Data(30_000_000)
        one.transport.send_snapshot(message, database)
        await until(lambda: one.raft.reports)
        assert one.raft.reports == [(2, False)]
        assert database.read_bytes < database.size
        assert two.transport.counters[1].snapshot_receive_failures == 1

    play("http", tmp_path, work)


def test_one_address_serves_both_schemes(tmp_path: Path) -> None:
    async def whole() -> None:
        loop = asyncio.get_running_loop()
        port_number = free_port()
        plain, secure = (parse_url(f"{scheme}://127.0.0.1:{port_number}") for scheme in ("http", "https"))
        tls = ClientTls(ca=pem("ca.pem"))
        wire = PeerWire(loop, tls=tls, dial_timeout_seconds=1.0)
        transport = Transport(1, CLUSTER_ID, [plain.text], wire, FakeRaft(), loop)
        port = PeerPort(wire, transport, {"/hello": _hello}, {})
        served = Tls(pem("server.pem"), pem("server.key"))
        port.listen(Sockets().bind([plain, secure], served, grpc=False))
        wire.start()
        for url in (plain, secure):
            assert (await wire.request(url, "GET", "/hello", timeout_seconds=5)).body == b"hello"
        await transport.stop()
        await port.close()
        await wire.close()
        await wire.close()

    asyncio.run(whole())


def test_a_stream_that_is_silent_for_longer_than_the_timeout_of_reads_is_dialled_anew() -> None:
    async def whole() -> None:
        dialled: list[float] = []
        loop = asyncio.get_running_loop()
        kept: list[asyncio.StreamWriter] = []

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            kept.append(writer)
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"GET /raft/stream/message/"):
                dialled.append(loop.time())
            about = f"X-Server-Version: 3.7.1\r\nX-Etcd-Cluster-ID: {hex_id(CLUSTER_ID)}"
            writer.write(f"HTTP/1.1 200 OK\r\n{about}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())

        server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        timeouts = Timeouts(read_seconds=0.5)
        one = Member(1, parse_url(f"http://127.0.0.1:{free_port()}"), timeouts=timeouts)
        try:
            one.transport.add_peer(2, [parse_url(f"http://127.0.0.1:{port}")])
            await until(lambda: len(dialled) > 2)
            assert min(later - sooner for sooner, later in pairwise(dialled)) > 0.4
        finally:
            await one.close()
            for writer in kept:
                writer.close()
            server.close()

    asyncio.run(whole())


def test_a_peer_that_does_not_read_loses_its_stream() -> None:
    async def whole() -> None:
        timeouts = Timeouts(read_seconds=0.3, write_seconds=0.5)
        one = Member(1, parse_url(f"http://127.0.0.1:{free_port()}"), timeouts=timeouts)
        one.transport.add_peer(2, [parse_url("http://127.0.0.1:1")])
        headers = Identity(2, CLUSTER_ID, ()).stream_headers(1)
        lines = [f"{key}: {value}" for key, value in (("Host", one.url.host), *headers)]
        request = "\r\n".join(["GET /raft/stream/msgapp/2 HTTP/1.1", *lines, "", ""])
        reader, writer = await asyncio.open_connection(one.url.hostname, int(one.url.port), limit=1024)
        writer.write(request.encode())
        [appends, _] = streams(one)
        try:
            await until(lambda: appends.attached)
            one.transport.send([append(10, 1, 30_000_000)])
            await until(lambda: not appends.attached)
            assert 2 in one.raft.unreachable
            received = 0
            try:
                while chunk := await reader.read(1 << 20):
                    received += len(chunk)
            except ConnectionError:
                pass
            assert received < 30_000_000  # what had not been sent is gone with the stream
        finally:
            writer.close()
            await one.close()

    asyncio.run(whole())


def test_a_turn_in_which_a_handler_raises_is_a_turn_like_others(tmp_path: Path) -> None:
    async def work(one: Member, two: Member) -> None:
        def broken(call: int, request: HttpRequest, meta: Meta) -> None:
            if request.target == "/late":
                two.wire.server.http_reply(call, 200, (), b"answered")
            raise RuntimeError("a bug")

        two.wire.on_request = broken
        assert (await one.wire.request(two.url, "GET", "/early", timeout_seconds=5)).status == 500
        assert (await one.wire.request(two.url, "GET", "/late", timeout_seconds=5)).body == b"answered"
        one.transport.send([append(10, 1, 10)])
        await until(lambda: two.raft.got)

    play("http", tmp_path, work)
