"""Progress notices: a message without events that says up to which revision everything has been sent.

Two kinds, as in etcd: a watcher that asked for them gets one each interval in which it was sent nothing;
and a client may ask for one that speaks for all watchers of its stream. A notice of a revision is a promise
that no event up to it will follow, which Kubernetes builds its caches on. So a notice goes out only behind
a flush, and only for live watchers: those that are behind or on a full stream get none.

The interval starts with the stream, with up to a tenth of it added by chance, so that a thousand clients
which came at once do not tick at once.
"""

from __future__ import annotations

from collections.abc import Callable

from pyetcd.mvcc.watch_group import COMPACTED, LIVE, Watcher, WatchStream
from pyetcd.mvcc.watch_seams import Chance, History, Loop, Timer
from pyetcd.mvcc.watch_send import TIMES_KEPT, Sender
from pyetcd.proto.splice import field_varint

MIN_INTERVAL_SECONDS = 0.1  # as etcd's minWatchProgressInterval
_ALL = field_varint(2, -1)  # WatchResponse.watch_id of a notice for the whole stream


class Progress:
    """When notices are due, and which. `flush` sends all events that have gathered."""

    def __init__(
        self,
        sender: Sender,
        history: History,
        loop: Loop,
        chance: Chance,
        interval_seconds: float,
        flush: Callable[[], None],
    ) -> None:
        self._sender = sender
        self._history = history
        self._loop = loop
        self._chance = chance
        self._interval_seconds = max(interval_seconds, MIN_INTERVAL_SECONDS)
        self._flush = flush
        self._timers: dict[WatchStream, tuple[Timer, float]] = {}
        self.seconds: list[float] = []  # of rounds; bounded

    def want(self, watcher: Watcher) -> None:
        """Let a watcher have periodic notices."""
        stream = watcher.stream
        stream.progress[watcher] = None
        if stream not in self._timers:
            interval = self._interval_seconds * (1 + self._chance.random() / 10)
            passed = self._loop.time() - stream.opened_at
            self._start(stream, interval, interval - passed % interval)

    def unwant(self, watcher: Watcher) -> None:
        """The watcher has ended."""
        stream = watcher.stream
        if watcher in stream.progress:
            del stream.progress[watcher]
            if not stream.progress:
                self.stop(stream)

    def stop(self, stream: WatchStream) -> None:
        timer = self._timers.pop(stream, None)
        if timer is not None:
            timer[0].cancel()

    def _start(self, stream: WatchStream, interval: float, delay: float) -> None:
        self._timers[stream] = self._loop.call_later(delay, lambda: self._tick(stream)), interval

    def _tick(self, stream: WatchStream) -> None:
        _, interval = self._timers[stream]
        self._start(stream, interval, interval)
        begun = self._loop.time()
        self._flush()
        revision = self._history.revision
        if stream.call not in self._sender.full:
            for watcher in stream.progress:
                if _has_all(watcher, revision) and watcher.last_heard() <= stream.heard:
                    self._sender.control(stream.call, revision, field_varint(2, watcher.id))
        stream.heard = self._sender.flushes
        self._flush()
        if len(self.seconds) < TIMES_KEPT:
            self.seconds.append(self._loop.time() - begun)

    def answer(self, stream: WatchStream) -> None:
        """A notice for all watchers of the stream, if all of them are live. Events have just been flushed."""
        watchers = [watcher for watcher in stream.watchers.values() if watcher.place != COMPACTED]
        if not watchers or stream.call in self._sender.full:
            return
        revision = self._history.revision
        if all(_has_all(watcher, revision) for watcher in watchers):
            self._sender.control(stream.call, revision, _ALL)


def _has_all(watcher: Watcher, revision: int) -> bool:
    """Whether a notice of `revision`, the present one, is true of a watcher, and not before its own first
    revision.
    """
    return watcher.place == LIVE and watcher.start_revision <= revision
