"""Two members over a network in memory: which way messages take, and what happens when the way is gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from peer_fakes import FakeRequest, Member, Net, pair, run

from pyetcd._native import CANCEL
from pyetcd.peer import stream_out
from pyetcd.peer.frames import LINK_HEARTBEAT, MessageEncoder, encode_framed
from pyetcd.peer.seams import Refused
from pyetcd.raft import Entry, Message, MessageType, ProposalDropped

PIPELINE = ("10.0.0.2:2380", "POST", "/raft")


def append(index: int, count: int = 3, size: int = 10, to: int = 2, from_: int = 1) -> Message:
    entries = [Entry(3, index + 1 + i, 0, b"x" * size) for i in range(count)]
    return Message(
        MessageType.MsgApp, to=to, from_=from_, term=3, log_term=3, index=index, entries=entries, commit=index
    )


def heartbeat(commit: int = 0, to: int = 2, from_: int = 1) -> Message:
    return Message(MessageType.MsgHeartbeat, to=to, from_=from_, term=3, commit=commit)


def scene(work: Coroutine[Any, Any, None]) -> None:
    run(work)


def test_messages_arrive_whole_and_in_order_on_their_streams(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        net.dials.clear()
        appends = [append(index) for index in range(10, 310, 3)]
        others = [heartbeat(number) for number in range(100)]
        for message, other in zip(appends, others, strict=True):
            one.transport.send([message, other])
        one.transport.flush()
        await asyncio.sleep(0.1)
        assert [m for m in two.raft.got if m.type == MessageType.MsgApp] == appends
        assert [m for m in two.raft.got if m.type != MessageType.MsgApp] == others
        assert net.dials == []
        assert one.transport.counters[2].sent_bytes == two.transport.counters[1].received_bytes > 0

    scene(work())


def test_a_turn_goes_to_the_wire_in_one_piece_and_soon_without_a_flush(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        sent: list[int] = []
        real = one.server.send_many
        one.server.send_many = lambda messages: sent.append(len(messages)) or real(messages)  # type: ignore[method-assign,func-returns-value]
        one.transport.send([append(10), heartbeat(), append(13)])
        assert sent == []
        await asyncio.sleep(0.01)
        assert sent == [3]
        assert len(two.raft.got) == 3
        assert one.transport._outbox.batches._entries == ()  # nothing is kept beyond the turn

    scene(work())


def test_without_streams_messages_go_as_requests(net: Net) -> None:
    async def work() -> None:
        one, two = Member(1), Member(2)
        one.knows(two)  # who does not know us, and so asks for no streams
        one.transport.send([append(10), heartbeat()])
        await asyncio.sleep(0.05)
        assert sorted(m.type for m in two.raft.got) == [MessageType.MsgApp, MessageType.MsgHeartbeat]
        assert net.dials.count(PIPELINE) == 2
        assert two.raft.strangers[0] == (1, ["http://10.0.0.1:2380"])
        assert one.transport.active_since(2) is not None

    scene(work())


def test_at_most_four_requests_are_under_way_and_sixty_four_wait(net: Net) -> None:
    async def work() -> None:
        one = Member(1)
        net.silent.add("10.0.0.2:2380")
        one.transport.add_peer(2, [Member(2).url])
        one.transport.send([heartbeat(number) for number in range(70)])
        assert net.dials.count(PIPELINE) == 4
        assert one.raft.unreachable == [2, 2]
        assert one.transport.counters[2].sent_failures == 2
        await asyncio.sleep(60)  # each request is given up after a while, and the next one takes its turn
        assert net.dials.count(PIPELINE) > 4

    scene(work())


def test_a_request_that_fails_is_reported_and_the_next_url_is_tried(net: Net) -> None:
    async def work() -> None:
        one, two = Member(1), Member(2)
        bad = Member(9).url
        net.listening.pop("10.0.0.9:2380")
        one.transport.add_peer(2, [bad, two.url])
        two.knows(one)
        await asyncio.sleep(0.5)
        assert one.transport.active_since(2) is not None
        assert ("10.0.0.9:2380", "GET", "/raft/stream/msgapp/1") in net.dials
        assert ("10.0.0.2:2380", "GET", "/raft/stream/msgapp/1") in net.dials

    scene(work())


def test_a_lost_stream_is_asked_for_again_at_most_ten_times_a_second(net: Net) -> None:
    async def work() -> None:
        one, _ = await pair()
        net.dials.clear()
        two_target = net.listening.pop("10.0.0.2:2380")
        for call in list(one.server._streams):
            if call in one.server._other:
                one.server.tear(call)
        await asyncio.sleep(1.0)
        dialled = [dial for dial in net.dials if dial[0] == "10.0.0.2:2380" and "stream" in dial[2]]
        assert 10 <= len(dialled) <= 22  # of two streams
        assert one.transport.active_since(2) is None
        assert one.transport.counters[2].disconnected == 1
        net.listening["10.0.0.2:2380"] = two_target
        await asyncio.sleep(0.3)
        assert one.transport.active_since(2) is not None

    scene(work())


def test_link_heartbeats_keep_idle_streams_and_reach_nobody(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        before = two.transport.counters[1].received_bytes
        await asyncio.sleep(10)
        assert two.raft.got == []
        beats = (two.transport.counters[1].received_bytes - before) / (len(LINK_HEARTBEAT) + 1)
        assert 5 <= beats <= 7
        assert one.raft.unreachable == []

    scene(work())


def test_a_second_request_replaces_the_first(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        headers = two.transport.identity.stream_headers(1)
        lower = [(key.lower(), value) for key, value in headers]
        old = next(call for call in one.server._out if one.transport._peers[2]._messages._call == call)
        call = one.server.request(FakeRequest("GET", "/raft/stream/message/2", lower))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert one.server.answered[call].status == 200
        stream = one.transport._peers[2]._messages
        assert stream._call == call != old
        one.server.push(CANCEL, old)  # the end of the first is nothing to the second
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert stream._call == call

    scene(work())


def test_raft_is_told_when_a_stream_is_replaced_that_had_more_to_say(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        since = one.transport.active_since(2)
        headers = [(key.lower(), value) for key, value in two.transport.identity.stream_headers(1)]
        net.frozen.add(one.server)
        one.transport.send([heartbeat()])
        await asyncio.sleep(0.01)
        assert one.raft.unreachable == []
        one.server.request(FakeRequest("GET", "/raft/stream/message/2", headers))
        await asyncio.sleep(0.01)
        assert one.raft.unreachable == [2]
        assert one.transport.active_since(2) == since  # it has been active all the time

    scene(work())


def test_a_stream_that_does_not_move_is_closed_and_raft_told(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        net.frozen.add(one.server)
        one.transport.send([append(10)])
        await asyncio.sleep(4)
        assert one.raft.unreachable == []
        await asyncio.sleep(5)
        assert set(one.raft.unreachable) == {2}
        assert one.transport.counters[2].sent_failures >= 1
        net.thaw(one.server)
        await asyncio.sleep(1)
        one.transport.send([append(10), heartbeat()])
        await asyncio.sleep(0.1)
        assert {m.type for m in two.raft.got} >= {MessageType.MsgApp, MessageType.MsgHeartbeat}

    scene(work())


@pytest.mark.parametrize(("count", "size"), [(10, 10_000_000), (5_000, 1)])
def test_a_slow_peer_costs_no_more_than_the_bound(net: Net, count: int, size: int) -> None:
    async def work() -> None:
        one, _ = await pair()
        net.frozen.add(one.server)
        stream = one.transport._peers[2]._appends
        index = 10
        for _ in range(count):
            if not stream.attached:
                break
            one.transport.send([append(index, 1, size)])
            one.transport.flush()
            index += 1
            assert sum(flow.unsent for flow in one.server._out.values()) < (64 << 20) + 2 * size + 1000
        assert not stream.attached
        assert set(one.raft.unreachable) == {2}
        assert sum(flow.unsent for flow in one.server._out.values()) < 1000  # the backlog is gone with it

    scene(work())


def test_a_message_under_anothers_name_is_dropped_unless_it_was_forwarded(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        forwarded = Message(MessageType.MsgProp, to=2, from_=7, entries=[Entry(0, 0, 0, b"put")])
        one.transport.send([heartbeat(from_=7), append(10, from_=7), forwarded, heartbeat(5)])
        await asyncio.sleep(0.1)
        assert two.raft.got == [forwarded, heartbeat(5)]
        assert two.transport.counters[1].received_failures == 2

    scene(work())


@pytest.mark.parametrize("error", [Refused(403, "no"), ProposalDropped(), RuntimeError("a bug")])
def test_what_the_member_raises_costs_one_message(net: Net, error: Exception) -> None:
    async def work() -> None:
        one, two = await pair()
        two.raft.raises = error
        one.transport.send([heartbeat(1)])
        await asyncio.sleep(0.1)
        two.raft.raises = None
        one.transport.send([heartbeat(2)])
        await asyncio.sleep(0.1)
        assert two.raft.got == [heartbeat(2)]
        assert two.transport.active_since(1) is not None

    scene(work())


def test_garbage_on_a_stream_ends_it_and_a_new_one_works(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        stream = one.transport._peers[2]._messages
        one.server.send_many([(stream._call or 0, b"\xff" * 100)])
        await asyncio.sleep(0.5)
        one.transport.send([heartbeat(2)])
        await asyncio.sleep(0.1)
        assert two.raft.got == [heartbeat(2)]

    scene(work())


def test_a_removed_peer_hears_what_was_said_before_and_nothing_after(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        one.transport.send([append(10)])
        one.transport.remove_peer(2)
        one.transport.send([append(13)])
        await asyncio.sleep(0.05)
        assert two.raft.got == [append(10)]
        assert not one.transport.has_peer(2)
        one.raft.removed_ids.add(2)
        await asyncio.sleep(0.5)
        assert two.raft.told_removed > 0

    scene(work())


def test_another_cluster_and_a_peer_that_does_not_know_us_are_not_active(net: Net) -> None:
    async def work() -> None:
        one, other, unknowing = Member(1), Member(2, cluster_id=7), Member(3)
        one.knows(other, unknowing)
        await asyncio.sleep(1)
        assert one.transport.active_since(2) is None
        assert one.transport.active_since(3) is None
        assert one.transport.active_peers() == 0
        assert one.raft.told_removed == 0
        assert {id for id, _ in unknowing.raft.strangers} == {1}
        assert other.raft.strangers == []

    scene(work())


def test_remotes_get_answers_as_requests_until_they_are_peers(net: Net) -> None:
    async def work() -> None:
        one, two = Member(1), Member(2)
        one.transport.add_remote(2, [two.url])
        one.transport.add_remote(2, [two.url])
        one.transport.send([heartbeat(1)])
        await asyncio.sleep(0.1)
        assert two.raft.got == [heartbeat(1)]
        remote = one.transport._remotes[2]
        one.knows(two)
        assert not one.transport.has_remote(2)
        assert remote._pipeline._stopped
        two.knows(one)
        await asyncio.sleep(0.2)
        one.transport.send([heartbeat(2)])
        await asyncio.sleep(0.1)
        assert two.raft.got == [heartbeat(1), heartbeat(2)]

    scene(work())


def test_new_urls_are_dialled_from_then_on(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        net.listening["10.0.0.8:2380"] = net.listening.pop("10.0.0.2:2380")
        moved = Member(8).url
        net.listening["10.0.0.8:2380"] = two.server
        one.transport.update_peer(2, [moved])
        for call in list(one.server._streams):
            if call in one.server._other:
                one.server.tear(call)
        await asyncio.sleep(5)
        assert one.transport.active_since(2) is not None
        assert ("10.0.0.8:2380", "GET", "/raft/probing") in net.dials

    scene(work())


def test_stopping_ends_everything(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        await one.close()
        net.dials.clear()
        one.transport.counters[2].round_trip_seconds.clear()
        await asyncio.sleep(60)
        assert one.transport.counters[2].round_trip_seconds == []
        assert [dial for dial in net.dials if dial[0] == "10.0.0.1:2380"]
        assert [dial for dial in net.dials if dial[0] == "10.0.0.2:2380"] == []
        assert two.transport.active_since(1) is None
        assert asyncio.all_tasks() - {asyncio.current_task()} <= {two.transport._peers[1]._prober._task}

    scene(work())


def test_a_snapshot_message_without_its_database_is_refused_and_reported(net: Net) -> None:
    async def work() -> None:
        one, two = await pair()
        one.transport.send([Message(MessageType.MsgSnap, to=2, from_=1, term=3)])
        await asyncio.sleep(0.1)
        assert net.dials.count(PIPELINE) == 1
        assert one.raft.reports == [(2, False)]
        assert one.raft.unreachable == [2]
        body, _ = MessageEncoder().encode(Message(MessageType.MsgSnap, to=2, from_=1, term=3))
        one.server.send_many([(one.transport._peers[2]._messages._call or 0, body)])
        await asyncio.sleep(0.1)
        assert two.raft.got == []
        assert two.transport.counters[1].received_failures == 2

    scene(work())


def test_probes_measure_the_way_and_say_when_there_is_none(net: Net, printed: Callable[[], str]) -> None:
    async def work() -> None:
        one, two = await pair()
        await asyncio.sleep(5.5)
        assert len(one.transport.counters[2].round_trip_seconds) == 2
        prober = one.transport._peers[2]._prober
        assert prober.healthy
        assert abs(prober.drift_seconds) < 5
        await two.close()
        await asyncio.sleep(40)
        assert not prober.healthy

    scene(work())
    lines = printed()
    for name in ("ROUND_TRIPPER_SNAPSHOT", "ROUND_TRIPPER_RAFT_MESSAGE"):
        line = f'"prober detected unhealthy status","round-tripper-name":"{name}","remote-peer-id":"2"'
        assert line in lines
    assert "connect: connection refused" in lines


def test_the_lines_people_look_for_are_etcds(net: Net, printed: Callable[[], str]) -> None:
    async def work() -> None:
        one, two = await pair()
        one.transport.remove_peer(2)
        one.transport.remove_peer(2)
        await asyncio.sleep(0.05)
        await two.close()
        await one.close()

    scene(work())
    lines = printed()
    for line in (
        '"starting remote peer","remote-peer-id":"2"',
        '"started HTTP pipelining with remote peer","local-member-id":"1","remote-peer-id":"2"',
        '"started stream writer with remote peer","local-member-id":"1","remote-peer-id":"2"',
        '"started stream reader with remote peer","stream-reader-type":"stream MsgApp v2"',
        '"started remote peer","remote-peer-id":"2"',
        '"added remote peer","local-member-id":"1","remote-peer-id":"2","remote-peer-urls":["http://10.0.0.2:2380"]',
        '"set message encoder","from":"1","to":"2","stream-type":"stream Message"',
        '"peer became active","peer-id":"2"',
        '"established TCP streaming connection with remote peer","stream-writer-type":"stream MsgApp v2"',
        '"established TCP streaming connection with remote peer","stream-reader-type":"stream Message"',
        '"removed remote peer","local-member-id":"1","removed-remote-peer-id":"2"',
        '"skipped removing already removed peer","local-member-id":"1","removed-remote-peer-id":"2"',
        '"lost TCP streaming connection with remote peer","stream-reader-type":"stream Message"',
        '"stopped remote peer","remote-peer-id":"2"',
    ):
        assert line in lines


def test_the_bounds_are_those_of_the_docstring() -> None:
    assert stream_out.BACKLOG_BYTES_MAX == 64 << 20
    assert stream_out.BACKLOG_MESSAGES_MAX == 4096
    parts, size = encode_framed(heartbeat())
    assert sum(map(len, parts)) == size


@pytest.mark.parametrize(
    ("text", "removed"),
    [
        ("cannot process message from removed member", 1),
        ("cannot process message to mismatch member", 0),
    ],
)
def test_only_a_removal_is_taken_for_one(net: Net, text: str, removed: int) -> None:
    async def work() -> None:
        one, two = Member(1), Member(2)
        two.raft.raises = Refused(403, text)
        one.knows(two)
        one.transport.send([heartbeat()])
        await asyncio.sleep(0.05)
        assert one.raft.told_removed == removed
        assert one.raft.unreachable == [2]

    scene(work())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_network_does_appends_come_in_order_and_once(seed: int) -> None:
    """Some are lost, which raft is told of or finds out; in the end all is well again."""

    async def work(net: Net) -> None:
        one, two = await pair()
        chance = random.Random(seed)
        stream = one.transport._peers[2]._appends
        sent: list[Message] = []
        index = 10
        for _ in range(300):
            step = chance.randrange(10)
            if step < 6:
                if not stream.attached:
                    continue  # it would go as a request, and requests overtake each other
                sent.append(append(index, chance.randrange(4), chance.choice((0, 10, 5_000, 200_000))))
                index += len(sent[-1].entries)
                one.transport.send(sent[-1:])
                if chance.randrange(2):
                    one.transport.flush()
            elif step == 6:
                calls = [*one.server._streams, *one.server._out]
                open_calls = [call for call in calls if call in one.server._other]
                if open_calls:
                    one.server.tear(chance.choice(open_calls))
            elif step == 7:
                net.frozen.add(one.server)
            elif step == 8:
                net.thaw(one.server)
            else:
                await asyncio.sleep(chance.choice((0, 0.01, 0.2, 3)))
        net.thaw(one.server)
        await asyncio.sleep(10)
        appends = [m for m in two.raft.got if m.type == MessageType.MsgApp]
        assert len(appends) > 20
        left = iter(sent)
        assert all(any(message == other for other in left) for message in appends)
        two.raft.got.clear()
        last = [append(index, 2), append(index + 2, 2)]
        one.transport.send(last)
        await asyncio.sleep(0.1)
        assert two.raft.got == last
        await one.close()
        await two.close()

    with pytest.MonkeyPatch.context() as patch:
        net = Net(seed)
        net.install(patch)
        run(work(net))
