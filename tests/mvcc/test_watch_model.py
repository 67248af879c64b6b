"""The hub against a naive twin: a watcher gets what a walk through the whole history gives, whatever
happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watch_fakes import World, spans_of

from pyetcd.mvcc import watch_catchup, watch_group, watch_hub
from pyetcd.mvcc.change import Change
from pyetcd.mvcc.watch_group import Shape, WatchStream
from pyetcd.proto.kv_pb2 import Event
from pyetcd.proto.rpc_pb2 import WatchResponse

KEYS = [b"a", b"ab", b"b", b"c", b"d"]


@contextmanager
def small_limits() -> Iterator[None]:
    """All limits so low that short histories meet them."""
    with (
        patch.multiple(
            watch_catchup,
            SLICE_CHANGES=3,
            SLICES_PER_FLUSH=2,
            ROUND_WATCHERS=3,
            ROUNDS=2,
            NEAR_REVISIONS=4,
            ROUND_BYTES=120,
            ADMIT_PER_TURN=3,
        ),
        patch.multiple(watch_group, BATCH_BYTES=100, BATCH_REVISIONS=4, JOIN_PARTS=2),
        patch.multiple(watch_hub, CLOSE_PER_TURN=2, GATHER_BYTES=200),
    ):
        yield


@dataclass
class Expected:
    """One watcher as the twin sees it."""

    call: int
    id: int
    shape: Shape
    start: int
    canceled: bool = False  # by the client
    compacted: bool = False
    seen: list[Event] = field(default_factory=list)

    def wants(self, change: Change) -> bool:
        shape = self.shape
        if shape.end is None:
            inside = change.key == shape.key
        else:
            inside = change.key >= shape.key and (not shape.end or change.key < shape.end)
        return inside and not (shape.no_delete if change.deleted else shape.no_put)


class Twin:
    """A world and what should come of it."""

    def __init__(self) -> None:
        self.world = World(backlog_bytes_max=150, message_bytes_max=160, progress_seconds=1.0)
        self.streams: dict[int, WatchStream] = {}
        self.watchers: dict[tuple[int, int], Expected] = {}
        self.all: list[Expected] = []
        self.calls = 0

    # What may happen

    def open(self) -> None:
        self.calls += 1
        self.world.wire.open(self.calls)
        self.streams[self.calls] = self.world.hub.open(self.calls)

    def stream(self, pick: int) -> int:
        if not self.streams:
            self.open()
        return list(self.streams)[pick % len(self.streams)]

    def create(self, pick: int, shape: Shape, offset: int | None, chosen: int, progress: bool) -> None:
        call = self.stream(pick)
        revision = self.world.history.revision
        start = 0 if offset is None else max(1, revision + offset)
        before = set(self.streams[call].watchers)
        self.world.hub.create(self.streams[call], chosen, shape, start, progress)
        for watch_id in set(self.streams[call].watchers) - before:
            expected = Expected(call, watch_id, shape, start or revision + 1)
            self.watchers[call, watch_id] = expected
            self.all.append(expected)

    def cancel(self, pick: int, watch_id: int) -> None:
        call = self.stream(pick)
        self.world.hub.cancel(self.streams[call], watch_id)
        gone = self.watchers.pop((call, watch_id), None)
        if gone is not None:
            gone.canceled = True

    def close(self, pick: int) -> None:
        call = self.stream(pick)
        self.world.hub.close(self.streams.pop(call))
        del self.world.wire.lines[call]
        for key in [key for key in self.watchers if key[0] == call]:
            gone = self.watchers.pop(key)
            self.all.remove(gone)
        self.all = [each for each in self.all if each.call != call]

    def write(self, operations: list[tuple[bytes, bytes | None]], bulk: bool) -> None:
        history = self.world.history
        changes = history.write(operations)
        if not changes:
            return
        if bulk:
            history.unsettled.add(history.revision)
            self.world.hub.on_bulk(history.revision, spans_of(changes))
        else:
            self.world.hub.on_change(history.revision, changes)

    def restore(self, writes: int) -> None:
        for at in range(writes):
            self.world.history.write([(KEYS[at % len(KEYS)], b"restored %d" % at)])
        self.world.hub.restored()

    def compact(self, back: int) -> None:
        history = self.world.history
        history.compact(max(history.compact_revision, history.revision - back))

    def read(self, pick: int, messages: int) -> None:
        call = self.stream(pick)
        if self.world.wire.client_reads(call, messages):
            self.world.hub.writable(self.streams[call])

    # What must have come of it

    def finish(self) -> None:
        """Let everybody read and everything settle."""
        self.world.history.unsettled.clear()
        for _ in range(300):
            self.world.loop.advance(0.006)
            for at in range(len(self.streams)):
                self.read(at, 1 << 30)
            if not self.world.loop.soon and not any(line.unsent for line in self.world.wire.lines.values()):
                break
        assert self.world.hub.slow_watchers == 0, "all have caught up"
        assert self.world.hub.pending_bytes == 0

    def check(self) -> None:
        for call, line in self.world.wire.lines.items():
            mine = [each for each in self.all if each.call == call]
            open_now: dict[int, Expected] = {}
            for response in line.read:
                self.check_response(response, mine, open_now)
        for each in self.all:
            self.check_watcher(each)

    def check_response(
        self, response: WatchResponse, mine: list[Expected], open_now: dict[int, Expected]
    ) -> None:
        watch_id = response.watch_id
        if response.created:
            if not response.canceled:
                open_now[watch_id] = mine.pop(next(at for at, each in enumerate(mine) if each.id == watch_id))
        elif response.canceled:
            gone = open_now.pop(watch_id)
            if response.compact_revision:
                gone.compacted = True
                open_now[watch_id] = gone  # canceling it again is answered, as by etcd
        elif response.events:
            watcher = open_now[watch_id]
            assert not watcher.compacted, "nothing comes behind a cancellation"
            first, last = response.events[0].kv.mod_revision, response.events[-1].kv.mod_revision
            if watcher.seen and not watcher.shape.fragment:
                assert first > watcher.seen[-1].kv.mod_revision, "a revision comes whole"
            assert response.header.revision >= last
            watcher.seen.extend(response.events)
        else:
            told = open_now.values() if watch_id == -1 else [open_now[watch_id]]
            for watcher in told:
                if watcher.compacted:
                    continue
                due = sum(1 for _ in self.due(watcher, response.header.revision))
                assert len(watcher.seen) == due, "a notice never overtakes an event"

    def due(self, watcher: Expected, until: int) -> Iterator[Change]:
        for revision in range(watcher.start, min(until, self.world.history.revision) + 1):
            yield from filter(watcher.wants, self.world.history.log.get(revision, ()))

    def check_watcher(self, watcher: Expected) -> None:
        expected = list(self.due(watcher, self.world.history.revision))
        if watcher.canceled or watcher.compacted:
            if watcher.compacted:
                assert len(watcher.seen) <= len(expected)
                assert watcher.start <= self.world.history.compact_revision
            expected = expected[: len(watcher.seen)]
        assert len(watcher.seen) == len(expected)
        for event, change in zip(watcher.seen, expected, strict=True):
            assert event.kv.SerializeToString() == change.record
            assert (event.type == Event.DELETE) == change.deleted
            before = self.world.history.before(change)
            if event.HasField("prev_kv"):
                assert watcher.shape.prev_kv
                assert event.prev_kv.SerializeToString() == before
            elif watcher.shape.prev_kv and before is not None:
                assert change.revision - 1 < self.world.history.compact_revision


picks = st.integers(0, 3)
shapes = st.builds(
    Shape,
    st.sampled_from([b"a", *KEYS]),
    st.sampled_from([None, b"", b"b", b"e"]),
    no_put=st.sampled_from([False, False, False, True]),
    no_delete=st.sampled_from([False, False, False, True]),
    prev_kv=st.booleans(),
    fragment=st.booleans(),
)
operations = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from([None, b"1", b"2", b"x" * 30])),
    min_size=1,
    max_size=6,
    unique_by=lambda operation: operation[0],
)
creates = st.tuples(
    st.just("create"), picks, shapes, st.none() | st.integers(-12, 3), st.integers(0, 4), st.booleans()
)
writes = st.tuples(st.just("write"), operations, st.sampled_from([False] * 9 + [True]))
steps = st.one_of(
    *[creates] * 5,
    *[writes] * 7,
    st.tuples(st.just("read"), picks, st.integers(1, 5)),
    *[st.tuples(st.just("turn"), st.integers(1, 2))] * 2,
    st.tuples(st.just("cancel"), picks, st.integers(-1, 3)),
    st.tuples(st.just("open")),
    st.tuples(st.just("close"), picks),
    *[st.tuples(st.just("compact"), st.integers(0, 6))] * 2,
    st.tuples(st.just("ask"), picks),
    st.tuples(st.just("settle")),
    st.tuples(st.just("advance"), st.sampled_from([0.004, 0.3, 1.1])),
    st.tuples(st.just("restore"), st.integers(0, 5)),
)


def run(twin: Twin, step: tuple[object, ...]) -> None:
    match step:
        case ("create", int(pick), Shape() as shape, offset, int(chosen), bool(progress)):
            assert offset is None or isinstance(offset, int)
            twin.create(pick, shape, offset, chosen, progress)
        case ("write", list(changes), bool(bulk)):
            twin.write(changes, bulk)
        case ("read", int(pick), int(messages)):
            twin.read(pick, messages)
        case ("turn", int(count)):
            for _ in range(count):
                twin.world.loop.turn()
        case ("cancel", int(pick), int(watch_id)):
            twin.cancel(pick, watch_id)
        case ("open",):
            twin.open()
        case ("close", int(pick)):
            twin.close(pick)
        case ("compact", int(back)):
            twin.compact(back)
        case ("ask", int(pick)):
            twin.world.hub.request_progress(twin.streams[twin.stream(pick)])
        case ("settle",):
            twin.world.history.unsettled.clear()
        case ("advance", float(seconds)):
            twin.world.loop.advance(seconds)
        case ("restore", int(writes)):
            twin.world.history.unsettled.clear()
            twin.restore(writes)
        case other:
            raise AssertionError(other)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.integers(0, 15), st.lists(steps, min_size=30, max_size=80))
def test_a_watcher_gets_every_event_once_in_order_whatever_happens(
    before: int, history: list[tuple[object, ...]]
) -> None:
    with small_limits():
        twin = Twin()
        for at in range(before):
            twin.write([(KEYS[at % 2], b"%d" % at)], bulk=False)
        for step in history:
            run(twin, step)
        twin.finish()
        twin.check()
        while twin.streams:
            twin.close(0)
        twin.world.loop.settle()
        assert twin.world.hub.watchers == 0
        assert twin.world.hub.streams == 0
