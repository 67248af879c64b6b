"""The watch hub: every watcher of one member, where it stands, and what it is told.

A watcher is live (it hears each change as it happens), behind (it catches up from the backend, see
`watch_catchup`), stalled (its stream takes no more for now; when it does, the watcher is behind), or in the
future (its first revision has not come). Changes reach the hub with `on_change`, in revision order; they
gather and leave with `flush`, at the end of the turn: one message with many events where many happened, one
with one event where one did.

Rules that hold here:

* A watcher is sent every event it wants of the revisions from its first on, once, in order, until it is
  canceled.
* A progress notice of revision r is sent only when everything up to r has been sent before it on the same
  stream.
* Messages, their headers and odd cases are those of etcd 3.7 (server/etcdserver/api/v3rpc/watch.go,
  storage/mvcc/watch*.go), but that events of several revisions may share a message and a compaction is
  reported at once.
* Nothing here is bounded by hope: a slow stream costs the wire's backlog and one message (see
  `watch_send`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from sortedcontainers import SortedDict

from pyetcd.mvcc.change import Change, Span
from pyetcd.mvcc.watch_catchup import CatchUp
from pyetcd.mvcc.watch_group import (
    CATCHING_UP,
    COMPACTED,
    FUTURE,
    GONE,
    LIVE,
    QUEUED,
    STALLED,
    Audience,
    Shape,
    Watcher,
    WatchStream,
)
from pyetcd.mvcc.watch_progress import Progress
from pyetcd.mvcc.watch_seams import Chance, Header, History, Loop, Wire
from pyetcd.mvcc.watch_send import Sender, Sent
from pyetcd.proto.splice import field_bytes, field_varint

AUTO_ID: Final = 0  # asks the hub to choose an id
NO_ID: Final = -1  # in a response: not about one watcher
GATHER_BYTES = 4 << 20  # events that have gathered to so much are sent before the end of the turn
CLOSE_PER_TURN: Final = 1024  # watchers of a closed stream taken out in one turn, about 2 ms

DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
EMPTY_RANGE: Final = "mvcc: watcher range is empty"
DEFAULT_PROGRESS_SECONDS = 600.0
DEFAULT_MESSAGE_BYTES: Final = (1536 + 512) * 1024  # etcd's max-request-bytes, and its allowance for gRPC

_CREATED: Final = b"\x18\x01"  # WatchResponse.created = true
_CANCELED: Final = b"\x20\x01"  # WatchResponse.canceled = true
_REFUSED: Final = field_varint(2, NO_ID) + _CREATED + _CANCELED
_NEVER: Final = 1 << 64


class WatchHub:
    """All watchers. Every method is called on the loop; messages go out through `wire`."""

    def __init__(
        self,
        history: History,
        wire: Wire,
        header: Header,
        loop: Loop,
        chance: Chance,
        *,
        backlog_bytes_max: int,
        message_bytes_max: int = DEFAULT_MESSAGE_BYTES,
        progress_seconds: float = DEFAULT_PROGRESS_SECONDS,
    ) -> None:
        """`backlog_bytes_max` is the wire's Limits.stream_backlog_bytes; `message_bytes_max` is
        max-request-bytes plus 512 KiB, where fragments are cut.
        """
        self._history = history
        self._loop = loop
        self._revision = history.revision  # the last revision whose changes the live watchers have heard
        self._sender = Sender(wire, header, backlog_bytes_max, message_bytes_max, loop.time)
        self._live = Audience(history.previous_record)
        self._future: SortedDict[int, dict[Watcher, None]] = SortedDict()
        self._next_future = _NEVER
        self._catch_up = CatchUp(history, self._sender, loop, self._arrived, self._compacted, self._stall)
        self._progress = Progress(self._sender, history, loop, chance, progress_seconds, self.flush)
        self._closing: deque[WatchStream] = deque()
        self._flush_scheduled = False
        self.streams = 0
        self.watchers = 0
        self._stalled = 0

    # Numbers for metrics

    @property
    def slow_watchers(self) -> int:
        """Watchers that are behind or stalled (etcd_debugging_mvcc_slow_watcher_total)."""
        return len(self._catch_up) + self._stalled

    @property
    def events_sent(self) -> int:
        """Events handed to the wire, counted for each watcher (etcd_debugging_mvcc_events_total)."""
        return self._sender.events_sent

    @property
    def messages_sent(self) -> int:
        return self._sender.messages_sent

    @property
    def send_times(self) -> list[Sent]:
        """What messages took to be sent; to be taken away by who reads it."""
        return self._sender.times

    @property
    def progress_seconds(self) -> list[float]:
        """What rounds of periodic progress notices took; to be taken away by who reads it."""
        return self._progress.seconds

    @property
    def pending_bytes(self) -> int:
        """Encoded events that wait for a flush."""
        return self._live.pending_bytes + self._catch_up.pending_bytes

    @property
    def pending_events(self) -> int:
        """Events that wait for a flush of the live watchers (etcd_debugging_mvcc_pending_events_total)."""
        return sum(batch.count for group in self._live.dirty for batch in group.batches)

    # Streams

    def open(self, call: int) -> WatchStream:
        self.streams += 1
        return WatchStream(call, self._loop.time())

    def close(self, stream: WatchStream) -> None:
        """The stream is gone; nothing is sent on it any more. Called once."""
        self.streams -= 1
        self._sender.full.discard(stream.call)
        self._progress.stop(stream)
        self._closing.append(stream)
        if len(self._closing) == 1:
            self._close_some()

    def _close_some(self) -> None:
        stream = self._closing[0]
        for watcher in list(islice(stream.watchers.values(), CLOSE_PER_TURN)):
            self._remove(watcher)
        if not stream.watchers:
            self._closing.popleft()
        if self._closing:
            self._loop.call_soon(self._close_some)

    def set_overrun(self, on_overrun: Callable[[int], None]) -> None:
        """`on_overrun(call)` is told of streams whose client asks on and on without reading the answers."""
        # Later, since it closes the stream in whose midst the hub may be.
        self._sender.on_overrun = lambda call: self._loop.call_soon(lambda: on_overrun(call))

    def writable(self, stream: WatchStream) -> None:
        """The wire takes messages of this stream again."""
        self._sender.full.discard(stream.call)
        stalled, stream.stalled = stream.stalled, {}
        self._stalled -= len(stalled)
        for watcher in stalled:
            self._catch_up.add(watcher)

    # Requests of clients

    def create(
        self,
        stream: WatchStream,
        watch_id: int,
        shape: Shape,
        start_revision: int = 0,
        progress_notify: bool = False,
    ) -> None:
        """Start a watcher, or refuse it, and say so on the stream. `start_revision` 0: from now on."""
        if shape.end and shape.key >= shape.end:
            self.refuse(stream, EMPTY_RANGE)
            return
        if watch_id == AUTO_ID:
            while stream.next_id in stream.watchers:
                stream.next_id += 1
            watch_id = stream.next_id
            stream.next_id += 1
        elif watch_id in stream.watchers:
            self.refuse(stream, DUPLICATE_ID)
            return
        self.flush()
        current = self._history.revision
        watcher = Watcher(stream, watch_id, shape, start_revision)
        stream.watchers[watch_id] = watcher
        self.watchers += 1
        self._control(stream, current, field_varint(2, watch_id) + _CREATED)
        if start_revision == 0:
            watcher.next_revision = current + 1
        self._place(watcher)
        if progress_notify:
            self._progress.want(watcher)

    def refuse(self, stream: WatchStream, reason: str) -> None:
        """Answer a request to create a watcher that cannot be."""
        self.flush()
        self._control(stream, self._history.revision, _REFUSED + field_bytes(6, reason.encode()))

    def cancel(self, stream: WatchStream, watch_id: int) -> None:
        """End a watcher and say so. An id that is not known is passed over in silence, as etcd does."""
        watcher = stream.watchers.get(watch_id)
        if watcher is None:
            return
        self.flush()
        self._remove(watcher)
        self._control(stream, self._history.revision, field_varint(2, watch_id) + _CANCELED)

    def request_progress(self, stream: WatchStream) -> None:
        """Tell the stream how far all its watchers are, if none of them is behind; else say nothing, as
        etcd does.
        """
        self.flush()
        self._progress.answer(stream)
        self._schedule_flush()

    def _control(self, stream: WatchStream, revision: int, fields: bytes) -> None:
        self._sender.control(stream.call, revision, fields)
        self._schedule_flush()

    # Changes

    def on_change(self, revision: int, changes: Sequence[Change]) -> None:
        """A revision has become visible (see `change.OnChange`)."""
        self._revision = revision
        if self._next_future <= revision:
            self._activate(revision)
        live = self._live
        live.publish(changes)
        if live.dirty:
            if live.pending_bytes >= GATHER_BYTES:
                self.flush()
            else:
                self._schedule_flush()

    def on_bulk(self, revision: int, spans: Sequence[Span]) -> None:
        """A revision with very many changes has become visible (see `change.OnBulk`): who watches any of
        them reads them from the backend.
        """
        self._revision = revision
        if self._next_future <= revision:
            self._activate(revision)
        self.flush()
        for group in self._live.touched(spans):
            for watcher in list(group.watchers()):
                self._live.leave(watcher)
                watcher.next_revision = revision
                self._catch_up.add(watcher)

    def restored(self) -> None:
        """The store has been replaced by a later state: everybody reads what came in between."""
        self.flush()
        first = self._revision + 1
        self._revision = self._history.revision
        for group in list(self._live):
            for watcher in list(group.watchers()):
                self._live.leave(watcher)
                watcher.next_revision = first
                self._place(watcher)
        self._catch_up.restart()
        self._activate(self._revision + 1)

    def flush(self) -> None:
        """Send what has gathered. Called at the end of a turn; also by itself soon after the first change."""
        if self._live.dirty:
            self._sender.send(self._live, self._stall)
        elif self._sender.has_controls:
            self._sender.flush_controls()

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()

    # Where watchers are

    def _place(self, watcher: Watcher) -> None:
        """Put a watcher where its next revision belongs. No events wait to be sent to live watchers."""
        if watcher.next_revision <= self._revision:
            self._catch_up.add(watcher)
        elif watcher.next_revision == self._revision + 1:
            watcher.place = LIVE
            self._live.join(watcher, 0, self._sender.flushes)
        else:
            watcher.place = FUTURE
            self._future.setdefault(watcher.next_revision, {})[watcher] = None
            self._next_future = self._future.peekitem(0)[0]

    def _arrived(self, watchers: list[Watcher]) -> None:
        self.flush()
        for watcher in watchers:
            self._place(watcher)

    def _activate(self, revision: int) -> None:
        """The first revision of some future watchers is `revision`, about to be told, or an earlier one."""
        self.flush()
        while self._future and self._future.peekitem(0)[0] <= revision:
            first, watchers = self._future.popitem(0)
            for watcher in watchers:
                if first == revision:
                    watcher.place = LIVE
                    self._live.join(watcher, 0, self._sender.flushes)
                else:
                    self._catch_up.add(watcher)
        self._next_future = self._future.peekitem(0)[0] if self._future else _NEVER

    def _stall(self, watcher: Watcher, revision: int) -> None:
        """Its stream is full: it is not sent what happened from `revision` on."""
        group = watcher.group
        assert group is not None, "only who hears can be stalled"
        group.audience.leave(watcher)
        watcher.next_revision = revision
        watcher.place = STALLED
        watcher.stream.stalled[watcher] = None
        self._stalled += 1

    def _compacted(self, watcher: Watcher, compact_revision: int) -> None:
        """What it wants next is compacted. Its id stays taken until the client cancels it, as in etcd."""
        watcher.place = COMPACTED
        self._progress.unwant(watcher)
        fields = field_varint(2, watcher.id) + _CANCELED + field_varint(5, compact_revision)
        self._control(watcher.stream, 0, fields)  # etcd's header has no revision here

    def _remove(self, watcher: Watcher) -> None:
        """Take a watcher out of wherever it is."""
        place = watcher.place
        if place == LIVE:
            self._live.leave(watcher)
        elif place in (QUEUED, CATCHING_UP):
            self._catch_up.remove(watcher)
        elif place == STALLED:
            del watcher.stream.stalled[watcher]
            self._stalled -= 1
        elif place == FUTURE:
            waiting = self._future[watcher.next_revision]
            del waiting[watcher]
            if not waiting:
                del self._future[watcher.next_revision]
                self._next_future = self._future.peekitem(0)[0] if self._future else _NEVER
        watcher.place = GONE
        self._progress.unwant(watcher)
        del watcher.stream.watchers[watcher.id]
        self.watchers -= 1
