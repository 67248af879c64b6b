"""A request that is answered with a stream: a line of JSON for each message.

`{"result":…}` lines, and `{"error":…}` as the last one where it ends badly. When nothing has been said yet,
the error also gives the HTTP status.

What handlers send is turned into JSON at once if it is small; large messages go on as a job, and what comes
meanwhile waits behind them. All that waits counts as not taken by the client, so that handlers stop by the
same bound as with a gRPC stream, and are told when they may go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Final

from pyetcd._native import HALF_CLOSE, MESSAGE, OPEN, WRITABLE, Meta
from pyetcd.api.gateway import decode
from pyetcd.api.gateway.encode import json_of
from pyetcd.api.gateway.exchanges import (
    FROM_GRPC,
    JSON,
    Exchange,
    Parts,
    check_size,
    first_message,
    joined,
)
from pyetcd.api.gateway.json_tokens import Refused
from pyetcd.api.gateway.json_values import BadJson, value_end
from pyetcd.api.gateway.paths import Rpc
from pyetcd.api.gateway.status import http_status, status_json
from pyetcd.api.http_reply import Headers
from pyetcd.api.local_calls import Body
from pyetcd.proto.errors import OK

MESSAGES_PER_SLICE: Final = 16
BACKLOG_BYTES: Final = 1 << 20  # the wire's own bound
_RESULT, _LINE_END = b'{"result":', b"}\n"


class Answers(Exchange):
    """The answering half. `_begin` and what follows it are how lines leave: as the body of a plain answer."""

    def __init__(self, parts: Parts, http: int, rpc: Rpc, meta: Meta, headers: Headers) -> None:
        super().__init__(parts, http, rpc, meta, headers)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._end: tuple[int, str] | None = None  # how the call has ended, when all that waits is told
        self._has_begun = False
        self._is_full = False
        self._unsent = 0  # as the wire last said
        self._converting = False

    def replied(self, body: Body) -> None:
        raise AssertionError("a stream has no single answer")

    def sent(self, body: Body) -> int:
        data = joined(body)
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self._convert()
        backlog = self._unsent + self._waiting_bytes
        if backlog > BACKLOG_BYTES:
            self._is_full = True
        return backlog if self._is_open else -1

    def ended(self, code: int, message: str) -> None:
        self._call = 0
        self._end = (code, message)
        self._convert()

    def on_writable(self) -> None:
        self._unsent = 0
        self._look_writable()

    def _look_writable(self) -> None:
        if self._is_full and not self._waiting and self._unsent <= BACKLOG_BYTES:
            self._is_full = False
            if self._call:
                self._tell(WRITABLE)

    def _convert(self) -> None:
        """Turn what waits into lines, one after the other."""
        while self._waiting and not self._converting and self._is_open:
            self._converting = True
            self._convert_job(self._waiting[0])
        if not self._waiting and self._is_open and self._end is not None:
            self._finish(*self._end)

    def _convert_job(self, data: bytes) -> None:
        job = json_of(self._rpc.response, data, html=True)
        try:
            next(job)
        except StopIteration as stop:
            self._converted(stop.value)
        else:
            self._running = self._parts.jobs.start(job, self._converted_later, self._failed)

    def _converted_later(self, pieces: list[bytes]) -> None:
        self._running = None
        self._converted(pieces)
        self._convert()
        self._look_writable()  # never from within `sent`: who sends is in the midst of something

    def _converted(self, pieces: list[bytes]) -> None:
        self._converting = False
        self._waiting_bytes -= len(self._waiting.popleft())
        if not self._has_begun:
            self._has_begun = True
            self._begin(200, (*self._headers, *FROM_GRPC, *JSON))
        self._put([_RESULT, *pieces, _LINE_END])

    def _finish(self, code: int, message: str) -> None:
        if not self._has_begun:
            kind = JSON if code else ()
            self._begin(http_status(code), (*self._headers, *kind))
        if code != OK:
            self._put([b'{"error":', status_json(code, message, html=True), _LINE_END])
        self._let_go()
        self._over()

    # How lines leave

    def _begin(self, status: int, headers: Headers) -> None:
        self._parts.server.http_reply(self._http, status, headers, b"", end=False)

    def _put(self, line: list[bytes]) -> None:
        self._unsent = self._parts.server.send_many([(self._http, line)])[0]

    def _over(self) -> None:
        self._parts.server.finish_many([(self._http, OK, "")])


class StreamOfOne(Answers):
    """One message asks for many: the request is checked before the call is made."""

    def __init__(self, parts: Parts, http: int, rpc: Rpc, meta: Meta, headers: Headers, body: bytes) -> None:
        super().__init__(parts, http, rpc, meta, headers)
        self._run(first_message(rpc.request, body, parts.message_bytes_max), self._ask)

    def _ask(self, payload: bytes) -> None:
        self._open_call()
        self._tell(OPEN)
        for kind, data in ((MESSAGE, payload), (HALF_CLOSE, None)):
            if self._call:
                self._tell(kind, data)


class StreamOfMany(Answers):
    """Each JSON value of the body is a message. A value that is none ends what the client says, and nothing
    is said of it: so it is in etcd."""

    def __init__(self, parts: Parts, http: int, rpc: Rpc, meta: Meta, headers: Headers, body: bytes) -> None:
        super().__init__(parts, http, rpc, meta, headers)
        self._open_call()
        self._tell(OPEN)
        if self._call:
            self._read(body)

    def _read(self, body: bytes) -> None:
        job = self._messages(body)
        try:
            next(job)
        except StopIteration:
            return
        except Exception as error:
            self._failed(error)
        else:
            self._reading = self._parts.jobs.start(job, lambda _: None, self._failed)

    def _messages(self, body: bytes) -> Generator[None, None, None]:
        at = count = 0
        while self._call:
            try:
                end = yield from value_end(body, at)
                if end < 0:
                    break
                text = body[at:end].strip(b" \t\r\n")
                payload = yield from decode.message(self._rpc.request, text)
            except (BadJson, Refused):
                break
            at = end
            check_size(payload, self._parts.message_bytes_max)
            if self._call:
                self._tell(MESSAGE, payload)
            count += 1
            if count % MESSAGES_PER_SLICE == 0:
                yield
        if self._call:
            self._tell(HALF_CLOSE)
