"""What we say on streams: endless answers to requests that the other member made.

Rules that hold here:

* Messages are encoded when they are sent, and go to the wire with the turn's `flush`, all streams at once.
* A stream never makes memory grow: when more than `BACKLOG_BYTES_MAX` bytes before a message, or more than
  `BACKLOG_MESSAGES_MAX` messages, have not left, and when nothing has left for the timeout of writes, the
  stream is dropped and raft told.
* Whether anything has left is known at each flush; the link heartbeat sees to it that there is one.
* A second request for the same stream replaces the first: the other side has lost that one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from pyetcd import logs
from pyetcd._native import CANCEL
from pyetcd.peer import kinds
from pyetcd.peer.context import Link
from pyetcd.peer.frames import Body, MessageEncoder
from pyetcd.peer.headers import hex_id
from pyetcd.peer.kinds import StreamKind
from pyetcd.peer.msgappv2 import Batches, MsgAppV2Encoder
from pyetcd.raft import Message

if TYPE_CHECKING:
    from pyetcd._native import Server

BEATS_PER_TIMEOUT: Final = 3  # of reads at the other side
BACKLOG_BYTES_MAX: Final = 64 << 20
BACKLOG_MESSAGES_MAX: Final = 4096
FAREWELL_BYTES_MAX: Final = 1 << 20  # a stream with more unsent is torn rather than ended

_log = logs.get("peer")


class Encoder(Protocol):
    @property
    def heartbeat(self) -> bytes: ...
    def encode(self, message: Message) -> tuple[Body, int]: ...


class Outbox:
    """What all streams have to say in this turn. Flushed at its end, and soon by itself when filled outside
    of one; `hold` says that a turn has begun, whose end will come."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._bodies: list[tuple[int, Body]] = []
        self._from: list[tuple[OutgoingStream, int]] = []
        self._scheduled = False  # or held: a flush will come
        self.batches = Batches()

    def hold(self) -> None:
        self._scheduled = True

    def queue(self, stream: OutgoingStream, call: int, body: Body, size: int) -> None:
        self._bodies.append((call, body))
        self._from.append((stream, size))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._scheduled = False
        if not self._bodies:
            return
        bodies, self._bodies = self._bodies, []
        streams, self._from = self._from, []
        self.batches.forget()
        unsent = self._server.send_many(bodies)
        for (call, _), (stream, size), left in zip(bodies, streams, unsent, strict=True):
            stream.flushed(call, size, left)


class OutgoingStream:
    """One kind of stream to one other member, whether somebody listens at the moment or not."""

    def __init__(self, link: Link, kind: StreamKind, outbox: Outbox) -> None:
        self._link = link
        self._kind = kind
        self._outbox = outbox
        self._beat_seconds = link.timeouts.read_seconds / BEATS_PER_TIMEOUT
        self._stall_seconds = link.timeouts.write_seconds
        self._encoder: Encoder = MessageEncoder()
        self._call: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._queued = self._left = 0
        self._begin_accounts()
        _log.info("started stream writer with remote peer", self._fields(kind=False))

    @property
    def attached(self) -> bool:
        return self._call is not None

    def attach(self, call: int) -> None:
        """`call` is answered with this stream from now on; its headers have been sent."""
        unsent = bool(self._unsent_ends)
        replaced = self._end()
        if self._kind is kinds.MSGAPP:
            self._encoder = MsgAppV2Encoder(self._outbox.batches)
        else:
            self._encoder = MessageEncoder()
        _log.info(
            "set message encoder",
            {
                "from": hex_id(self._link.identity.local_id),
                "to": hex_id(self._link.id),
                "stream-type": self._kind.text,
            },
        )
        self._call = call
        self._begin_accounts()
        self._link.wire.own(call, self)
        self._link.status.activate()
        if replaced:
            _log.warn("closed TCP streaming connection with remote peer", self._fields())
            if unsent:
                self._link.raft.report_unreachable(self._link.id)
        _log.info("established TCP streaming connection with remote peer", self._fields())
        self._timer = self._link.loop.call_later(self._beat_seconds, self._beat)

    def send(self, message: Message) -> None:
        """Only while attached."""
        assert self._call is not None, "only an attached stream is picked"
        body, size = self._encoder.encode(message)
        self._outbox.queue(self, self._call, body, size)

    def flushed(self, call: int, size: int, unsent: int) -> None:
        """The wire has taken `size` bytes of ours; `unsent` have not left yet (-1: nobody listens)."""
        if call != self._call:
            return
        if unsent < 0:
            self._lost("write", "EOF")
            return
        self._link.counters.sent_bytes += size
        self._queued += size
        self._unsent_ends.append(self._queued)
        left = self._queued - unsent
        now = self._link.loop.time()
        if left > self._left or unsent <= size:
            self._moved_at = now
        self._left = left
        self._unsent_bytes = unsent
        ends = self._unsent_ends
        while ends and ends[0] <= left:
            ends.popleft()
        if unsent - size > BACKLOG_BYTES_MAX or len(ends) > BACKLOG_MESSAGES_MAX:
            _log.warn(
                "dropped internal Raft message since sending buffer is full",
                {
                    "local-member-id": hex_id(self._link.identity.local_id),
                    "remote-peer-id": hex_id(self._link.id),
                    "remote-peer-name": self._kind.picked,
                    "remote-peer-active": self._link.status.active,
                    "unsent-bytes": unsent,
                    "unsent-messages": len(ends),
                },
            )
            self._lost("write", "sending buffer is full")
        elif now - self._moved_at >= self._stall_seconds:
            self._lost("write", "i/o timeout")

    def on_event(self, kind: int, payload: object) -> None:
        if kind == CANCEL and self._call is not None:
            self._lost("write", "connection closed by the remote peer")

    def stop(self) -> None:
        """End the stream, if there is one."""
        if self._end():
            _log.warn("closed TCP streaming connection with remote peer", self._fields())
        _log.info("stopped TCP streaming connection with remote peer", self._fields())

    def _begin_accounts(self) -> None:
        self._queued = 0  # bytes handed to the wire
        self._left = 0  # and those of them that have left it
        self._unsent_bytes = 0
        self._unsent_ends: deque[int] = deque()  # where, in bytes queued, each unsent message ends
        self._moved_at = self._link.loop.time()

    def _beat(self) -> None:
        if self._call is None:
            return
        heartbeat = self._encoder.heartbeat
        self._outbox.queue(self, self._call, heartbeat, len(heartbeat))
        self._timer = self._link.loop.call_later(self._beat_seconds, self._beat)

    def _lost(self, action: str, reason: str) -> None:
        """Nothing more can be said on this stream."""
        link = self._link
        unsent = bool(self._unsent_ends)
        assert self._call is not None
        link.wire.hang_up(self._call)
        self._call = None
        self._cancel_timer()
        link.status.deactivate(self._kind.text, action, reason)
        link.counters.sent_failures += 1
        _log.warn("lost TCP streaming connection with remote peer", self._fields())
        if unsent:
            link.raft.report_unreachable(link.id)

    def _end(self) -> bool:
        """End it in good order, so that the other side sees an end and not a failure."""
        if self._call is None:
            return False
        call, self._call = self._call, None
        self._cancel_timer()
        if self._unsent_bytes > FAREWELL_BYTES_MAX:
            self._link.wire.hang_up(call)
        else:
            self._link.wire.disown(call)
            self._link.wire.server.finish_many([(call, 0, "")])
        return True

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fields(self, kind: bool = True) -> logs.Fields:
        who = {
            "local-member-id": hex_id(self._link.identity.local_id),
            "remote-peer-id": hex_id(self._link.id),
        }
        return {"stream-writer-type": self._kind.text, **who} if kind else who
