"""Calls that come from this process instead of over gRPC: the JSON gateway makes them.

To a handler such a call is like any other: it has an id, is answered through the `Outbox`, and a stream's
messages go to the wire. What tells it apart is that its id is negative; who made it is a `Caller`, and takes
what the wire would have taken. `Wire` is in front of the native one for that: as long as nothing local is
open, a batch costs one look more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyetcd._native import Server

Body = bytes | Sequence[bytes]


class Caller(Protocol):
    """Who made a local call. After `ended` the call is gone."""

    def replied(self, body: Body) -> None:
        """The answer of a unary call, which ends it."""

    def ended(self, code: int, message: str) -> None:
        """The call has ended with this gRPC status."""

    def sent(self, body: Body) -> int:
        """One message of a stream; returns the bytes that the client has not taken yet."""


class LocalCalls:
    """The open ones, by id."""

    def __init__(self) -> None:
        self._callers: dict[int, Caller] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._callers)

    def open(self, caller: Caller) -> int:
        self._last -= 1
        self._callers[self._last] = caller
        return self._last

    def close(self, call: int) -> None:
        """Nobody waits for this call any more."""
        self._callers.pop(call, None)

    def reply(self, call: int, body: Body) -> None:
        caller = self._callers.pop(call, None)
        if caller is not None:
            caller.replied(body)

    def finish(self, call: int, code: int, message: str) -> None:
        caller = self._callers.pop(call, None)
        if caller is not None:
            caller.ended(code, message)

    def send(self, call: int, body: Body) -> int:
        caller = self._callers.get(call)
        return -1 if caller is None else caller.sent(body)


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
