"""Watchers of one range share a watch at the cluster, as far as they are at the same place.

A broadcast is one such watch and its receivers. A new watcher joins one that is not ahead of it; else it gets
one of its own. A broadcast that has caught up with another hands its receivers over to that and ends, unless
it is popular: then the two would have been the same for long, and moving many costs more than it saves. These
are etcd's rules (server/proxy/grpcproxy/watch_broadcast*.go), but for where a broadcast is: etcd takes the
revision of the header, which runs ahead of the events while a watch catches up; here the events count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from pyetcd.proto.rpc_pb2 import WatchCreateRequest, WatchResponse
from pyetcd.proxy.cache import Span
from pyetcd.proxy.namespace import prefixed_span
from pyetcd.proxy.watch_line import WatchLine
from pyetcd.proxy.watch_news import News

POPULAR: Final = 5  # receivers beyond which a broadcast stays by itself


class Receiver(Protocol):
    """One watcher of a client. `next_revision`: the first it has not seen; 0: whatever comes."""

    next_revision: int

    def tell(self, news: News) -> None: ...

    def tell_created(self) -> None:
        """It begins at its revision, in a watch that is there already."""

    def end(self, reason: str) -> None:
        """Nothing comes any more."""


class Broadcast:
    """One watch at the cluster."""

    def __init__(self, ranges: Ranges, span: Span, line: WatchLine, next_revision: int) -> None:
        self._ranges = ranges
        self.span = span
        self.line = line
        self.next_revision = next_revision
        self.responses = 0
        self.receivers: dict[Receiver, None] = {}
        self.number = 0

    def creation(self) -> WatchCreateRequest:
        key, end = self._ranges.within(self.span)
        return WatchCreateRequest(
            key=key,
            range_end=end,
            start_revision=self.next_revision,
            progress_notify=True,
            prev_kv=True,
        )

    def told(self, response: WatchResponse) -> None:
        if response.created and self.responses and not response.canceled:
            return  # opened again, and the receivers know nothing of it
        news = News(response, self._ranges.hidden)
        if news.last_revision:
            self.next_revision = news.last_revision + 1
        elif self.next_revision == 0 or news.is_progress:
            self.next_revision = news.revision + 1
        self.responses += 1
        if news.events:
            self._ranges.seen(news)
        for receiver in list(self.receivers):
            receiver.tell(news)
        if self.receivers:
            self._ranges.events_shared += len(self.receivers) - 1
        if news.canceled:
            self._ranges.gone(self)
        else:
            self._ranges.coalesce(self)

    def lost(self, reason: str) -> None:
        for receiver in list(self.receivers):
            receiver.end(reason)
        self._ranges.gone(self)

    def takes(self, receiver: Receiver) -> bool:
        """Whether it can join: this has not passed what it wants, and is not waiting for 'now'."""
        if self.next_revision > receiver.next_revision:
            return False
        return self.next_revision != 0 or receiver.next_revision == 0


class Ranges:
    """All broadcasts, by range. `seen`: told of what was seen to change."""

    def __init__(
        self, open_line: Callable[[str], WatchLine], namespace: bytes, seen: Callable[[News], None]
    ) -> None:
        self._open_line = open_line
        self._namespace = namespace
        self.hidden = len(namespace)
        self.seen = seen
        self._broadcasts: dict[Span, list[Broadcast]] = {}
        self._of: dict[Receiver, Broadcast] = {}
        self.events_shared = 0

    @property
    def watchers_shared(self) -> int:
        """How many watchers need no watch of their own."""
        return len(self._of) - sum(map(len, self._broadcasts.values()))

    def within(self, span: Span) -> Span:
        """The range as the cluster knows it."""
        return prefixed_span(self._namespace, *span)

    def add(self, receiver: Receiver, span: Span, token: str) -> None:
        """Tell it what happens in the range from its revision on."""
        broadcasts = self._broadcasts.setdefault(span, [])
        for broadcast in broadcasts:
            if broadcast.takes(receiver):
                broadcast.receivers[receiver] = None
                self._of[receiver] = broadcast
                if broadcast.responses:
                    receiver.tell_created()
                return
        broadcast = Broadcast(self, span, self._open_line(token), receiver.next_revision)
        broadcasts.append(broadcast)
        broadcast.receivers[receiver] = None
        self._of[receiver] = broadcast
        broadcast.number = broadcast.line.add(broadcast)

    def remove(self, receiver: Receiver) -> None:
        """Tell it nothing more."""
        broadcast = self._of.pop(receiver, None)
        if broadcast is None:
            return
        del broadcast.receivers[receiver]
        if not broadcast.receivers:
            self._end(broadcast)

    def gone(self, broadcast: Broadcast) -> None:
        """Its watch is over."""
        for receiver in broadcast.receivers:
            self._of.pop(receiver, None)
        broadcast.receivers.clear()
        self._end(broadcast)

    def coalesce(self, broadcast: Broadcast) -> None:
        """Hand its receivers over to another broadcast that does not miss anything for them."""
        if not 0 < len(broadcast.receivers) < POPULAR:
            return
        for other in self._broadcasts[broadcast.span]:
            if other is broadcast or not other.responses or broadcast.next_revision < other.next_revision:
                continue
            for receiver in broadcast.receivers:
                other.receivers[receiver] = None
                self._of[receiver] = other
            broadcast.receivers.clear()
            self._end(broadcast)
            return

    def _end(self, broadcast: Broadcast) -> None:
        broadcast.line.remove(broadcast.number)
        broadcasts = self._broadcasts.get(broadcast.span, [])
        if broadcast in broadcasts:
            broadcasts.remove(broadcast)
        if not broadcasts:
            self._broadcasts.pop(broadcast.span, None)
