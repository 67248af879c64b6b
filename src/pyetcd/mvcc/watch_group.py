"""Watchers that want the same, kept together, so that an event costs once for all of them.

A *shape* is what decides which events a watcher gets and how they look. Watchers of one shape form a
*group*; within it those with the same watch id form a *cohort*, to whom the very same message goes, each on
its own stream. An event is encoded once, appended once to each group that wants it, and gathers there in a
*batch* until the hub flushes: then a batch becomes one message for a whole cohort. So an event costs
nothing per watcher; a message costs what the wire needs.

An *audience* is a set of groups that hear the same part of history: all watchers that are up to date are
one audience, those that catch up together are another (see `watch_catchup`).

Rules that hold here:

* A batch ends between two revisions, never within one: clients rely on a revision coming whole.
* A batch is closed at `BATCH_BYTES` or `BATCH_REVISIONS`, whichever comes first, so what gathers is bounded
  by that and one revision.
* A group that nobody is left in is forgotten, with its events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from pyetcd.mvcc.change import Change, Span
from pyetcd.mvcc.watch_index import WatchIndex
from pyetcd.proto.splice import varint

BATCH_BYTES: Final = 1 << 20  # well below the 4 MiB most gRPC clients take unless told otherwise
BATCH_REVISIONS: Final = 1000  # as etcd's watchBatchMaxRevs
JOIN_PARTS: Final = 512  # so many parts of a batch are made one, so that the wire has few of them to look at

_EVENTS: Final = b"\x5a"  # WatchResponse.events
_PUT: Final = b"\x12"  # Event.kv
_DELETE: Final = b"\x08\x01\x12"  # Event.type = DELETE, Event.kv
_PREV_KV: Final = b"\x1a"  # Event.prev_kv

# Where a watcher is.
FUTURE: Final = "waits for its first revision"
LIVE: Final = "up to date"
QUEUED: Final = "waits to catch up"
CATCHING_UP: Final = "catches up"
STALLED: Final = "waits for its stream to be writable"
COMPACTED: Final = "ended by a compaction"
GONE: Final = "canceled"


class Shape(NamedTuple):
    """What a watcher wants: a key (`end` None), `[key, end)` or, with an empty end, all from key on; and in
    which form.
    """

    key: bytes
    end: bytes | None
    no_put: bool = False
    no_delete: bool = False
    prev_kv: bool = False
    fragment: bool = False


class WatchStream:
    """One client stream: its watchers by id, and those of them that wait for it to be writable."""

    __slots__ = ("call", "heard", "next_id", "opened_at", "progress", "stalled", "watchers")

    def __init__(self, call: int, now: float) -> None:
        self.call = call
        self.opened_at = now  # loop time
        self.watchers: dict[int, Watcher] = {}
        self.next_id = 0
        self.stalled: dict[Watcher, None] = {}
        self.progress: dict[Watcher, None] = {}  # those that want progress notices
        self.heard = 0  # the flush up to which progress notices were considered


class Watcher:
    """One watcher. It has been sent every event it wants of the revisions before `next_revision`, unless it
    is LIVE or CATCHING_UP: then its group knows.
    """

    __slots__ = (
        "group",
        "heard",
        "id",
        "joined",
        "next_revision",
        "place",
        "shape",
        "start_revision",
        "stream",
    )

    def __init__(self, stream: WatchStream, watch_id: int, shape: Shape, start_revision: int) -> None:
        self.stream = stream
        self.id = watch_id
        self.shape = shape
        self.start_revision = start_revision
        self.next_revision = start_revision
        self.place = QUEUED
        self.group: Group | None = None
        self.heard = 0  # the last flush that sent it an event, while it was in other groups
        self.joined = 0  # the last flush before it joined its group

    def last_heard(self) -> int:
        """The number of the last flush that sent it an event."""
        group = self.group
        if group is not None and group.sent > self.joined:
            return group.sent
        return self.heard


class Batch:
    """Events of one or several whole revisions, encoded as fields of a WatchResponse."""

    __slots__ = ("count", "first_revision", "joined", "last_revision", "parts", "revisions", "size")

    def __init__(self, revision: int) -> None:
        self.first_revision = revision
        self.last_revision = revision
        self.revisions = 1
        self.parts: list[bytes] = []
        self.joined = 0  # the first so many parts are joined ones
        self.size = 0
        self.count = 0  # of events

    def join(self) -> None:
        """Make one part of those appended since the last time."""
        parts = self.parts
        parts[self.joined :] = [b"".join(parts[self.joined :])]
        self.joined += 1


class Cohort:
    """Watchers of one group with the same id, by the call of their stream."""

    __slots__ = ("_calls", "members")

    def __init__(self) -> None:
        self.members: dict[int, Watcher] = {}
        self._calls: list[int] | None = None

    @property
    def calls(self) -> list[int]:
        """The streams to send to; the same list until the cohort changes."""
        if self._calls is None:
            self._calls = list(self.members)
        return self._calls

    def changed(self) -> None:
        self._calls = None


class Group:
    """Watchers of one shape within an audience, and the events that wait to be sent to them."""

    __slots__ = (
        "audience",
        "batches",
        "cohorts",
        "fragment",
        "min_revision",
        "no_delete",
        "no_put",
        "prev_kv",
        "sent",
        "shape",
    )

    def __init__(self, audience: Audience, shape: Shape, min_revision: int) -> None:
        self.audience = audience
        self.shape = shape
        self.min_revision = min_revision  # earlier events are not for it
        self.no_put = shape.no_put
        self.no_delete = shape.no_delete
        self.prev_kv = shape.prev_kv
        self.fragment = shape.fragment
        self.cohorts: dict[int, Cohort] = {}
        self.batches: list[Batch] = []
        self.sent = 0  # the number of the last flush that sent it an event

    def watchers(self) -> Iterator[Watcher]:
        for cohort in self.cohorts.values():
            yield from cohort.members.values()

    def add(self, revision: int, event: bytes) -> None:
        """Append an encoded event (0.3 us)."""
        batches = self.batches
        if not batches:
            batch = Batch(revision)
            batches.append(batch)
            self.audience.dirty.append(self)
        else:
            batch = batches[-1]
            if revision != batch.last_revision:
                if batch.size >= BATCH_BYTES or batch.revisions >= BATCH_REVISIONS:
                    batch = Batch(revision)
                    batches.append(batch)
                else:
                    batch.last_revision = revision
                    batch.revisions += 1
        parts = batch.parts
        parts.append(event)
        batch.size += len(event)
        batch.count += 1
        if len(parts) - batch.joined >= JOIN_PARTS and not self.fragment:
            batch.join()


Previous = Callable[[Change], bytes | None]


class Audience:
    """Groups that hear the same part of history. `previous` reads the KeyValue before a change."""

    def __init__(self, previous: Previous) -> None:
        self.index: WatchIndex[Group] = WatchIndex()
        self.dirty: list[Group] = []  # groups with events to send
        self.pending_bytes = 0  # encoded for them so far (those of groups forgotten since included)
        self.watchers = 0
        self._groups: dict[tuple[Shape, int], Group] = {}
        self._previous = previous

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def join(self, watcher: Watcher, min_revision: int, flush: int) -> None:
        """Let a watcher hear what comes, from `min_revision` on. Its group has no events waiting, or they
        are for it too. `flush`: the number of the last flush.
        """
        assert watcher.group is None, "a watcher hears of an event once"
        shape = watcher.shape
        group = self._groups.get((shape, min_revision))
        if group is None:
            group = self._groups[shape, min_revision] = Group(self, shape, min_revision)
            self.index.add(shape.key, shape.end, group)
        cohort = group.cohorts.get(watcher.id)
        if cohort is None:
            cohort = group.cohorts[watcher.id] = Cohort()
        cohort.members[watcher.stream.call] = watcher
        cohort.changed()
        watcher.group = group
        watcher.joined = flush
        self.watchers += 1

    def leave(self, watcher: Watcher) -> None:
        """The watcher hears no more; events of its group that wait to be sent are not sent to it."""
        group = watcher.group
        assert group is not None, "only who hears can leave"
        assert group.audience is self, "it is one of ours"
        cohort = group.cohorts[watcher.id]
        del cohort.members[watcher.stream.call]
        cohort.changed()
        if not cohort.members:
            del group.cohorts[watcher.id]
            if not group.cohorts:
                self._forget(group)
        watcher.heard = watcher.last_heard()
        watcher.group = None
        self.watchers -= 1

    def _forget(self, group: Group) -> None:
        shape = group.shape
        del self._groups[shape, group.min_revision]
        self.index.remove(shape.key, shape.end, group)
        if group.batches:
            group.batches.clear()
            self.dirty.remove(group)
            if not self.dirty:
                self.pending_bytes = 0

    def publish(self, changes: Sequence[Change]) -> None:
        """Encode each change and append it to the groups that want it (1 us a change and 0.4 us a group)."""
        match = self.index.match
        for change in changes:
            groups = match(change.key)
            if groups:
                self._offer(change, groups)

    def _offer(self, change: Change, groups: list[Group]) -> None:
        revision, deleted, record = change.revision, change.deleted, change.record
        plain = with_previous = b""
        for group in groups:
            if revision < group.min_revision or (group.no_delete if deleted else group.no_put):
                continue
            if group.prev_kv:
                if not with_previous:
                    with_previous = _encode(deleted, record, self._previous(change))
                    self.pending_bytes += len(with_previous)
                group.add(revision, with_previous)
            else:
                if not plain:
                    plain = _encode(deleted, record, None)
                    self.pending_bytes += len(plain)
                group.add(revision, plain)

    def touched(self, spans: Sequence[Span]) -> list[Group]:
        """The groups that watch some key of the spans."""
        return [
            group for group in self._groups.values() if any(_overlap(group.shape, span) for span in spans)
        ]

    def take_dirty(self) -> list[Group]:
        """The groups with events to send; they count as sent."""
        dirty, self.dirty = self.dirty, []
        self.pending_bytes = 0
        return dirty


def _encode(deleted: bool, record: bytes, previous: bytes | None) -> bytes:
    """An Event as field 11 of a WatchResponse (0.5 us)."""
    head = _DELETE if deleted else _PUT
    if previous is None:
        length = varint(len(record))
        total = varint(len(head) + len(length) + len(record))
        return b"".join((_EVENTS, total, head, length, record))
    event = b"".join((head, varint(len(record)), record, _PREV_KV, varint(len(previous)), previous))
    return b"".join((_EVENTS, varint(len(event)), event))


def _overlap(shape: Shape, span: Span) -> bool:
    if shape.end is None:
        return span.first <= shape.key <= span.last
    return shape.key <= span.last and (not shape.end or span.first < shape.end)
