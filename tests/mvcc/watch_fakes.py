"""What the watch tests put around the hub: a loop on virtual time, a wire with slow readers, a history in a
list."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pyetcd.mvcc.change import UNKNOWN, Change, Span
from pyetcd.mvcc.watch_hub import WatchHub
from pyetcd.proto.rpc_pb2 import WatchResponse
from pyetcd.proto.splice import key_value, response_header


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualLoop:
    """The loop's clock and queue; nothing runs but in `turn` and `advance`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[float, int, Timer]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self._count += 1
        timer = Timer(callback)
        heapq.heappush(self.timers, (self.now + delay, self._count, timer))
        return timer

    def turn(self) -> bool:
        """Run what is queued now; False when there was nothing."""
        ready = len(self.soon)
        for _ in range(ready):
            self.soon.popleft()()
        return ready > 0

    def settle(self) -> None:
        """Run until nothing is queued, timers not counted."""
        for _ in range(100_000):
            if not self.turn():
                return
        raise AssertionError("the loop never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, timers in order."""
        until = self.now + seconds
        self.settle()
        while self.timers and self.timers[0][0] <= until:
            self.now, _, timer = heapq.heappop(self.timers)
            if timer.callback is not None:
                timer.callback()
            self.settle()
        self.now = until


class NoChance:
    def random(self) -> float:
        return 0.0


@dataclass
class Line:
    """One stream on the wire: what was sent and not yet read, and what was read."""

    unsent: deque[bytes] = field(default_factory=deque)
    unsent_bytes: int = 0
    most_bytes: int = 0
    read: list[WatchResponse] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)


class FakeWire:
    """Streams whose clients read only when told to."""

    def __init__(self, backlog_bytes_max: int) -> None:
        self.backlog_bytes_max = backlog_bytes_max
        self.lines: dict[int, Line] = {}
        self.fanouts = 0

    def open(self, call: int) -> None:
        self.lines[call] = Line()

    def _send(self, call: int, body: bytes | Sequence[bytes]) -> int:
        line = self.lines.get(call)
        if line is None:
            return -1
        data = body if isinstance(body, bytes) else b"".join(body)
        line.unsent.append(data)
        line.unsent_bytes += len(data)
        line.most_bytes = max(line.most_bytes, line.unsent_bytes)
        return line.unsent_bytes

    def send_many(self, messages: Sequence[tuple[int, bytes | Sequence[bytes]]]) -> list[int]:
        return [self._send(call, body) for call, body in messages]

    def send_fanout(self, calls: Sequence[int], body: bytes | Sequence[bytes]) -> list[int]:
        self.fanouts += 1
        return [self._send(call, body) for call in calls]

    def client_reads(self, call: int, messages: int = 1 << 30) -> bool:
        """The client takes some messages; True when that made the stream writable again."""
        line = self.lines[call]
        was_full = line.unsent_bytes > self.backlog_bytes_max
        for _ in range(min(messages, len(line.unsent))):
            data = line.unsent.popleft()
            line.unsent_bytes -= len(data)
            line.raw.append(data)
            line.read.append(WatchResponse.FromString(data))
        return was_full and line.unsent_bytes <= self.backlog_bytes_max


class ListEvents:
    """Reads a `ListHistory` as `events.EventReader` reads the backend: revisions may be cut by the limit."""

    def __init__(self, history: ListHistory, start_revision: int) -> None:
        self._history = history
        self.next_revision = start_revision
        self._within = 0

    def read(self, current: int, limit: int) -> list[Change]:
        found: list[Change] = []
        while self.next_revision <= min(current, self._history.settled):
            changes = self._history.kept.get(self.next_revision, [])[self._within :]
            room = limit - len(found)
            found += changes[:room]
            if len(changes) > room:
                self._within += room
                return found
            self._within = 0
            self.next_revision += 1
        return found


class ListHistory:
    """All that ever happened, and what a compaction has left of it."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = 0
        self.unsettled: set[int] = set()
        self.log: dict[int, list[Change]] = {}  # everything
        self.kept: dict[int, list[Change]] = {}  # what the backend still has
        self.live: dict[bytes, bytes] = {}
        self._states: dict[int, dict[bytes, bytes]] = {1: {}}

    @property
    def settled(self) -> int:
        return min(self.unsettled, default=1 << 60) - 1

    def events(self, start_revision: int) -> ListEvents:
        return ListEvents(self, start_revision)

    def previous_record(self, change: Change) -> bytes | None:
        if change.revision - 1 < self.compact_revision:
            return None
        return self.before(change)

    def before(self, change: Change) -> bytes | None:
        return self._states[change.revision - 1].get(change.key)

    def write(self, operations: Sequence[tuple[bytes, bytes | None]]) -> list[Change]:
        """One transaction of puts and deletions (value None); a key at most once. The changes, none if
        nothing changed."""
        revision = self.revision + 1
        changes: list[Change] = []
        for key, value in operations:
            old = self.live.get(key)
            if value is None:
                if old is not None:
                    del self.live[key]
                    record = key_value(key, 0, revision, 0, b"", 0)
                    changes.append(Change(revision, True, key, record, UNKNOWN))
            else:
                self.live[key] = record = key_value(key, revision, revision, 1, value, 0)
                changes.append(Change(revision, False, key, record, UNKNOWN))
        if changes:
            self.revision = revision
            self.log[revision] = changes
            self.kept[revision] = changes
            self._states[revision] = dict(self.live)
        return changes

    def compact(self, revision: int) -> None:
        self.compact_revision = revision
        newest = {change.key: at for at, changes in self.log.items() if at <= revision for change in changes}
        for at in [at for at in self.kept if at < revision]:
            left = [change for change in self.kept[at] if newest[change.key] == at and not change.deleted]
            self.kept[at] = left


def spans_of(changes: Sequence[Change]) -> list[Span]:
    keys = sorted(change.key for change in changes)
    return [Span(keys[0], keys[-1])]


def header(revision: int) -> bytes:
    return response_header(0xC1, 0xA1, revision, 2)


@dataclass
class World:
    """A hub with everything around it."""

    backlog_bytes_max: int = 1 << 20
    message_bytes_max: int = 2 << 20
    progress_seconds: float = 600.0

    def __post_init__(self) -> None:
        self.loop = VirtualLoop()
        self.history = ListHistory()
        self.wire = FakeWire(self.backlog_bytes_max)
        self.hub = WatchHub(
            self.history,
            self.wire,
            header,
            self.loop,
            NoChance(),
            backlog_bytes_max=self.backlog_bytes_max,
            message_bytes_max=self.message_bytes_max,
            progress_seconds=self.progress_seconds,
        )

    def write(self, *operations: tuple[bytes, bytes | None]) -> int:
        """One transaction, told to the hub; its revision."""
        changes = self.history.write(operations)
        if changes:
            self.hub.on_change(self.history.revision, changes)
        return self.history.revision

    def put(self, key: bytes, value: bytes = b"v") -> int:
        return self.write((key, value))

    def delete(self, key: bytes) -> int:
        return self.write((key, None))
