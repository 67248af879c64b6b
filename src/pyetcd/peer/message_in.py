"""The bodies of `POST /raft`, which come in pieces: one message each.

The head has been judged by then, so that nobody is read who is refused anyway. Rules that hold here:

* A member's message has `MESSAGE_BYTES_MAX` at most, that of a sender not known yet `STRANGER_BYTES_MAX`: it
  has little to say but that it is there. All that are under way hold `GATHERED_BYTES_MAX` at most; who comes
  beyond that is answered 503, and raft sends again.
* A body has `BODY_SECONDS` to arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pyetcd._native import CANCEL, HALF_CLOSE, MESSAGE
from pyetcd.peer import replies
from pyetcd.peer.headers import Headers
from pyetcd.peer.wire import PeerWire

MESSAGE_BYTES_MAX: Final = 64 << 20
STRANGER_BYTES_MAX: Final = 1 << 20
GATHERED_BYTES_MAX: Final = 256 << 20
BODY_SECONDS: Final = 60.0

Arrived = Callable[[bytes], None]  # answers the call


class MessageReceiver:
    """The one place where such bodies gather."""

    def __init__(self, wire: PeerWire, loop: asyncio.AbstractEventLoop) -> None:
        self.wire = wire
        self.loop = loop
        self.gathered_bytes = 0
        self._coming: set[_Body] = set()

    def receive(self, call: int, known: bool, headers: Headers, arrived: Arrived) -> None:
        """Gather the body of `call`; `headers`: of the answer where it is refused."""
        body = _Body(self, call, MESSAGE_BYTES_MAX if known else STRANGER_BYTES_MAX, headers, arrived)
        self._coming.add(body)
        self.wire.own(call, body)

    def over(self, body: _Body) -> None:
        self._coming.discard(body)

    def stop(self) -> None:
        """Wait for none of them any more."""
        for body in list(self._coming):
            body.give_up()


class _Body:
    """Owns one request until it is whole."""

    def __init__(
        self, receiver: MessageReceiver, call: int, bytes_max: int, headers: Headers, arrived: Arrived
    ) -> None:
        self._receiver = receiver
        self._call = call
        self._bytes_max = bytes_max
        self._headers = headers
        self._arrived = arrived
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._timer = receiver.loop.call_later(BODY_SECONDS, self.give_up)

    def on_event(self, kind: int, payload: object) -> None:
        if kind == MESSAGE:
            assert isinstance(payload, bytes)
            self._take(payload)
        elif kind == HALF_CLOSE:
            self._end()
            self._arrived(b"".join(self._pieces))
        elif kind == CANCEL:
            self._end()

    def give_up(self) -> None:
        """It has not come in time."""
        self._end()
        self._receiver.wire.hang_up(self._call)

    def _take(self, piece: bytes) -> None:
        receiver = self._receiver
        if self._bytes + len(piece) > self._bytes_max:
            self._refuse(413, "http: request body too large")
        elif receiver.gathered_bytes + len(piece) > GATHERED_BYTES_MAX:
            self._refuse(503, "too many raft messages are being received")
        else:
            self._pieces.append(piece)
            self._bytes += len(piece)
            receiver.gathered_bytes += len(piece)
            receiver.wire.server.consumed(self._call, len(piece))

    def _refuse(self, status: int, text: str) -> None:
        self._end()
        replies.error(self._receiver.wire.server, self._call, status, text, self._headers)

    def _end(self) -> None:
        self._timer.cancel()
        self._receiver.gathered_bytes -= self._bytes
        self._bytes = 0
        self._receiver.wire.disown(self._call)
        self._receiver.over(self)
