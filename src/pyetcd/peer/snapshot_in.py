"""A snapshot from another member: `POST /raft/snapshot`, whose body comes in pieces.

First a framed MsgSnap, then the database up to the end of the body. Rules that hold here:

* One snapshot is received at a time: a second sender is answered 503 and tries again later. But the leader's
  takes the place of anybody else's, whoever that was and however long it would go on: a leader that has gone
  in the middle of sending, say. And a second attempt of the same sender replaces its first, which that one
  has given up.
* Nothing is kept but the message (at most `MESSAGE_BYTES_MAX`) and what the wire reads ahead: bytes are
  credited back once the sink has taken them. How large a database may be is the sink's to say.
* A sender that is silent for `SILENCE_SECONDS` is given up; the sink is aborted however it ends early.
* The message is processed when the database is there and durable, and only then is it answered 204.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from pyetcd import logs
from pyetcd._native import CANCEL, HALF_CLOSE, MESSAGE
from pyetcd.logs import duration
from pyetcd.logs.gotext import decimal_size
from pyetcd.peer import replies
from pyetcd.peer.counters import Counters, observe
from pyetcd.peer.frames import LENGTH_BYTES, LIMIT_EXCEEDED, BadStream, read_message
from pyetcd.peer.headers import Headers, hex_id
from pyetcd.peer.seams import Raft, Refused, SnapshotSink
from pyetcd.peer.wire import PeerWire
from pyetcd.raft import Message, MessageType

MESSAGE_BYTES_MAX: Final = 64 << 20
SILENCE_SECONDS: Final = 60.0

_log = logs.get("peer")


class _Torn(Exception):
    """The body has ended before its time."""


class SnapshotReceiver:
    """The one place where snapshots arrive."""

    def __init__(
        self,
        local_id: int,
        wire: PeerWire,
        raft: Raft,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.local_id = local_id
        self.wire = wire
        self.raft = raft
        self.loop = loop
        self._current: _Reception | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, call: int, sender: int, counters: Counters, headers: Headers) -> None:
        """Receive what comes on `call` from `sender`, as its headers name it. `headers`: of our answer."""
        current = self._current
        if current is not None:
            if current.sender != sender and not self.raft.leads(sender):
                replies.error(self.wire.server, call, 503, "another snapshot is being received", headers)
                counters.snapshot_receive_failures += 1
                return
            current.task.cancel()
        self._current = reception = _Reception(self, call, sender, counters, headers)
        self.wire.own(call, reception)
        self._tasks.add(reception.task)
        reception.task.add_done_callback(self._tasks.discard)

    def over(self, reception: _Reception) -> None:
        if self._current is reception:
            self._current = None

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel what is under way; the tasks are to be awaited."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks


class _Reception:
    """Owns one request."""

    def __init__(
        self, receiver: SnapshotReceiver, call: int, sender: int, counters: Counters, headers: Headers
    ) -> None:
        self._receiver = receiver
        self._call = call
        self.sender = sender
        self._counters = counters
        self._headers = headers
        self._started = receiver.loop.time()
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._torn = False
        self._writing = False  # the sink is at work
        self._news: asyncio.Future[None] | None = None
        self._fields: dict[str, object] = {
            "local-member-id": hex_id(receiver.local_id),
            "remote-snapshot-sender-id": hex_id(sender),
        }
        self.task = receiver.loop.create_task(self._run())

    def on_event(self, kind: int, payload: object) -> None:
        if kind == MESSAGE:
            self._chunks.append(payload)  # type: ignore[arg-type]
        elif kind == HALF_CLOSE:
            self._ended = True
        elif kind == CANCEL:
            self._torn = True
            if self._writing and not self._ended:
                self.task.cancel()  # however long the sink would take: it is for nothing
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _run(self) -> None:
        try:
            await self._receive()
        except asyncio.CancelledError:
            self._receiver.wire.hang_up(self._call)
            raise
        except Exception as error:  # what nobody foresaw ends this request and nothing else
            _log.warn("failed to receive snapshot", {**self._fields, "error": repr(error)}, exc=error)
            self._fail(500, f"failed to process raft message ({error!r})")
        finally:
            self._receiver.over(self)

    async def _receive(self) -> None:
        try:
            message, rest, size = await self._message()
        except (_Torn, BadStream) as error:
            _log.warn("failed to decode Raft message", {**self._fields, "error": error})
            self._counters.received_failures += 1
            self._fail(400, f"failed to decode raft message ({error})")
            return
        self._counters.received_bytes += size
        if message.type != MessageType.MsgSnap or message.snapshot is None:
            _log.warn("unexpected Raft message type", {**self._fields, "message-type": message.type.name})
            self._fail(400, "wrong raft message type")
            return
        if message.from_ != self.sender:
            _log.warn("unexpected sender of Raft message", {**self._fields, "from": hex_id(message.from_)})
            self._fail(400, "from field mismatch")
            return
        self._fields["incoming-snapshot-index"] = message.snapshot.index
        _log.info(
            "receiving database snapshot",
            {
                **self._fields,
                "incoming-snapshot-message-size-bytes": size,
                "incoming-snapshot-message-size": decimal_size(size),
            },
        )
        self._counters.snapshot_receive_inflights += 1
        try:
            if await self._save(message, rest):
                self._process(message)
        finally:
            self._counters.snapshot_receive_inflights -= 1

    async def _message(self) -> tuple[Message, bytes, int]:
        """The message, what has come behind it, and its size. Raises _Torn or BadStream."""
        gathered = bytearray()
        need = LENGTH_BYTES
        while len(gathered) < need:
            chunk = await self._chunk()
            if chunk is None:
                raise _Torn("unexpected EOF" if gathered else "EOF")
            gathered += chunk
            self._credit(chunk)
            if need == LENGTH_BYTES and len(gathered) >= LENGTH_BYTES:
                size = int.from_bytes(gathered[:LENGTH_BYTES], "big")
                if size > MESSAGE_BYTES_MAX:
                    raise BadStream(LIMIT_EXCEEDED)
                need = LENGTH_BYTES + size
        message = read_message(bytes(gathered[LENGTH_BYTES:need]))
        return message, bytes(gathered[need:]), need - LENGTH_BYTES

    async def _save(self, message: Message, rest: bytes) -> bool:
        """The database to the sink. False: it has failed, and been answered."""
        try:
            sink = self._receiver.raft.receive_snapshot(message)
        except Refused as error:
            self._refuse(error)
            return False
        saved = False
        try:
            total = await self._drain_into(sink, rest)
            await sink.finish()
            saved = True
        except Refused as error:
            self._refuse(error)
            return False
        except Exception as error:
            foreseen = isinstance(error, _Torn | OSError)
            _log.warn(
                "failed to save incoming database snapshot",
                {**self._fields, "error": error},
                exc=None if foreseen else error,
            )
            self._fail(500, f"failed to save KV snapshot ({error})")
            return False
        finally:
            if not saved:
                sink.abort()
        _log.info(
            "received and saved database snapshot",
            {
                **self._fields,
                "incoming-snapshot-size-bytes": total,
                "incoming-snapshot-size": decimal_size(total),
                "download-took": duration(self._receiver.loop.time() - self._started),
            },
        )
        return True

    async def _drain_into(self, sink: SnapshotSink, rest: bytes) -> int:
        total = len(rest)
        if rest:
            await self._write(sink, rest)
        while True:
            chunk = await self._chunk()
            if chunk is None:
                break
            await self._write(sink, chunk)
            total += len(chunk)
            self._counters.received_bytes += len(chunk)
            self._credit(chunk)
        if self._torn:
            raise _Torn("unexpected EOF")
        return total

    async def _write(self, sink: SnapshotSink, chunk: bytes) -> None:
        """Raises _Torn when the sender has gone meanwhile, and what the sink raises."""
        self._writing = True
        try:
            await sink.write(chunk)
        except asyncio.CancelledError:
            if not self._torn:
                raise
            self.task.uncancel()
            raise _Torn("unexpected EOF") from None
        finally:
            self._writing = False

    async def _chunk(self) -> bytes | None:
        """The next piece of the body; None when there is no more. Raises _Torn."""
        while not self._chunks:
            if self._ended or self._torn:
                return None
            self._news = self._receiver.loop.create_future()
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._news
            except TimeoutError:
                raise _Torn("i/o timeout") from None
            finally:
                self._news = None
        return self._chunks.popleft()

    def _credit(self, chunk: bytes) -> None:
        if not self._torn and chunk:
            self._receiver.wire.server.consumed(self._call, len(chunk))

    def _process(self, message: Message) -> None:
        try:
            self._receiver.raft.process(message)
        except Refused as error:
            self._reply(error)
            return
        except Exception as error:
            _log.warn("failed to process Raft message", {**self._fields, "error": error})
            self._fail(500, f"failed to process raft message ({error})")
            return
        self._counters.snapshot_receive_success += 1
        observe(self._counters.snapshot_receive_seconds, self._receiver.loop.time() - self._started)
        if not self._torn:
            self._receiver.wire.disown(self._call)
            self._receiver.wire.server.http_reply(self._call, 204, self._headers, b"")

    def _refuse(self, why: Refused) -> None:
        _log.warn("failed to save incoming database snapshot", {**self._fields, "error": why})
        self._counters.snapshot_receive_failures += 1
        self._reply(why)

    def _reply(self, why: Refused) -> None:
        if not self._torn:
            self._receiver.wire.disown(self._call)
            replies.refused(self._receiver.wire.server, self._call, why, self._headers)

    def _fail(self, status: int, text: str) -> None:
        self._counters.snapshot_receive_failures += 1
        if not self._torn:
            self._receiver.wire.disown(self._call)
            replies.error(self._receiver.wire.server, self._call, status, text, self._headers)
