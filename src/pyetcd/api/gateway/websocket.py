"""The gateway's paths over a websocket: what the client says is the body of the request, what it gets are the
lines of the answer, one text message each.

The frames are wsproto's business, the handshake `handshake`'s, and the bytes travel on the connection that
the wire has given over. Where etcd's proxy cuts the connection at the end of a stream, the client is told
goodbye first; and a path with one answer gives it as soon as its request is there, where etcd waits for the
end of a body that has none.

Rules that hold here: a JSON value may be spread over `PARTS_MAX` messages and be `text_max` bytes long;
nothing more is read from a client while what it said before is still being looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Final

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from pyetcd._native import HALF_CLOSE, MESSAGE, OPEN, UNARY, HttpRequest, Meta
from pyetcd.api.gateway import decode
from pyetcd.api.gateway.encode import json_of
from pyetcd.api.gateway.exchanges import Parts, check_size, joined
from pyetcd.api.gateway.handshake import acceptance
from pyetcd.api.gateway.json_tokens import Refused
from pyetcd.api.gateway.json_values import UNEXPECTED_EOF, BadJson, value_end
from pyetcd.api.gateway.paths import Rpc
from pyetcd.api.gateway.status import status_json
from pyetcd.api.gateway.streams import Answers
from pyetcd.api.http_reply import Headers
from pyetcd.api.local_calls import Body
from pyetcd.proto.errors import INVALID_ARGUMENT, OK, EtcdError

PARTS_MAX: Final = 64
CHUNK_BYTES: Final = 2_048


class WebSocket(Answers):
    """One open socket and its call. Made to accept the handshake."""

    def __init__(self, parts: Parts, http: int, rpc: Rpc, meta: Meta, request: HttpRequest) -> None:
        super().__init__(parts, http, rpc, meta, ())
        self._frames = Connection(ConnectionType.SERVER)
        self._heard: deque[bytes] = deque()  # from the wire, not looked at; bounded by what it reads ahead
        self._text = bytearray()  # said and not dealt with
        self._text_max = 2 * parts.message_bytes_max
        self._parts_seen = 0  # messages that the value at the beginning of the text is spread over
        self._is_deaf = False  # what the client says does not count any more
        self._has_spoken = False  # a message has ended since the text was last read
        self._is_listening = False
        parts.server.http_reply(http, 101, acceptance(request), b"", end=False)
        if rpc.takes_several:
            self._open_call()
            self._tell(OPEN)

    # From the client

    def on_message(self, payload: bytes) -> None:
        self._heard.append(payload)
        if self._is_listening:
            return
        self._is_listening = True
        job = self._listen()
        try:
            next(job)
        except StopIteration:
            self._has_listened(None)
        except Exception as error:
            self._failed(error)
        else:
            self._reading = self._parts.jobs.start(job, self._has_listened, self._failed)

    def on_half_close(self) -> None:
        """The connection has been closed."""
        self.on_cancel()
        self._parts.server.finish_many([(self._http, OK, "")])

    def _has_listened(self, _: None) -> None:
        self._is_listening = False
        self._reading = None

    def _listen(self) -> Generator[None, None, None]:
        """Deal with what has been heard. A few frames at a time: they may be of one byte each."""
        while self._heard and self._is_open:
            payload = self._heard.popleft()
            for at in range(0, len(payload), CHUNK_BYTES):
                if at:
                    yield
                self._hear(payload[at : at + CHUNK_BYTES])
                if self._has_spoken and self._is_open:
                    self._has_spoken = False
                    yield from self._messages()
            if self._is_open:
                self._parts.server.consumed(self._http, len(payload))

    def _hear(self, data: bytes) -> None:
        try:
            self._frames.receive_data(data)
            for event in self._frames.events():
                if self._is_open:
                    self._on_event(event)
        except RemoteProtocolError as error:
            if self._is_open:
                self._close(error.event_hint or CloseConnection(CloseReason.PROTOCOL_ERROR))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            if self._is_deaf:
                return
            self._text += event.data.encode() if isinstance(event, TextMessage) else event.data
            if event.message_finished:
                self._text += b"\n"
                self._parts_seen += 1
                self._has_spoken = True
            if len(self._text) > self._text_max or self._parts_seen > PARTS_MAX:
                self._close(CloseConnection(CloseReason.MESSAGE_TOO_BIG))
        elif isinstance(event, Ping):
            self._send(event.response())
        elif isinstance(event, CloseConnection):
            self._close(event.response())

    def _messages(self) -> Generator[None, None, None]:
        """Hand on what is whole of the text."""
        text = bytes(self._text)
        at = 0
        try:
            while self._is_open and not self._is_deaf:
                end = yield from value_end(text, at)
                if end < 0:
                    at = len(text)
                    self._parts_seen = 0
                    break
                payload = yield from decode.message(self._rpc.request, text[at:end].strip(b" \t\r\n"))
                check_size(payload, self._parts.message_bytes_max)
                at = end
                self._parts_seen = 1  # what follows may have begun in the last message
                self._say(payload)
        except BadJson as error:
            if str(error) != UNEXPECTED_EOF:
                self._malformed(error)
        except Refused as error:
            self._malformed(error)
        del self._text[:at]

    def _say(self, payload: bytes) -> None:
        """Hand a message to the call; the only one makes it."""
        if self._rpc.takes_several:
            if self._call:
                self._tell(MESSAGE, payload)
            return
        self._is_deaf = True
        self._open_call()
        if not self._rpc.gives_several:
            self._tell(UNARY, payload)
            return
        self._tell(OPEN)
        for kind, data in ((MESSAGE, payload), (HALF_CLOSE, None)):
            if self._call:
                self._tell(kind, data)

    def _malformed(self, error: Exception) -> None:
        """Nothing more the client says counts; a stream is not told why, as in etcd."""
        self._is_deaf = True
        self._text.clear()
        if not self._rpc.takes_several:
            self.refuse(EtcdError(INVALID_ARGUMENT, str(error)))
        elif self._call:
            self._tell(HALF_CLOSE)

    # To the client

    def replied(self, body: Body) -> None:
        self._call = 0
        self._run(json_of(self._rpc.response, joined(body)), self._answer)

    def _answer(self, pieces: list[bytes]) -> None:
        self._put(pieces)
        self._let_go()
        self._over()

    def refuse(self, error: EtcdError) -> None:
        if self._is_open:
            self._put([status_json(error.code, error.message)])
            self._let_go()
            self._over()

    def _begin(self, status: int, headers: Headers) -> None:
        """There is only one beginning, and it has been."""

    def _put(self, line: list[bytes]) -> None:
        data = b"".join(line).removesuffix(b"\n")
        self._send(TextMessage(data.decode("utf-8", "replace")))

    def _over(self) -> None:
        self._close(CloseConnection(CloseReason.NORMAL_CLOSURE))

    def _send(self, event: Event) -> None:
        try:
            frame = self._frames.send(event)
        except LocalProtocolError:  # goodbye has been said
            return
        self._unsent = self._parts.server.send_many([(self._http, frame)])[0]

    def _close(self, goodbye: Event) -> None:
        """Say goodbye and end the connection."""
        self._send(goodbye)
        if self._is_open:
            self.on_cancel()
        self._parts.server.finish_many([(self._http, OK, "")])


def refuse_path(parts: Parts, http: int, request: HttpRequest, error: EtcdError) -> None:
    """A socket to nowhere: it is accepted, told, and closed."""
    frames = Connection(ConnectionType.SERVER)
    said = frames.send(TextMessage(status_json(error.code, error.message).decode()))
    goodbye = frames.send(CloseConnection(CloseReason.NORMAL_CLOSURE))
    parts.server.http_reply(http, 101, acceptance(request), b"", end=False)
    parts.server.send_many([(http, [said, goodbye])])
    parts.server.finish_many([(http, OK, "")])
