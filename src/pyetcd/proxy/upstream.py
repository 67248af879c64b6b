"""Calls and streams to the cluster, at whichever endpoint is next.

The promises are clientv3's. A call waits while it is not known which endpoints can be reached, and fails once
all are known not to be. One that has never left goes to the next endpoint; one that was answered with
Unavailable is repeated only if it reads, since a write may have been done. A stream that breaks is its
owner's to open again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd._native import Calls, Wake
from pyetcd.proto.errors import (
    CODE_NAMES,
    DEADLINE_EXCEEDED_CODE,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    EtcdError,
)
from pyetcd.proxy.calls import ENDED, Caller, Done, Handle, Stream
from pyetcd.proxy.endpoints import NOT_CONNECTED, Dial, Endpoint, Endpoints

NEWS_PER_TURN: Final = 512
WAITING_MAX: Final = 10_000  # calls that wait for an endpoint
UNDER_WAY_MAX: Final = 100_000
RETRIES_MAX: Final = 100
RETRY_SECONDS: Final = 0.025
API_VERSION: Final = "3.7"
TOO_LATE: Final = "context deadline exceeded"
TOO_MANY: Final = "grpc-proxy: too many calls wait for the cluster"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the largest request and of the largest answer."""

    send: int
    receive: int


class Call:
    """A unary call, from its begin to its end."""

    __slots__ = (
        "_upstream",
        "attempts",
        "caller",
        "done",
        "endpoint",
        "number",
        "path",
        "payload",
        "reads",
        "timer",
    )

    def __init__(
        self, upstream: Upstream, path: str, payload: bytes, caller: Caller, done: Done, reads: bool
    ) -> None:
        self._upstream = upstream
        self.path = path
        self.payload = payload
        self.caller = caller
        self.done: Done | None = done
        self.reads = reads
        self.attempts = 0
        self.number = 0  # while it is under way
        self.endpoint: Endpoint | None = None
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.done is not None:
            self.done = None
            self._upstream.forget(self)

    def end(self, message: bytes | None, code: int, text: str) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(message, code, text)


class Line:
    """A stream to the cluster."""

    __slots__ = ("_calls", "_lines", "endpoint", "number", "owner")

    def __init__(
        self, calls: Calls, lines: dict[int, Line], number: int, endpoint: Endpoint, owner: Stream
    ) -> None:
        self._calls = calls
        self._lines = lines
        self.number = number
        self.endpoint = endpoint
        self.owner: Stream | None = owner

    def send(self, message: bytes) -> bool:
        """False: too much is unsent, or it is over."""
        return self._calls.send(self.number, message)

    def half_close(self) -> None:
        self._calls.half_close(self.number)

    def read(self, count: int = 1) -> None:
        """So many messages have been dealt with."""
        self._calls.read(self.number, count)

    def cancel(self) -> None:
        """Nothing more is told of it."""
        self.owner = None
        self._lines.pop(self.number, None)
        self._calls.cancel(self.number)


class Upstream:
    """The cluster. `turn` is called when the wake descriptor is readable."""

    def __init__(
        self,
        wake: Wake,
        loop: asyncio.AbstractEventLoop,
        endpoints: Sequence[str],
        dial: Dial,
        sizes: Sizes,
    ) -> None:
        self.loop = loop
        self._calls = Calls(wake)
        self._sizes = sizes
        self._under_way: dict[int, Call] = {}
        self._lines: dict[int, Line] = {}
        self._waiting: deque[Call] = deque()
        self.endpoints = Endpoints(self._calls, dial, loop, self._endpoints_changed)
        self.endpoints.set(endpoints)

    def begin(self, path: str, payload: bytes, caller: Caller, done: Done, *, reads: bool = False) -> Handle:
        """A unary call."""
        if len(payload) > self._sizes.send:
            text = f"trying to send message larger than max ({len(payload)} vs. {self._sizes.send})"
            done(None, RESOURCE_EXHAUSTED, text)
            return ENDED
        if len(self._under_way) >= UNDER_WAY_MAX:
            done(None, RESOURCE_EXHAUSTED, TOO_MANY)
            return ENDED
        call = Call(self, path, payload, caller, done, reads)
        self._attempt(call)
        return call

    def open(self, path: str, caller: Caller, owner: Stream, *, has_leader: bool = False) -> Line:
        """A stream, at an endpoint that can be reached now. EtcdError without one."""
        endpoint = self.endpoints.pick()
        if endpoint is None or endpoint.channel is None:
            raise EtcdError(UNAVAILABLE, self.endpoints.failure or "no endpoint has answered yet")
        metadata = _metadata(caller)
        if has_leader:
            metadata.append(("hasleader", "true"))
        number = self._calls.open(endpoint.channel, path, metadata, self._left(caller))
        line = self._lines[number] = Line(self._calls, self._lines, number, endpoint, owner)
        return line

    def turn(self) -> bool:
        """Deal with what has come. True when there may be more."""
        news = self._calls.drain(NEWS_PER_TURN)
        for number, message, code, text in news:
            call = self._under_way.get(number)
            if call is not None:
                del self._under_way[number]
                call.number = 0
                if message is None:
                    self._failed(call, code, text)
                elif len(message) > self._sizes.receive:
                    call.end(None, RESOURCE_EXHAUSTED, self._too_large(message))
                else:
                    call.end(message, OK, "")
                continue
            line = self._lines.get(number)
            if line is None:
                self.endpoints.told(number, code, text)
            elif message is None:
                del self._lines[number]
                self._line_ended(line, code, text)
            elif line.owner is not None:
                line.owner.on_message(message)
        return len(news) == NEWS_PER_TURN

    def forget(self, call: Call) -> None:
        """It was cancelled."""
        if call.number:
            self._under_way.pop(call.number, None)
            self._calls.cancel(call.number)
        if call.timer is not None:
            call.timer.cancel()

    def _attempt(self, call: Call) -> None:
        """Give it to the next endpoint, or have it wait for one."""
        call.timer = None
        if call.done is None:
            return
        left = self._left(call.caller)
        if left is not None and left <= 0:
            call.end(None, DEADLINE_EXCEEDED_CODE, TOO_LATE)
            return
        endpoint = self.endpoints.pick()
        if endpoint is None or endpoint.channel is None:
            failure = self.endpoints.failure
            if failure:
                self._failed(call, UNAVAILABLE, failure)
            elif len(self._waiting) >= WAITING_MAX:
                call.end(None, RESOURCE_EXHAUSTED, TOO_MANY)
            else:
                self._waiting.append(call)
                if left is not None:
                    call.timer = self.loop.call_later(left, self._attempt, call)
            return
        call.attempts += 1
        call.endpoint = endpoint
        call.number = self._calls.unary(
            endpoint.channel, call.path, call.payload, _metadata(call.caller), left
        )
        self._under_way[call.number] = call

    def _failed(self, call: Call, code: int, text: str) -> None:
        """Try again where that harms nobody, else tell."""
        never_left = code == UNAVAILABLE and text.startswith(NOT_CONNECTED)
        endpoint, call.endpoint = call.endpoint, None
        if code == UNAVAILABLE and endpoint is not None and (never_left or text not in _ANSWERS):
            self.endpoints.lost(endpoint)
        if never_left and endpoint is not None and call.attempts <= len(self.endpoints.names):
            self._attempt(call)
        elif code == UNAVAILABLE and call.reads and call.attempts < RETRIES_MAX:
            call.attempts += endpoint is None
            call.timer = self.loop.call_later(RETRY_SECONDS, self._attempt, call)
        else:
            call.end(None, code, text)

    def _line_ended(self, line: Line, code: int, text: str) -> None:
        if code == UNAVAILABLE and text not in _ANSWERS:
            self.endpoints.lost(line.endpoint)
        owner, line.owner = line.owner, None
        if owner is not None:
            owner.on_end(code, text)

    def _endpoints_changed(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if call.timer is not None:
                call.timer.cancel()
            self._attempt(call)

    def _left(self, caller: Caller) -> float | None:
        return None if caller.deadline is None else caller.deadline - self.loop.time()

    def _too_large(self, message: bytes) -> str:
        return f"grpc: received message larger than max ({len(message)} vs. {self._sizes.receive})"


# A server that says one of these is there, and answers.
_ANSWERS: Final = frozenset(
    {
        "etcdserver: no leader",
        "etcdserver: not capable",
        "etcdserver: request timed out",
        "etcdserver: request timed out, possibly due to connection lost",
        "etcdserver: request timed out, possibly due to previous leader failure",
        "etcdserver: request timed out, waiting for the applied index took too long",
        "etcdserver: server stopped",
        "etcdserver: unhealthy cluster",
        "etcdserver: leader changed",
        "etcdserver: rpc not supported for learner",
    }
)


def status_text(code: int, text: str) -> str:
    """A status as etcd's client prints it: its own texts bare, others with their code."""
    if text.startswith("etcdserver: ") or text in (TOO_LATE, "context canceled"):
        return text
    name = CODE_NAMES[code] if code < len(CODE_NAMES) else f"Code({code})"
    return f"rpc error: code = {name} desc = {text}"


def _metadata(caller: Caller) -> list[tuple[str, str]]:
    metadata = [("client-api-version", API_VERSION)]
    if caller.token:
        metadata.append(("token", caller.token))
    return metadata
