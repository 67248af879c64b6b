"""LeaseKeepAlive: however many clients keep a lease alive at once, the cluster is asked once.

A request joins the one for the same lease that is under way with the same token, and all who joined get its
answer. So an answer is never older than the request, and a lease whose clients have gone is not kept alive
for them. The requests of one token share a stream to the cluster; when it breaks, what is under way is asked
again, since renewing twice harms nobody.
"""

from __future__ import annotations

import asyncio
from typing import Final

from pyetcd._native import Meta
from pyetcd.api.dispatch import Outbox
from pyetcd.proto.errors import INTERNAL, NO_LEADER, OK, RESOURCE_EXHAUSTED, UNAVAILABLE, EtcdError
from pyetcd.proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from pyetcd.proxy.calls import Caller
from pyetcd.proxy.leadership import Leadership, wants_leader
from pyetcd.proxy.upstream import Line, Upstream

KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
UNANSWERED_MAX: Final = 10_000  # requests of a stream
UNSENT_BYTES_MAX: Final = 1 << 20
PAUSES_SECONDS: Final = (0.01, 0.5)
IDLE_SECONDS: Final = 60.0  # after which a stream to the cluster without requests is closed
TOO_MANY: Final = "grpc-proxy: too many keepalives without an answer"


class KeepAliveLine:
    """The stream to the cluster for one token, and who waits for which lease."""

    def __init__(self, service: LeaseStreams, upstream: Upstream, token: str) -> None:
        self._service = service
        self._upstream = upstream
        self._token = token
        self._waiting: dict[int, list[KeepAlives]] = {}
        self._line: Line | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pause = PAUSES_SECONDS[0]

    def ask(self, lease: int, who: KeepAlives) -> None:
        waiting = self._waiting.get(lease)
        if waiting is not None:
            waiting.append(who)
            return
        self._waiting[lease] = [who]
        if self._line is not None:
            self._send(lease)
        else:
            if self._timer is not None and len(self._waiting) == 1:
                self._timer.cancel()  # it was to be closed
                self._timer = None
            if self._timer is None:
                self._open()

    def forget(self, who: KeepAlives) -> None:
        """A client has gone. What was asked for it alone may still be answered, to nobody."""
        for waiting in self._waiting.values():
            while who in waiting:
                waiting.remove(who)

    def on_message(self, message: bytes) -> None:
        assert self._line is not None
        self._line.read()
        self._pause = PAUSES_SECONDS[0]
        lease = LeaseKeepAliveResponse.FromString(message).ID
        for who in self._waiting.pop(lease, ()):
            who.answer(message)
        if not self._waiting and self._timer is None:
            self._timer = self._upstream.loop.call_later(IDLE_SECONDS, self._close_if_idle)

    def on_end(self, code: int, text: str) -> None:
        self._line = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for lease in [lease for lease, waiting in self._waiting.items() if not waiting]:
            del self._waiting[lease]
        if not self._waiting:
            self._service.idle(self._token)
        elif code in (UNAVAILABLE, INTERNAL) and text != NO_LEADER.message:
            self._open_later()
        else:
            waiting, self._waiting = self._waiting, {}
            for who in {who for each in waiting.values() for who in each}:
                who.end(code, text)
            self._service.idle(self._token)

    def _open_later(self) -> None:
        self._timer = self._upstream.loop.call_later(self._pause, self._open)
        self._pause = min(self._pause * 2, PAUSES_SECONDS[1])

    def _open(self) -> None:
        self._timer = None
        try:
            self._line = self._upstream.open(KEEP_ALIVE, Caller(self._token), self)
        except EtcdError as error:
            self.on_end(error.code, error.message)
            return
        for lease in list(self._waiting):
            self._send(lease)

    def _send(self, lease: int) -> None:
        assert self._line is not None
        if not self._line.send(LeaseKeepAliveRequest(ID=lease).SerializeToString()):
            for who in set(self._waiting.pop(lease)):
                who.end(RESOURCE_EXHAUSTED, TOO_MANY)

    def _close_if_idle(self) -> None:
        self._timer = None
        if not self._waiting and self._line is not None:
            self._line.cancel()
            self._line = None
            self._service.idle(self._token)


class KeepAlives:
    """A client's stream."""

    def __init__(self, service: LeaseStreams, call: int, token: str) -> None:
        self._service = service
        self._call = call
        self._token = token
        self._unanswered = 0
        self._is_half_closed = False

    def on_message(self, payload: bytes) -> None:
        if self._unanswered >= UNANSWERED_MAX:
            raise EtcdError(RESOURCE_EXHAUSTED, TOO_MANY)
        lease = LeaseKeepAliveRequest.FromString(payload).ID
        self._unanswered += 1
        self._service.line(self._token).ask(lease, self)

    def on_half_close(self) -> None:
        self._is_half_closed = True
        if not self._unanswered:
            self.end(OK, "")

    def on_cancel(self) -> None:
        if self._unanswered:
            self._service.line(self._token).forget(self)
        self._service.closed(self)

    def on_writable(self) -> None: ...

    def answer(self, message: bytes) -> None:
        self._unanswered -= 1
        if self._service.send(self._call, message) > UNSENT_BYTES_MAX:
            self.end(RESOURCE_EXHAUSTED, "grpc-proxy: keepalives are not read")
        elif self._is_half_closed and not self._unanswered:
            self.end(OK, "")

    def end(self, code: int, text: str) -> None:
        self.on_cancel()
        self._service.finish(self._call, code, text)


class LeaseStreams:
    """All streams."""

    def __init__(self, upstream: Upstream, outbox: Outbox, leadership: Leadership) -> None:
        self.finish = outbox.finish
        self._upstream = upstream
        self._outbox = outbox
        self._leadership = leadership
        self._lines: dict[str, KeepAliveLine] = {}

    def open(self, call: int, meta: Meta) -> KeepAlives:
        stream = KeepAlives(self, call, meta.token or "")
        if wants_leader(meta):
            if not self._leadership.has_leader:
                raise NO_LEADER
            self._leadership.streams.add(stream)
        return stream

    def line(self, token: str) -> KeepAliveLine:
        line = self._lines.get(token)
        if line is None:
            line = self._lines[token] = KeepAliveLine(self, self._upstream, token)
        return line

    def idle(self, token: str) -> None:
        """The line of this token has nothing to do any more."""
        self._lines.pop(token, None)

    def send(self, call: int, message: bytes) -> int:
        return self._outbox.server.send_many([(call, message)])[0]

    def closed(self, stream: KeepAlives) -> None:
        self._leadership.streams.discard(stream)
