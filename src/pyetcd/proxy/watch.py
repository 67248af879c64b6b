"""Watch: a client's stream and its watchers, which are told by broadcasts.

Rules that hold here:

* Whether a client may watch a range is asked of the cluster first, by counting it with the client's token.
  What the client says meanwhile on the same stream waits its turn.
* Ids are the stream's own, from 0 on, whatever the client asks for, as etcd's proxy has it.
* A client that does not take what it is sent is not waited for: beyond a bound its stream is ended, and its
  library goes on from where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.api.dispatch import Outbox
from pyetcd.proto.errors import CANCELED_CODE, COMPACTED, NO_LEADER, RESOURCE_EXHAUSTED, EtcdError
from pyetcd.proto.rpc_pb2 import RangeRequest, WatchCreateRequest, WatchRequest
from pyetcd.proxy.broadcasts import Ranges
from pyetcd.proxy.calls import Caller, Handle, Kv
from pyetcd.proxy.kv import RANGE
from pyetcd.proxy.leadership import Leadership, wants_leader
from pyetcd.proxy.upstream import status_text
from pyetcd.proxy.watch_news import NO_WATCH_ID, News, filters_of, header_at, message

UNSENT_BYTES_MAX: Final = 16 << 20  # of a stream
WAITING_MAX: Final = 10_000  # requests of a stream
EMPTY_HEADER: Final = b"\x0a\x00"
SLOW: Final = "failed to put a watch response on the watcher's proxy stream channel,err is timeout"

_log = logs.get("proxy")


class Watcher:
    """One watcher of a client."""

    def __init__(self, stream: WatchStream, number: int, request: WatchCreateRequest) -> None:
        self._stream = stream
        self.number = number
        self.next_revision = request.start_revision
        self._progress = request.progress_notify
        self._previous = request.prev_kv
        self._filters = filters_of(request)
        self._is_created = False
        self.last_header = EMPTY_HEADER

    def tell(self, news: News) -> None:
        if news.is_progress and not self._progress:
            return
        if news.events and self.next_revision > news.revision:
            return
        if self.next_revision == 0:
            self.next_revision = news.revision + 1
        events = b""
        if news.last_revision >= self.next_revision:
            events = news.form(self._previous, self._filters, self.next_revision)
            self.next_revision = news.last_revision + 1
        if not (events or news.is_progress or news.created or news.canceled or news.compact_revision):
            return
        if news.created and self._is_created and not news.canceled:
            return
        self.last_header = news.header
        self._is_created = self._is_created or news.created
        self._stream.send(
            message(
                news.header,
                self.number,
                created=news.created,
                canceled=news.canceled,
                compact_revision=news.compact_revision,
                reason=news.reason,
                events=events,
            )
        )
        if news.canceled:
            self._stream.forget(self)

    def tell_created(self) -> None:
        self._is_created = True
        self._stream.send(message(header_at(self.next_revision), self.number, created=True))

    def end(self, reason: str) -> None:
        created = not self._is_created
        self._stream.send(
            message(self.last_header, self.number, created=created, canceled=True, reason=reason)
        )
        self._stream.forget(self)


class WatchStream:
    """A client's stream."""

    def __init__(self, service: WatchService, call: int, token: str) -> None:
        self._service = service
        self._call = call
        self._token = token
        self._watchers: dict[int, Watcher] = {}
        self._next = 0
        self._waiting: deque[WatchRequest] = deque()
        self._asking: Handle | None = None
        self._is_cut_off = False

    def on_message(self, payload: bytes) -> None:
        request = WatchRequest.FromString(payload)
        if self._asking is None:
            self._take(request)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append(request)
        else:
            raise EtcdError(RESOURCE_EXHAUSTED, "grpc-proxy: too many requests on a watch stream")

    def on_half_close(self) -> None:
        """etcd's server goes on telling, its proxy ends the stream, and so do we."""
        self.on_cancel()
        self._service.finish(self._call, CANCELED_CODE, "context canceled")

    def on_cancel(self) -> None:
        self._waiting.clear()
        if self._asking is not None:
            self._asking.cancel()
        for watcher in self._watchers.values():
            self._service.ranges.remove(watcher)
        self._watchers.clear()
        self._service.closed(self)

    def on_writable(self) -> None: ...

    def send(self, parts: list[bytes]) -> None:
        unsent = self._service.send(self._call, parts)
        if unsent > UNSENT_BYTES_MAX + sum(map(len, parts)) and not self._is_cut_off:
            self._is_cut_off = True
            _log.error(SLOW)
            self._service.loop_soon(self.cut_off)

    def cut_off(self) -> None:
        """End it; what it was not told yet its client asks for again."""
        self.end(CANCELED_CODE, "context canceled")

    def end(self, code: int, text: str) -> None:
        self.on_cancel()
        self._service.finish(self._call, code, text)

    def forget(self, watcher: Watcher) -> None:
        """It was told its end."""
        self._watchers.pop(watcher.number, None)

    def _take(self, request: WatchRequest) -> None:
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            self._cancel(request.cancel_request.watch_id)
        else:
            _log.error("not supported request type by gRPC proxy", {"request": str(request).strip()})

    def _create(self, request: WatchCreateRequest) -> None:
        if request.start_revision < 0:
            self._refuse(COMPACTED.message)
            return
        ended = False

        def answered(answer: bytes | None, code: int, text: str) -> None:
            nonlocal ended
            ended = True
            self._asking = None
            if answer is None:
                self._refuse(status_text(code, text))
            else:
                self._begin(request)
            if not ended_at_once:
                self._go_on()

        ended_at_once = True
        key, end = (request.key, request.range_end) if request.key else (b"\0", b"\0")
        count = RangeRequest(key=key, range_end=end, serializable=True, count_only=True, limit=1)
        handle = self._service.kv.begin(RANGE, count.SerializeToString(), Caller(self._token), answered)
        ended_at_once = False
        if not ended:
            self._asking = handle

    def _go_on(self) -> None:
        while self._waiting and self._asking is None:
            self._take(self._waiting.popleft())

    def _begin(self, request: WatchCreateRequest) -> None:
        key, end = request.key, request.range_end
        if end and end != b"\0" and end <= key:
            self._refuse("")
            return
        watcher = self._watchers[self._next] = Watcher(self, self._next, request)
        self._next += 1
        self._service.ranges.add(watcher, (key, end), self._token)
        _log.debug("create watcher", {"key": key, "end": end, "watcherId": self._next})

    def _refuse(self, reason: str) -> None:
        self.send(message(EMPTY_HEADER, NO_WATCH_ID, created=True, canceled=True, reason=reason))

    def _cancel(self, number: int) -> None:
        watcher = self._watchers.pop(number, None)
        if watcher is not None:
            self._service.ranges.remove(watcher)
            self.send(message(watcher.last_header, number, canceled=True))
        _log.debug("cancel watcher", {"watcherId": number})


class WatchService:
    """All streams."""

    def __init__(
        self,
        ranges: Ranges,
        kv: Kv,
        outbox: Outbox,
        leadership: Leadership,
        loop_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self.ranges = ranges
        self.kv = kv
        self.finish = outbox.finish
        self.loop_soon = loop_soon
        self._outbox = outbox
        self._leadership = leadership

    def open(self, call: int, meta: Meta) -> WatchStream:
        stream = WatchStream(self, call, meta.token or "")
        if wants_leader(meta):
            if not self._leadership.has_leader:
                raise NO_LEADER
            self._leadership.streams.add(stream)
        return stream

    def send(self, call: int, parts: list[bytes]) -> int:
        return self._outbox.server.send_many([(call, parts)])[0]

    def closed(self, stream: WatchStream) -> None:
        self._leadership.streams.discard(stream)
