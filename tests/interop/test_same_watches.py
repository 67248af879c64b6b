"""The same watchers on real etcd and on pyetcd are told the same events, in the same order, and the same
about themselves.

`INTEROP_WATCH_SEQUENCES` says how many random sequences there are, `INTEROP_SEED` at which seed they begin.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from random_kv import Requests
from random_watch import Watches
from twins import Pool, Twins
from watch_twins import SETTLE_SECONDS, TwinStreams, wait_for_watchers

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
)

FIRST_SEED = int(os.environ.get("INTEROP_SEED", "1"))
SEQUENCES = int(os.environ.get("INTEROP_WATCH_SEQUENCES", "16"))
LENGTH = 100
STREAMS = 2
LARGE = 450_000  # bytes of a value, three of which fit into a request


@pytest.fixture(scope="module")
def pool(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    made = Pool(goetcd, tmp_path_factory, watch_progress_notify_interval="500ms")
    yield made
    made.close()


@pytest.fixture
def twins(pool: Pool, request: pytest.FixtureRequest) -> Twins:
    return pool.begin(request.node.name)


@pytest.fixture
def stream(twins: Twins) -> Iterator[TwinStreams]:
    opened = TwinStreams(twins)
    yield opened
    opened.close()


def all_keys(**options: object) -> WatchCreateRequest:
    return WatchCreateRequest(key=b"\0", range_end=b"\0", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEQUENCES))
def test_random_watchers_are_told_the_same(twins: Twins, seed: int) -> None:
    chance = random.Random(seed)
    requests = Requests(chance, twins.history)
    watches = Watches(chance, twins.history, requests)
    streams = [TwinStreams(twins) for _ in range(STREAMS)]
    try:
        for _ in range(LENGTH):
            stream = chance.choice(streams)
            kind = chance.randrange(10)
            if kind == 0:
                request = watches.create()
                request.progress_notify = False  # notices come by the clock
                stream.create(request)
            elif kind == 1:
                stream.cancel(chance.choice((0, 1, 2, 3, 7, 100, -5)))
            else:
                request = requests.one()
                if isinstance(request, CompactionRequest):
                    settle(twins, streams)
                twins.ask(request)
        finish(twins, streams)
    finally:
        for stream in streams:
            stream.close()


def settle(twins: Twins, streams: list[TwinStreams]) -> None:
    for stream in streams:
        stream.settle()
    wait_for_watchers(twins.theirs)


def finish(twins: Twins, streams: list[TwinStreams]) -> None:
    """All said so far is equal, and nothing more comes: what a last watcher is told comes behind it."""
    settle(twins, streams)
    for stream in streams:
        stream.create(WatchCreateRequest(key=b"the end", watch_id=424242))
    twins.ask(PutRequest(key=b"the end"))
    for stream in streams:
        for end in (stream.ours, stream.theirs):
            assert end.wait_for(lambda said: len(said.watchers[424242]) == 2), "the last watcher is not told"
        stream.settle()


@pytest.mark.parametrize("start", [-1, 0, 1, 2])
def test_a_watcher_may_start_anywhere_about_now(twins: Twins, stream: TwinStreams, start: int) -> None:
    twins.ask(PutRequest(key=b"a", value=b"before"))
    stream.create(all_keys(start_revision=twins.history.current + start, prev_kv=True))
    for number in range(3):
        twins.ask(PutRequest(key=b"a", value=b"%d" % number))
        twins.ask(DeleteRangeRequest(key=b"a"))
    finish(twins, [stream])


@pytest.mark.parametrize("offset", [-2, -1, 0, 1])
def test_a_watcher_from_about_the_compacted_revision(twins: Twins, stream: TwinStreams, offset: int) -> None:
    for number in range(6):
        twins.ask(PutRequest(key=b"a", value=b"%d" % number))
        twins.ask(DeleteRangeRequest(key=b"a"))
    twins.ask(CompactionRequest(revision=twins.history.current - 4, physical=True))
    stream.create(all_keys(start_revision=twins.history.compacted + offset, prev_kv=True))
    twins.ask(PutRequest(key=b"a"))
    finish(twins, [stream])


def test_ids_are_chosen_refused_and_used_again(twins: Twins, stream: TwinStreams) -> None:
    for watch_id in (0, 0, 1, 5, 5, -1, -1, -7, 2, 0, 0):
        stream.create(WatchCreateRequest(key=b"a", watch_id=watch_id))
    twins.ask(PutRequest(key=b"a"))
    for watch_id in (5, 5, -1, 77, 0):
        stream.cancel(watch_id)
    for watch_id in (5, 0, -1):
        stream.create(WatchCreateRequest(key=b"a", watch_id=watch_id))
    twins.ask(PutRequest(key=b"a"))
    finish(twins, [stream])


@pytest.mark.parametrize(
    "request_",
    [
        WatchCreateRequest(),
        WatchCreateRequest(range_end=b"\0"),
        WatchCreateRequest(range_end=b"\0\0"),
        WatchCreateRequest(key=b"b", range_end=b"a"),
        WatchCreateRequest(key=b"b", range_end=b"b"),
        WatchCreateRequest(key=b"\0", range_end=b"\0"),
        WatchCreateRequest(key=b"a", start_revision=-5),
        WatchCreateRequest(key=b"a", start_revision=1 << 62),
    ],
)
def test_odd_creations_are_answered_alike(
    twins: Twins, stream: TwinStreams, request_: WatchCreateRequest
) -> None:
    stream.create(request_)
    twins.ask(TxnRequest(success=[RequestOp(request_put=PutRequest(key=key)) for key in (b"\0", b"a", b"b")]))
    twins.ask(DeleteRangeRequest(key=b"\0", range_end=b"b"))
    finish(twins, [stream])


@pytest.mark.parametrize("payload", [b"", b"\x12\x00", b"\x1a\x00", b"\x0a\x00", b"\x7a\x00"])
def test_a_request_of_nothing_changes_nothing(twins: Twins, stream: TwinStreams, payload: bytes) -> None:
    stream.send(payload)
    if payload == b"\x0a\x00":
        stream.created += 1
    finish(twins, [stream])


def test_the_deletions_of_a_lease_are_told_as_one_revision(twins: Twins, stream: TwinStreams) -> None:
    stream.create(all_keys(prev_kv=True))
    twins.ask(LeaseGrantRequest(ID=9, TTL=1000))
    for key in (b"c", b"a", b"b"):
        twins.ask(PutRequest(key=key, lease=9))
    twins.ask(LeaseRevokeRequest(ID=9))
    finish(twins, [stream])


def test_what_one_transaction_does_to_a_key_is_told_in_its_order(twins: Twins, stream: TwinStreams) -> None:
    stream.create(all_keys(prev_kv=True))
    twins.ask(PutRequest(key=b"b", value=b"1"))
    twins.ask(
        TxnRequest(
            success=[
                RequestOp(request_put=PutRequest(key=b"c", value=b"2")),
                RequestOp(request_delete_range=DeleteRangeRequest(key=b"b", range_end=b"\0")),
                RequestOp(request_put=PutRequest(key=b"b", value=b"3")),
            ]
        )
    )
    stream.create(all_keys(prev_kv=True, start_revision=twins.history.current))
    finish(twins, [stream])
    twins.ask(HashKVRequest())


@pytest.mark.parametrize("fragment", [False, True])
@pytest.mark.parametrize("is_past", [False, True])
def test_large_events_come_in_fragments_if_they_may(
    twins: Twins, stream: TwinStreams, fragment: bool, is_past: bool
) -> None:
    creation = all_keys(fragment=fragment, prev_kv=True)
    if is_past:
        creation.start_revision = twins.history.current + 1
    else:
        stream.create(creation)
    for value in (b"1", b"2"):
        puts = [RequestOp(request_put=PutRequest(key=key, value=value * LARGE)) for key in (b"a", b"b", b"c")]
        twins.ask(TxnRequest(success=puts))
    if is_past:
        stream.create(creation)
    finish(twins, [stream])
    for side in (stream.ours, stream.theirs):
        whole = [response.fragment for response in side.responses if response.events]
        assert any(whole) is fragment
        assert not whole[-1]
        for response in side.responses:
            assert response.fragment <= (len(response.SerializeToString()) < 2 << 20)


def test_progress_is_told_when_asked_for(twins: Twins, stream: TwinStreams) -> None:
    stream.send(WatchRequest(progress_request=WatchProgressRequest()))  # of no watchers: silence
    stream.create(all_keys())
    stream.create(WatchCreateRequest(key=b"a", start_revision=1 + twins.history.compacted))
    wait_for_watchers(twins.theirs)
    for _ in range(3):
        twins.ask(PutRequest(key=b"a"))
        stream.request_progress()
        assert twins.history.current in stream.theirs.transcript.notices
    finish(twins, [stream])


def test_progress_of_a_watcher_of_the_future_is_not_told(twins: Twins, stream: TwinStreams) -> None:
    stream.create(all_keys(start_revision=twins.history.current + 10))
    stream.send(WatchRequest(progress_request=WatchProgressRequest()))
    finish(twins, [stream])
    assert not stream.theirs.transcript.notices


def test_progress_is_told_by_the_clock_to_those_who_want_it(twins: Twins, stream: TwinStreams) -> None:
    stream.create(all_keys(watch_id=1, progress_notify=True))
    stream.create(all_keys(watch_id=2))
    stream.create(all_keys(watch_id=3, progress_notify=True, start_revision=twins.history.current + 1000))
    notice = ("progress", twins.history.current)
    for side in (stream.ours, stream.theirs):
        assert side.wait_for(lambda said: said.watchers[1].count(notice) >= 2)
        assert notice not in side.transcript.watchers[2]
        assert notice not in side.transcript.watchers[3]


def test_a_stream_whose_client_says_no_more_goes_on(twins: Twins, stream: TwinStreams) -> None:
    stream.create(all_keys())
    stream.ours.half_close()
    stream.theirs.half_close()
    twins.ask(PutRequest(key=b"a"))
    stream.settle()
    assert len(stream.theirs.transcript.watchers[0]) == 2


def test_a_message_that_is_none_ends_the_stream(twins: Twins, stream: TwinStreams) -> None:
    stream.create(all_keys())
    stream.send(b"\xff")
    ends = []
    for side in (stream.ours, stream.theirs):
        with side.changed:
            assert side.changed.wait_for(side.call.done, SETTLE_SECONDS)
        ends.append((side.call.code(), side.call.details().replace("\N{NO-BREAK SPACE}", " ")))
    twins.same("the end of the stream", *ends)
    assert ends[1][0] is grpc.StatusCode.INTERNAL


def test_a_stream_that_requires_a_leader_is_like_any_other(twins: Twins) -> None:
    stream = TwinStreams(twins, (("hasleader", "true"),))
    try:
        stream.create(all_keys())
        twins.ask(PutRequest(key=b"a"))
        finish(twins, [stream])
    finally:
        stream.close()
