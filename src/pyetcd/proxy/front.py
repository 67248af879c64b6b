"""What clients say to the proxy, handed to its services: one turn of the loop handles one batch.

A unary handler begins a call and says at its end what the client is to hear; a client that goes away cancels
it. Answers gather in the `Outbox` and leave together at the end of the turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd._native import (
    CANCEL,
    HALF_CLOSE,
    HTTP,
    MESSAGE,
    OPEN,
    REJECTED,
    UNARY,
    WRITABLE,
    HttpRequest,
    HttpResponse,
    Meta,
    Server,
)
from pyetcd.api.dispatch import BAD_MESSAGE, BAD_REQUEST, Outbox, Stream
from pyetcd.logs.rejected import log_rejected
from pyetcd.proto.errors import INTERNAL
from pyetcd.proxy.calls import Caller, Done, Handle

EVENTS_PER_TURN: Final = 512

Unary = Callable[[bytes, Caller, Done], Handle]
OpenStream = Callable[[int, Meta], Stream]
HttpHandler = Callable[[int, HttpRequest, Meta], None]

_log = logs.get("proxy")


class Watcher(Protocol):
    """Is shown what passes (`--experimental-enable-grpc-logging`)."""

    def came(self, method: int, message: bytes, peer: str) -> None: ...

    def left(self, method: int, message: bytes | None, peer: str, error: str) -> None: ...


class Front:
    """Owns the calls of clients. `http`: takes plain requests; `replied`: takes answers to those we made."""

    def __init__(
        self,
        server: Server,
        outbox: Outbox,
        loop: asyncio.AbstractEventLoop,
        unary: Mapping[str, Unary],
        streams: Mapping[str, OpenStream],
        http: HttpHandler,
        replied: Callable[[int, HttpResponse | None], None],
    ) -> None:
        self._server = server
        self._outbox = outbox
        self._loop = loop
        self._unary = list(unary.values())
        self._streams = list(streams.values())
        self._http = http
        self._replied = replied
        self._pending: dict[int, Handle] = {}
        self.watcher: Watcher | None = None
        self.malformed = [0] * (len(unary) + len(streams))

    @staticmethod
    def methods(unary: Sequence[str], streams: Sequence[str]) -> list[tuple[str, bool]]:
        """As the wire wants them; their places are those of the handlers."""
        return [(name, False) for name in unary] + [(name, True) for name in streams]

    def turn(self) -> bool:
        """Handle one batch. True when there may be more."""
        events = self._server.drain(EVENTS_PER_TURN)
        for kind, call, method, payload, meta in events:
            try:
                if kind == UNARY:
                    assert isinstance(payload, bytes)
                    assert meta is not None
                    self._begin(call, method, payload, meta)
                else:
                    self._other(kind, call, method, payload, meta)
            except DecodeError as error:
                self._undecodable(kind, call, method, error)
            except Exception as error:
                self._drop_stream(call)
                self._outbox.fail(call, error)
        return len(events) == EVENTS_PER_TURN

    def caller(self, meta: Meta) -> Caller:
        seconds = meta.timeout_seconds
        return Caller(meta.token or "", None if seconds is None else self._loop.time() + seconds)

    def _begin(self, call: int, method: int, payload: bytes, meta: Meta) -> None:
        watcher = self.watcher
        if watcher is not None:
            watcher.came(method, payload, meta.peer)
        ended = False

        def done(message: bytes | None, code: int, text: str) -> None:
            nonlocal ended
            ended = True
            self._pending.pop(call, None)
            if watcher is not None:
                watcher.left(method, message, meta.peer, text)
            if message is None:
                self._outbox.finish(call, code, text)
            else:
                self._outbox.reply(call, message)

        handle = self._unary[method](payload, self.caller(meta), done)
        if not ended:
            self._pending[call] = handle

    def _other(
        self,
        kind: int,
        call: int,
        method: int,
        payload: bytes | HttpRequest | HttpResponse | None,
        meta: Meta | None,
    ) -> None:
        streams = self._outbox.streams
        if kind == MESSAGE:
            stream = streams.get(call)
            if stream is not None:
                assert isinstance(payload, bytes)
                if self.watcher is not None:
                    self.watcher.came(method, payload, "")
                stream.on_message(payload)
        elif kind == OPEN:
            assert meta is not None
            streams[call] = self._streams[method - len(self._unary)](call, meta)
        elif kind == WRITABLE:
            stream = streams.get(call)
            if stream is not None:
                stream.on_writable()
        elif kind == HALF_CLOSE:
            stream = streams.get(call)
            if stream is not None:
                stream.on_half_close()
        elif kind == CANCEL:
            handle = self._pending.pop(call, None)
            if handle is not None:
                handle.cancel()
            self._drop_stream(call)
        elif kind == REJECTED:
            assert isinstance(payload, bytes)
            log_rejected(_log, "client", payload)
        elif kind == HTTP:
            assert isinstance(payload, HttpRequest)
            assert meta is not None
            self._http(call, payload, meta)
        else:
            self._replied(call, payload if isinstance(payload, HttpResponse) else None)

    def _drop_stream(self, call: int) -> None:
        stream = self._outbox.streams.pop(call, None)
        if stream is not None:
            stream.on_cancel()

    def _undecodable(self, kind: int, call: int, method: int, error: DecodeError) -> None:
        self._drop_stream(call)
        utf8 = "UTF-8" in str(error)
        text = (
            "string field contains invalid UTF-8" if utf8 else "proto: cannot parse invalid wire-format data"
        )
        if kind == UNARY:
            self.malformed[method] += 1
            self._outbox.finish(call, INTERNAL, BAD_REQUEST + text)
        else:
            self._outbox.finish(call, INTERNAL, BAD_MESSAGE + text)
