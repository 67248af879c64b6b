"""Snapshots from one member to the other: the whole of it or nothing, in bounded memory, and raft is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from peer_fakes import Data, FakeRequest, Member, Net, Sink, pair, run

from pyetcd._native import CANCEL, HALF_CLOSE, MESSAGE
from pyetcd.peer import snapshot_in, snapshot_out
from pyetcd.peer.frames import encode_framed
from pyetcd.peer.seams import Refused
from pyetcd.raft import ConfState, Message, MessageType, Snapshot, SnapshotMetadata

SIZE = 5_000_003


def snapshot(from_: int = 1, to: int = 2, index: int = 7, data: bytes = b"{}") -> Message:
    metadata = SnapshotMetadata(index, 3, ConfState((1, 2)))
    return Message(MessageType.MsgSnap, to=to, from_=from_, term=3, snapshot=Snapshot(metadata, data))


def framed(message: Message) -> bytes:
    return b"".join(encode_framed(message)[0])


class Post:
    """A request for a snapshot, by hand: pieces as the test likes them."""

    def __init__(self, member: Member, sender: Member, **other: str) -> None:
        self._server = member.server
        headers = sender.transport.identity.post_headers("application/octet-stream")
        lower = {key.lower(): value for key, value in headers} | {
            key.replace("_", "-"): value for key, value in other.items()
        }
        self.call = self._server.request(FakeRequest("POST", "/raft/snapshot", list(lower.items())))

    async def send(self, data: bytes) -> None:
        self._server.push(MESSAGE, self.call, data)
        await settle()

    async def end(self) -> None:
        self._server.push(HALF_CLOSE, self.call)
        await settle()

    async def tear(self) -> None:
        self._server.push(CANCEL, self.call)
        await settle()

    @property
    def answer(self) -> tuple[int, bytes] | None:
        found = self._server.answered.get(self.call)
        return None if found is None else (found.status, found.body)

    @property
    def credit(self) -> int:
        return self._server.credit.get(self.call, 0)


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


def test_a_snapshot_arrives_whole_and_then_its_message(net: Net, printed: Callable[[], str]) -> None:
    async def work() -> None:
        one, two = await pair()
        database = Data(SIZE)
        one.transport.send_snapshot(snapshot(), database)
        assert one.raft.reports == []
        await asyncio.sleep(5)
        assert one.raft.reports == [(2, True)]
        assert two.raft.got == [snapshot()]
        [sink] = two.raft.sinks
        assert bytes(sink.data) == database.content(0, SIZE)
        assert sink.finished
        assert not sink.aborted
        assert database.closed
        sent, received = one.transport.counters[2], two.transport.counters[1]
        assert (sent.snapshot_send_success, sent.snapshot_send_inflights) == (1, 0)
        assert (received.snapshot_receive_success, received.snapshot_receive_inflights) == (1, 0)
        assert len(sent.snapshot_send_seconds) == len(received.snapshot_receive_seconds) == 1
        assert sum(two.server.credit.values()) >= SIZE

    run(work())
    lines = printed()
    for line in (
        '"sending database snapshot","snapshot-index":7,"remote-peer-id":"2","bytes":5000',
        '"size":"5.0 MB"',
        '"receiving database snapshot","local-member-id":"2","remote-snapshot-sender-id":"1"',
        f'"incoming-snapshot-size-bytes":{SIZE}',
        '"sent database snapshot","snapshot-index":7,"remote-peer-id":"2","bytes":5000',
    ):
        assert line in lines


def test_an_empty_database_is_a_database(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        one.transport.send_snapshot(snapshot(), Data(0))
        await asyncio.sleep(1)
        assert one.raft.reports == [(2, True)]
        assert two.raft.sinks[0].finished

    run(work())


def test_a_slow_receiver_holds_the_reading_back(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        net.frozen.add(one.server)
        database = Data(50_000_000)
        one.transport.send_snapshot(snapshot(), database)
        await asyncio.sleep(4)
        assert database.read_bytes <= (1 << 20) + 2 * (256 << 10)
        net.thaw(one.server)
        await asyncio.sleep(5)
        assert one.raft.reports == [(2, True)]
        assert len(two.raft.sinks[0].data) == 50_000_000

    run(work())


def test_a_receiver_that_takes_nothing_is_given_up(net: Net) -> None:
    async def work() -> None:
        one, _ = await pair()
        net.frozen.add(one.server)
        database = Data(50_000_000)
        one.transport.send_snapshot(snapshot(), database)
        await asyncio.sleep(snapshot_out.STALL_SECONDS + 5)
        assert one.raft.reports == [(2, False)]
        assert 2 in one.raft.unreachable
        assert database.closed
        assert one.transport.counters[2].snapshot_send_failures == 1

    run(work())


def test_a_snapshot_takes_no_more_than_its_share_of_the_network(net: Net) -> None:
    async def work() -> None:
        one, _ = await pair()
        size = snapshot_out.BYTES_PER_SECOND_MAX // 10
        started = asyncio.get_running_loop().time()
        one.transport.send_snapshot(snapshot(), Data(size))
        while not one.raft.reports:
            await asyncio.sleep(0.001)
        assert 0.09 <= asyncio.get_running_loop().time() - started <= 0.2

    run(work())


@pytest.mark.parametrize(
    "fault", ["short", "refused", "no room", "full disk", "bug", "process", "torn", "gone", "stopped"]
)
def test_however_a_snapshot_fails_raft_is_told_and_nothing_is_left(net: Net, fault: str) -> None:
    async def work() -> None:
        one, two = await pair()
        database = Data(SIZE, short=fault == "short")
        if fault == "refused":
            two.raft.refuses_snapshot = Refused(503, "no snapshot now")
        if fault == "process":
            two.raft.raises = RuntimeError("cannot")
        sink = Sink()
        two.raft.make_sink = lambda: sink
        sink.fail = {
            "no room": Refused(507, "snapshot too large"),
            "full disk": OSError(28, "No space left on device"),
            "bug": KeyError("bug"),
        }.get(fault)
        if fault in ("torn", "stopped"):
            sink.gate = asyncio.Event()
        if fault == "gone":
            net.listening.pop("10.0.0.2:2380")
        one.transport.send_snapshot(snapshot(), database)
        if fault == "torn":  # with part of the database sent, and a sink that takes its time
            await settle()
            net.frozen.add(one.server)
            await asyncio.sleep(0.01)
            net.frozen.clear()
            assert 0 < database.read_bytes < SIZE
            [upload] = one.server._out.keys() - one.server._streams - set(one.server.answered)
            one.server.tear(upload)
        await asyncio.sleep(0.01)
        if fault == "stopped":
            await one.transport.stop()
        await asyncio.sleep(5)
        assert database.closed
        if fault != "stopped":
            assert one.raft.reports == [(2, False)]
            assert set(one.raft.unreachable) == {2}
        assert two.raft.got == []
        if fault == "process":
            assert sink.finished
        elif two.raft.sinks:
            assert sink.aborted
            assert not sink.finished
        assert one.transport.counters[2].snapshot_send_inflights == 0
        received = two.transport.counters[1]
        assert received.snapshot_receive_inflights == 0
        assert received.snapshot_receive_failures == (0 if fault == "gone" else 1)
        # The place is free for the next one.
        two.raft.raises = two.raft.refuses_snapshot = None
        two.raft.make_sink = Sink
        if fault not in ("gone", "stopped"):
            one.transport.send_snapshot(snapshot(), Data(10))
            await asyncio.sleep(1)
            assert one.raft.reports[-1] == (2, True)

    run(work())


def test_somebody_who_is_no_peer_gets_no_snapshot(net: Net) -> None:
    async def work() -> None:
        one, _ = await pair()
        database = Data(10)
        one.transport.send_snapshot(snapshot(to=9), database)
        assert database.closed

    run(work())


def test_two_receivers_get_their_snapshots_side_by_side(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        three = Member(3)
        one.knows(three)
        three.knows(one)
        one.transport.send_snapshot(snapshot(), Data(SIZE))
        one.transport.send_snapshot(snapshot(to=3), Data(SIZE))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert one.transport.counters[3].snapshot_send_inflights == 1
        await asyncio.sleep(5)
        assert sorted(one.raft.reports) == [(2, True), (3, True)]
        assert len(two.raft.sinks[0].data) == len(three.raft.sinks[0].data) == SIZE

    run(work())


def test_one_snapshot_is_received_at_a_time_and_a_second_try_replaces_the_first(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        three = Member(3)
        two.knows(three)
        first = Post(two, one)
        await first.send(framed(snapshot()) + b"data")
        other = Post(two, three)
        await settle()
        assert other.answer == (503, b"another snapshot is being received\n")
        second = Post(two, one)
        await second.send(framed(snapshot()))
        assert first.call in two.server.hung_up
        assert two.raft.sinks[0].aborted
        other = Post(two, three)
        await settle()
        assert other.answer == (503, b"another snapshot is being received\n")
        await second.send(b"new data")
        await second.end()
        assert second.answer == (204, b"")
        assert bytes(two.raft.sinks[1].data) == b"new data"
        third = Post(two, three)
        await third.send(framed(snapshot(from_=3)))
        await third.end()
        assert third.answer == (204, b"")

    run(work())


def test_a_leaders_snapshot_takes_the_place_of_anybody_elses(net: Net) -> None:
    """One whose sender has gone, or never comes to an end, holds up nobody but those who do not lead."""

    async def work() -> None:
        one, two = await pair()
        three = Member(3)
        two.knows(three)
        first = Post(two, one)
        await first.send(framed(snapshot()) + b"data")
        two.raft.leader = 3
        second = Post(two, three)
        await second.send(framed(snapshot(from_=3)) + b"new data")
        assert first.call in two.server.hung_up
        assert two.raft.sinks[0].aborted
        again = Post(two, one)
        await settle()
        assert again.answer == (503, b"another snapshot is being received\n")
        await second.end()
        assert second.answer == (204, b"")
        assert bytes(two.raft.sinks[1].data) == b"new data"
        assert [message.from_ for message in two.raft.got] == [3]

    run(work())


def test_what_the_sink_has_not_taken_is_not_credited(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        sink = Sink()
        sink.gate = asyncio.Event()
        two.raft.make_sink = lambda: sink
        post = Post(two, one)
        head = framed(snapshot())
        await post.send(head)
        await post.send(b"x" * 100_000)
        await post.send(b"y" * 100_000)
        assert post.credit == len(head)
        sink.gate.set()
        await settle()
        assert post.credit == len(head) + 200_000

    run(work())


@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        (b"", 400, b"failed to decode raft message (EOF)\n"),
        (b"\0\0\0", 400, b"failed to decode raft message (unexpected EOF)\n"),
        (framed(snapshot())[:-1], 400, b"failed to decode raft message (unexpected EOF)\n"),
        (b"\0\0\0\0\x04\0\0\x01", 400, b"failed to decode raft message (rafthttp: error limit exceeded)\n"),
        (framed(Message(MessageType.MsgApp, to=2, from_=1)), 400, b"wrong raft message type\n"),
        (framed(Message(MessageType.MsgSnap, to=2, from_=1)), 400, b"wrong raft message type\n"),
        (framed(snapshot(from_=7)), 400, b"from field mismatch\n"),
    ],
)
def test_a_body_that_is_no_snapshot_is_refused(net: Net, sent: bytes, status: int, text: bytes) -> None:
    async def work() -> None:
        one, two = await pair()
        post = Post(two, one)
        for at in range(0, len(sent), 7):
            await post.send(sent[at : at + 7])
        await post.end()
        assert post.answer == (status, text)
        assert two.raft.sinks == []
        assert two.raft.got == []
        assert two.transport.counters[1].snapshot_receive_failures == 1

    run(work())


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_body_may_be_cut_anywhere(net: Net, cut: int) -> None:
    async def work() -> None:
        one, two = await pair()
        whole = framed(snapshot()) + b"data of the database"
        post = Post(two, one)
        if cut:
            await post.send(whole[:cut])
        await post.send(whole[cut:])
        await post.end()
        assert post.answer == (204, b"")
        assert bytes(two.raft.sinks[0].data) == b"data of the database"

    run(work())


@pytest.mark.parametrize("kept", [0, 5, 10_000])
def test_a_torn_body_is_no_snapshot(net: Net, kept: int) -> None:
    async def work() -> None:
        one, two = await pair()
        post = Post(two, one)
        await post.send((framed(snapshot()) + b"x" * 20_000)[: kept or None])
        await post.tear()
        assert post.answer is None
        assert two.raft.got == []
        assert all(sink.aborted for sink in two.raft.sinks)
        assert two.transport.counters[1].snapshot_receive_failures == 1

    run(work())


def test_a_silent_sender_is_given_up(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        post = Post(two, one)
        await post.send(framed(snapshot()) + b"data")
        await asyncio.sleep(snapshot_in.SILENCE_SECONDS + 1)
        assert post.answer == (500, b"failed to save KV snapshot (i/o timeout)\n")
        assert two.raft.sinks[0].aborted

    run(work())


def test_a_refusal_of_the_member_is_told_as_etcd_tells_it(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        two.raft.raises = Refused(403, "cannot process message to mismatch member")
        post = Post(two, one)
        await post.send(framed(snapshot()))
        await post.end()
        assert post.answer == (403, b'{"message":"cannot process message to mismatch member"}')

    run(work())
