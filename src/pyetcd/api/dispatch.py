"""From wire events to handlers and back: one turn of the loop handles one batch.

Rules that hold here:

* A **unary** handler is a plain function `(call, payload, meta) -> Body | None`, where a body is bytes or a
  sequence of bytes. It returns the encoded answer, or None when it answers through `Outbox.reply` or
  `Outbox.fail`. It raises `EtcdError` to fail the call. No task and no future is made per request: that is
  what keeps a put below 15 us of Python.
* An **async** handler is a coroutine function of the same parameters that returns the body; for rare calls.
* A **stream** method is a class (or function) called with `(call, meta)` at OPEN, which returns a `Stream`.
* Whatever a handler raises finishes its own call with a clear status and harms nobody else. A payload that
  is no message (protobuf's DecodeError) gets what grpc-go says of it.
* Answers gather in the `Outbox` and leave in one `reply_many` at the end of the turn. The wire counts the
  calls, keeps their time and says which were slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
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
from pyetcd.api.held_stream import HeldStream
from pyetcd.api.local_calls import LocalCalls, Wire
from pyetcd.logs.rejected import log_rejected
from pyetcd.proto import errors
from pyetcd.proto.errors import CANCELED_CODE, INTERNAL, OK, UNIMPLEMENTED, EtcdError
from pyetcd.storage.bolt import DatabaseError

Body = bytes | Sequence[bytes]
Unary = Callable[[int, bytes, Meta], Body | None]
AsyncUnary = Callable[[int, bytes, Meta], Coroutine[None, None, Body]]
Admit = Callable[[str, bytes, Meta], None]
"""Refuses a unary call, by its method, payload and meta, with an EtcdError."""

Hold = Callable[[Meta, Callable[[], None], Callable[[Exception], None]], bool]
"""Whether a call must wait before anything is done about it; then the first is called when it need not any
more, or the second with why it fails."""

Event = tuple[int, int, int, bytes | HttpRequest | HttpResponse | None, Meta | None]
"""`(kind, call, method, payload, meta)`, as the wire hands it over."""

OnSlow = Callable[[Event, Body | None, float, int, str], None]
"""Told of a unary call that was slow: what came, the answer (None: an error), seconds, gRPC status."""

OnStreamEnd = Callable[[int, int, str], None]
"""Told of a stream that has ended, whoever ended it: call, gRPC status."""

MAX_EVENTS_PER_TURN: Final = 512
UNKNOWN: Final = 2  # grpc code for an error nobody foresaw
BAD_REQUEST: Final = "grpc: error unmarshalling request: "
BAD_MESSAGE: Final = "grpc: failed to unmarshal the received message: "

_log = logs.get("api")


class Stream(Protocol):
    """One open stream, as its service sees it. After `on_cancel` the call id is dead."""

    def on_message(self, payload: bytes) -> None: ...
    def on_half_close(self) -> None: ...
    def on_cancel(self) -> None: ...
    def on_writable(self) -> None: ...


OpenStream = Callable[[int, Meta], Stream]
HttpHandler = Callable[[int, HttpRequest, Meta], None]


class Outbox:
    """Answers of this turn. Flushed at its end by who runs it, soon by itself when filled outside of one;
    `hold` says that a turn has begun."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self.local = LocalCalls(loop.time)
        self.server = Wire(server, self.local)  # for the messages of streams
        self.streams: dict[int, Stream] = {}  # open ones: the dispatcher adds, `finish` removes
        self.replies: list[tuple[int, Body]] = []
        self.on_slow: OnSlow = lambda event, body, seconds, code, message: None
        self.on_stream_end: OnStreamEnd | None = None
        self._loop = loop
        self._ends: list[tuple[int, int, str]] = []
        self._scheduled = False  # or held: a flush will come

    def hold(self) -> None:
        self._scheduled = True

    def reply(self, call: int, body: Body) -> None:
        """Finish a unary call well."""
        if call < 0:
            self.local.reply(call, body)
            return
        self.replies.append((call, body))
        if not self._scheduled:
            self._schedule()

    def finish(self, call: int, code: int, message: str) -> None:
        """Finish a call or stream with a gRPC status. No more events of it come."""
        if self.streams.pop(call, None) is not None and self.on_stream_end is not None:
            self.on_stream_end(call, code, message)
        if call < 0:
            self.local.finish(call, code, message)
            return
        self._ends.append((call, code, message))
        if not self._scheduled:
            self._schedule()

    def fail(self, call: int, error: BaseException) -> None:
        """Finish a call with the status its error stands for."""
        if isinstance(error, EtcdError):
            self.finish(call, error.code, error.message)
            return
        if isinstance(error, DatabaseError):
            _log.error("a request met data that has changed on disk", {"error": error})
            self.finish(call, errors.CORRUPT.code, errors.CORRUPT.message)
            return
        _log.warn("request handler failed", {"error": repr(error)}, exc=error)
        self.finish(call, UNKNOWN, f"internal error: {type(error).__name__}")

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._scheduled = False
        if self.replies:
            replies, self.replies = self.replies, []
            for event, at, seconds in self._server.reply_many(replies):
                self.on_slow(event, replies[at][1], seconds, OK, "")
        if self._ends:
            ends, self._ends = self._ends, []
            for event, at, seconds in self._server.finish_many(ends):
                self.on_slow(event, None, seconds, ends[at][1], ends[at][2])


class Dispatcher:
    """Owns the method table; `turn` is called when the wake descriptor is readable."""

    def __init__(
        self,
        server: Server,
        outbox: Outbox,
        methods: Sequence[str],
        unary: Mapping[str, Unary],
        coroutines: Mapping[str, AsyncUnary],
        streams: Mapping[str, OpenStream],
        http: HttpHandler,
        admission: Callable[[], Admit | None],
        end_of_turn: Callable[[], None],
        holding: Callable[[], Hold | None] = lambda: None,
    ) -> None:
        """`admission`: asked once a turn what its unary calls must pass, None: nothing. `holding`: what may
        make calls wait before that, None: nothing."""
        self._holding = holding
        self._server = server
        self._outbox = outbox
        self._unary: list[Unary | None] = [unary.get(name) for name in methods]
        self._coroutines: list[AsyncUnary | None] = [coroutines.get(name) for name in methods]
        self._open: list[OpenStream | None] = [streams.get(name) for name in methods]
        self._names = methods
        self._places = {name: place for place, name in enumerate(methods)}
        self._http = http
        self._admission = admission
        self._end_of_turn = end_of_turn
        self._streams = outbox.streams
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.malformed = [0] * len(methods)  # unary requests that are no message, by method

    def turn(self) -> bool:
        """Handle one batch; `Outbox.flush` is to follow. True when more events may be waiting."""
        events = self._server.drain(MAX_EVENTS_PER_TURN)
        unary = self._unary
        replies = self._outbox.replies
        admit = self._admission()
        hold = self._holding()
        for kind, call, method, payload, meta in events:
            try:
                if kind == UNARY:
                    if hold is not None and self._holds(hold, call, method, payload, meta):  # type: ignore[arg-type]
                        continue
                    if admit is not None:
                        admit(self._names[method], payload, meta)  # type: ignore[arg-type]
                    handler = unary[method]
                    if handler is not None:
                        body = handler(call, payload, meta)  # type: ignore[arg-type]
                        if body is not None:
                            replies.append((call, body))
                    else:
                        self._start(call, method, payload, meta)  # type: ignore[arg-type]
                else:
                    self._other(kind, call, method, payload, meta)
            except Exception as error:
                self._failed(kind, call, method, error)
        self._end_of_turn()
        return len(events) == MAX_EVENTS_PER_TURN

    def local(self, kind: int, call: int, name: str, payload: bytes | None, meta: Meta | None) -> None:
        """Handle one event of a local call, as `turn` those of the wire. An unknown method is Unimplemented.
        """
        method = self._places.get(name, -1)
        try:
            if method < 0:
                raise EtcdError(UNIMPLEMENTED, self._unknown(name))
            self._outbox.local.came(kind, call, method, payload, meta)
            if kind == UNARY:
                assert payload is not None
                assert meta is not None
                hold = self._holding()
                if hold is None or not self._holds(hold, call, method, payload, meta):
                    self._answer(call, method, payload, meta)
            else:
                self._other(kind, call, method, payload, meta)
        except Exception as error:
            self._failed(kind, call, method, error)

    def _answer(self, call: int, method: int, payload: bytes, meta: Meta) -> None:
        """One unary call, outside of a turn."""
        admit = self._admission()
        if admit is not None:
            admit(self._names[method], payload, meta)
        handler = self._unary[method]
        if handler is None:
            self._start(call, method, payload, meta)
            return
        body = handler(call, payload, meta)
        if body is not None:
            self._outbox.reply(call, body)

    def _holds(self, hold: Hold, call: int, method: int, payload: bytes, meta: Meta) -> bool:
        def run() -> None:
            try:
                self._answer(call, method, payload, meta)
            except Exception as error:
                self._failed(UNARY, call, method, error)

        return hold(meta, run, lambda error: self._outbox.fail(call, error))

    def _holds_stream(self, hold: Hold, call: int, method: int, meta: Meta, opener: OpenStream) -> bool:
        held = HeldStream()

        def run() -> None:
            if held.is_cancelled or self._streams.get(call) is not held:
                return
            del self._streams[call]
            try:
                stream = self._streams[call] = opener(call, meta)
                for payload in held.messages:
                    if self._streams.get(call) is stream:
                        stream.on_message(payload)
                if held.is_half_closed and self._streams.get(call) is stream:
                    stream.on_half_close()
            except Exception as error:
                self._failed(OPEN, call, method, error)

        def fail(error: Exception) -> None:
            if not held.is_cancelled and self._streams.get(call) is held:
                self._outbox.fail(call, error)

        if not hold(meta, run, fail):
            return False
        self._streams[call] = held
        return True

    def _unknown(self, name: str) -> str:
        service, _, method = name[1:].rpartition("/")
        if any(each.startswith(f"/{service}/") for each in self._places):
            return f"unknown method {method} for service {service}"
        return f"unknown service {service}"

    def _failed(self, kind: int, call: int, method: int, error: Exception) -> None:
        """A handler raised."""
        stream = self._streams.get(call)
        if stream is not None:
            stream.on_cancel()
        if not isinstance(error, DecodeError):
            self._outbox.fail(call, error)
        elif kind == UNARY:
            self.malformed[method] += 1
            self._outbox.finish(call, INTERNAL, BAD_REQUEST + _decode_text(error))
        else:
            self._outbox.finish(call, INTERNAL, BAD_MESSAGE + _decode_text(error))

    def _other(
        self,
        kind: int,
        call: int,
        method: int,
        payload: bytes | HttpRequest | HttpResponse | None,
        meta: Meta | None,
    ) -> None:
        if kind == MESSAGE:
            stream = self._streams.get(call)
            if stream is not None:
                stream.on_message(payload)  # type: ignore[arg-type]
        elif kind == OPEN:
            opener = self._open[method]
            assert opener is not None, "the wire opens only methods announced as streams"
            assert meta is not None
            hold = self._holding()
            if hold is None or not self._holds_stream(hold, call, method, meta, opener):
                self._streams[call] = opener(call, meta)
        elif kind == WRITABLE:
            stream = self._streams.get(call)
            if stream is not None:
                stream.on_writable()
        elif kind == HALF_CLOSE:
            stream = self._streams.get(call)
            if stream is not None:
                stream.on_half_close()
        elif kind == CANCEL:
            self._drop(call)
        elif kind == REJECTED:
            assert isinstance(payload, bytes)
            log_rejected(_log, "client", payload)
        else:
            assert kind == HTTP
            assert isinstance(payload, HttpRequest)
            assert meta is not None
            self._http(call, payload, meta)

    def _drop(self, call: int) -> None:
        stream = self._streams.pop(call, None)
        if stream is not None:
            stream.on_cancel()
            if self._outbox.on_stream_end is not None:
                self._outbox.on_stream_end(call, CANCELED_CODE, "")
        task = self._tasks.pop(call, None)
        if task is not None:
            task.cancel()

    def _start(self, call: int, method: int, payload: bytes, meta: Meta) -> None:
        handler = self._coroutines[method]
        assert handler is not None, "every announced unary method has a handler"
        self._tasks[call] = asyncio.get_running_loop().create_task(
            self._run(handler, call, method, payload, meta)
        )

    async def _run(self, handler: AsyncUnary, call: int, method: int, payload: bytes, meta: Meta) -> None:
        try:
            body = await handler(call, payload, meta)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(UNARY, call, method, error)
        else:
            self._outbox.reply(call, body)
        finally:
            self._tasks.pop(call, None)

    async def close(self) -> None:
        """Cancel what is still under way."""
        for call in list(self._streams):
            self._drop(call)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _decode_text(error: DecodeError) -> str:
    """What Go's protobuf says of it."""
    if "UTF-8" in str(error):
        return "string field contains invalid UTF-8"
    return "proto: cannot parse invalid wire-format data"
