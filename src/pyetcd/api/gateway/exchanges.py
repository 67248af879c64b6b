"""One request and the call it makes: what a unary one and a stream have in common.

An exchange is a `Stream` to the dispatcher, which tells it of the client (gone, ready for more), and a
`Caller` to the handlers, which answer it. It ends once: with the last bytes of the answer, or with the
client.

Work that may be long (a large body, a large answer) is begun at once and goes on as a job where one slice
does not do.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, TypeVar

from pyetcd._native import CANCEL, Meta, Server
from pyetcd.api.dispatch import Dispatcher, Outbox
from pyetcd.api.gateway import decode
from pyetcd.api.gateway.fields import Table
from pyetcd.api.gateway.json_tokens import Refused
from pyetcd.api.gateway.json_values import BadJson, value_end
from pyetcd.api.gateway.paths import Rpc
from pyetcd.api.gateway.status import http_status, status_json
from pyetcd.api.http_reply import Headers
from pyetcd.api.local_calls import Body
from pyetcd.member.jobs import Handle, Jobs
from pyetcd.proto.errors import (
    CANCELED_CODE,
    DEADLINE_EXCEEDED_CODE,
    INTERNAL,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    EtcdError,
)

JSON: Final[Headers] = (("Content-Type", "application/json"),)
FROM_GRPC: Final[Headers] = (("Grpc-Metadata-Content-Type", "application/grpc"),)  # Go's answers have it
LATE: Final = EtcdError(DEADLINE_EXCEEDED_CODE, "context deadline exceeded")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Parts:
    """What exchanges are made with."""

    server: Server
    outbox: Outbox
    dispatcher: Dispatcher
    jobs: Jobs
    loop: asyncio.AbstractEventLoop
    message_bytes_max: int


class Exchange(ABC):
    """`http`: the call of the request at the wire; `headers`: what every answer of this port carries."""

    def __init__(self, parts: Parts, http: int, rpc: Rpc, meta: Meta, headers: Headers) -> None:
        self._parts = parts
        self._http = http
        self._rpc = rpc
        self._meta = meta
        self._headers = headers
        self._call = 0  # of the handlers; 0: none
        self._running: Handle | None = None
        self._reading: Handle | None = None  # of a stream: what the client says
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = True
        parts.outbox.streams[http] = self
        if meta.timeout_seconds is not None:
            self._timer = parts.loop.call_later(max(meta.timeout_seconds, 0.0), self._expired)
        self._is_late = meta.timeout_seconds is not None and meta.timeout_seconds < 0

    # What the handlers say

    @abstractmethod
    def replied(self, body: Body) -> None: ...
    @abstractmethod
    def ended(self, code: int, message: str) -> None: ...
    @abstractmethod
    def sent(self, body: Body) -> int: ...

    # What the wire says of the client

    def on_message(self, payload: bytes) -> None:
        raise AssertionError("only a websocket's client says anything after its request")

    def on_half_close(self) -> None:
        raise AssertionError("only a websocket's client says anything after its request")

    @abstractmethod
    def on_writable(self) -> None: ...

    def on_cancel(self) -> None:
        """The client has gone."""
        self._let_go()
        self._give_up(CANCELED_CODE)

    # For those who do the work

    def _open_call(self) -> int:
        self._call = self._parts.outbox.local.open(self)
        return self._call

    def _tell(self, kind: int, payload: bytes | None = None) -> None:
        """Let the handlers know of an event of the call."""
        if self._is_late:
            self._expired()
            return
        self._parts.dispatcher.local(kind, self._call, self._rpc.name, payload, self._meta)

    def _give_up(self, code: int) -> None:
        """The call is not wanted any more; `code` is what it counts as."""
        call, self._call = self._call, 0
        if call:
            self._parts.outbox.local.close(call, code)
            self._parts.dispatcher.local(CANCEL, call, self._rpc.name, None, None)

    def _let_go(self) -> None:
        """The exchange is over: forget timer, job and wire."""
        self._is_open = False
        self._parts.outbox.streams.pop(self._http, None)
        if self._timer is not None:
            self._timer.cancel()
        for handle in (self._running, self._reading):
            if handle is not None:
                handle.cancel()

    def _expired(self) -> None:
        if self._is_open:
            self._give_up(LATE.code)
            self.ended(LATE.code, LATE.message)

    def _run(self, job: Generator[None, None, Result], done: Callable[[Result], None]) -> None:
        """One slice now, the rest as a job. One at a time."""
        try:
            next(job)
        except StopIteration as stop:
            done(stop.value)
            return
        except Exception as error:
            self._failed(error)
            return

        def finished(result: Result) -> None:
            self._running = None
            done(result)

        self._running = self._parts.jobs.start(job, finished, self._failed)

    def _failed(self, error: Exception) -> None:
        """Work of ours has failed."""
        self._running = None
        self._give_up(CANCELED_CODE)
        if isinstance(error, EtcdError):
            self.refuse(error)
        elif isinstance(error, (BadJson, Refused)):
            self.refuse(EtcdError(INVALID_ARGUMENT, str(error)))
        else:
            self.refuse(EtcdError(INTERNAL, f"internal error: {type(error).__name__}"))

    def refuse(self, error: EtcdError) -> None:
        """Answer with an error, as the gateway does where no call has said anything yet."""
        if self._is_open:
            self._let_go()
            send_error(self._parts.server, self._http, error, self._headers)


def send_error(server: Server, http: int, error: EtcdError, headers: Headers) -> None:
    if error.code == UNAUTHENTICATED:
        headers = (*headers, ("WWW-Authenticate", error.message))
    body = status_json(error.code, error.message)
    server.http_reply(http, http_status(error.code), (*headers, *JSON), body)


def first_message(table: Table, text: bytes, limit: int) -> Generator[None, None, bytes]:
    """The message that the first JSON value of a body describes; no value is an empty message. BadJson,
    Refused, or EtcdError when it is larger than `limit` bytes."""
    start = 0
    end = yield from value_end(text, start)
    if end < 0:
        return b""
    payload = yield from decode.message(table, text[start:end].strip(b" \t\r\n"))
    check_size(payload, limit)
    return payload


def check_size(payload: bytes, limit: int) -> None:
    """EtcdError for a message that the gRPC side would not take."""
    if len(payload) > limit:
        text = f"grpc: received message larger than max ({len(payload)} vs. {limit})"
        raise EtcdError(RESOURCE_EXHAUSTED, text)


def joined(body: Body) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body)
