"""Calls that come from this process instead of over gRPC: the JSON gateway makes them, and watches within.

To a handler such a call is like any other: it has an id, is answered through the `Outbox`, and a stream's
messages go to the wire. What tells it apart is that its id is negative; who made it is a `Caller`, and takes
what the wire would have taken. `Wire` is in front of the native one for that: as long as nothing local is
open, a batch costs one look more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pyetcd._native import HALF_CLOSE, OPEN, UNARY, HttpRequest, HttpResponse, Meta, Server
from pyetcd.api.local_counts import LocalCounts
from pyetcd.proto.errors import OK

Body = bytes | Sequence[bytes]
Event = tuple[int, int, int, bytes | HttpRequest | HttpResponse | None, Meta | None]
OnSlow = Callable[[Event, Body | None, float, int, str], None]


class Caller(Protocol):
    """Who made a local call. After `ended` the call is gone."""

    def replied(self, body: Body) -> None:
        """The answer of a unary call, which ends it."""

    def ended(self, code: int, message: str) -> None:
        """The call has ended with this gRPC status."""

    def sent(self, body: Body) -> int:
        """One message of a stream; returns the bytes that the client has not taken yet."""


class _Open:
    """One open call. What only its end needs is here: what came, where it is counted, since when."""

    __slots__ = ("began", "caller", "meta", "method", "payload", "reads")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.method = -1  # none of the wire's, until it has come to the dispatcher, which not all do
        self.payload: bytes | None = None  # of a unary call
        self.meta: Meta | None = None
        self.began = 0.0
        self.reads = False  # a stream whose client may say more


class LocalCalls:
    """The open ones, by id.

    `clock` gives loop time. `counts` and `on_slow` are set once the methods are known: unary calls that take
    longer than `slow_seconds` (0: none) are told of as the wire's are.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.counts = LocalCounts(0)
        self.slow_seconds = 0.0
        self.on_slow: OnSlow = lambda event, body, seconds, code, message: None
        self._clock = clock
        self._open: dict[int, _Open] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def open(self, caller: Caller) -> int:
        self._last -= 1
        self._open[self._last] = _Open(caller)
        return self._last

    def came(self, kind: int, call: int, method: int, payload: bytes | None, meta: Meta | None) -> None:
        """Note an event that the dispatcher is about to handle."""
        known = self._open.get(call)
        if known is None:
            return
        counts = self.counts
        if kind in (UNARY, OPEN):
            assert meta is not None, "with the first event"
            known.method, known.payload, known.meta, known.began = method, payload, meta, self._clock()
            known.reads = kind == OPEN
            counts.began(method, meta.headers, is_stream=known.reads)
        if payload is not None:
            counts.received(method, len(payload))
        elif kind == HALF_CLOSE and known.reads:
            known.reads = False
            counts.read_to_end(method)

    def close(self, call: int, code: int) -> None:
        """Nobody waits for this call any more: it has ended with this code."""
        self._end(call, code, None)

    def reply(self, call: int, body: Body) -> None:
        known = self._end(call, OK, body)
        if known is not None:
            known.caller.replied(body)

    def finish(self, call: int, code: int, message: str) -> None:
        known = self._end(call, code, None, message)
        if known is not None:
            known.caller.ended(code, message)

    def send(self, call: int, body: Body) -> int:
        known = self._open.get(call)
        if known is None:
            return -1
        if known.method >= 0:
            self.counts.sent(known.method, _size(body))
        return known.caller.sent(body)

    def _end(self, call: int, code: int, body: Body | None, message: str = "") -> _Open | None:
        known = self._open.pop(call, None)
        if known is None or known.method < 0:
            return known
        seconds = self._clock() - known.began
        if body is not None:
            self.counts.sent(known.method, _size(body))
        if known.reads:
            self.counts.read_to_end(known.method)
        self.counts.ended(known.method, code, seconds)
        if known.payload is not None and 0 < self.slow_seconds < seconds:
            event = (UNARY, call, known.method, known.payload, known.meta)
            self.on_slow(event, body, seconds, code, message)
        return known


def _size(body: Body) -> int:
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


class Wire:
    """Messages of streams: to the native wire, or to whoever made the call."""

    def __init__(self, server: Server, local: LocalCalls) -> None:
        self._server = server
        self._local = local

    def send_many(self, messages: Sequence[tuple[int, Body]]) -> list[int]:
        """As `Server.send_many`."""
        local = self._local
        if not local:
            return self._server.send_many(messages)
        remote = [message for message in messages if message[0] >= 0]
        if len(remote) == len(messages):
            return self._server.send_many(remote)
        backlogs = iter(self._server.send_many(remote) if remote else ())
        return [next(backlogs) if call >= 0 else local.send(call, body) for call, body in messages]

    def send_fanout(self, calls: Sequence[int], body: Body) -> list[int]:
        """As `Server.send_fanout`."""
        local = self._local
        if not local:
            return self._server.send_fanout(calls, body)
        remote = [call for call in calls if call >= 0]
        if len(remote) == len(calls):
            return self._server.send_fanout(remote, body)
        backlogs = iter(self._server.send_fanout(remote, body) if remote else ())
        return [next(backlogs) if call >= 0 else local.send(call, body) for call in calls]
