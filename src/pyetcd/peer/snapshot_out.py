"""A snapshot to one other member: `POST /raft/snapshot`, a framed MsgSnap and the database behind it.

Rules that hold here:

* Memory is bounded: a piece of the database is read when the one before is nearly sent, never more than
  `CHUNK_BYTES` beyond the wire's backlog bound. At most `BYTES_PER_SECOND_MAX` are sent, so that a snapshot
  leaves some of the network to everybody else.
* A receiver that takes nothing for `STALL_SECONDS` is given up. It may answer as late as its disk needs to
  make so much durable.
* However it ends, raft is told, and the database is closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pyetcd import logs
from pyetcd._native import CANCEL, FAILED, RESPONSE, WRITABLE
from pyetcd.cluster.urls import Url
from pyetcd.logs.gotext import decimal_size
from pyetcd.peer.context import Link
from pyetcd.peer.counters import observe
from pyetcd.peer.frames import LENGTH_BYTES, encode_framed
from pyetcd.peer.headers import hex_id
from pyetcd.peer.posting import PostFailed, check_post_response
from pyetcd.peer.seams import Database
from pyetcd.peer.wire import SNAPSHOT_PATH, STREAM_BACKLOG_BYTES, reason_of
from pyetcd.raft import Message

if TYPE_CHECKING:
    from pyetcd._native import HttpResponse

SOURCE: Final = "sendMsgSnap"
CHUNK_BYTES: Final = 256 << 10
BYTES_PER_SECOND_MAX: Final = 200 << 20
STALL_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 60.0  # beside a second for each ...
ANSWER_BYTES_PER_SECOND: Final = 10 << 20  # ... of these, which the receiver has to make durable
PROGRESS_SECONDS: Final = 5.0

_log = logs.get("peer")


class SnapshotSender:
    """All snapshots to one member."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, message: Message, database: Database) -> None:
        """Returns at once; raft hears of the end."""
        task = self._link.loop.create_task(self._run(message, database))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel what is under way; the tasks are to be awaited."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def _run(self, message: Message, database: Database) -> None:
        link = self._link
        parts, size = encode_framed(message)
        total = size - LENGTH_BYTES + database.size
        fields = {
            "snapshot-index": 0 if message.snapshot is None else message.snapshot.index,
            "remote-peer-id": hex_id(link.id),
            "bytes": total,
            "size": decimal_size(total),
        }
        _log.info("sending database snapshot", fields)
        counters, started = link.counters, link.loop.time()
        counters.snapshot_send_inflights += 1
        url = link.picker.pick()
        upload = _Upload(link, url)
        try:
            await upload.write(parts)
            await self._send_database(upload, database, fields)
            upload.end()
            response = await upload.response(ANSWER_SECONDS + total / ANSWER_BYTES_PER_SECOND)
            check_post_response(response, url.text + SNAPSHOT_PATH, link.id, link.identity.cluster_id)
        except asyncio.CancelledError:
            _log.warn("failed to send database snapshot", {**fields, "error": "stopped"})
            raise
        except Exception as error:
            self._failed(url, error, fields)
        else:
            link.status.activate()
            _log.info("sent database snapshot", fields)
            counters.sent_bytes += total
            counters.snapshot_send_success += 1
            observe(counters.snapshot_send_seconds, link.loop.time() - started)
            link.raft.report_snapshot(link.id, True)
        finally:
            counters.snapshot_send_inflights -= 1
            upload.close()
            database.close()

    async def _send_database(self, upload: _Upload, database: Database, fields: logs.Fields) -> None:
        loop = self._link.loop
        offset, started = 0, loop.time()
        report_at = started + PROGRESS_SECONDS
        while offset < database.size and not upload.answered:
            chunk = await database.read(offset, min(CHUNK_BYTES, database.size - offset))
            if not chunk:
                raise PostFailed("unexpected EOF")
            await upload.write([chunk])
            offset += len(chunk)
            now = loop.time()
            if now >= report_at:
                report_at = now + PROGRESS_SECONDS
                percent = 100 * offset // database.size
                _log.info(
                    "still sending database snapshot", {**fields, "sent-bytes": offset, "percent": percent}
                )
            ahead = offset / BYTES_PER_SECOND_MAX - (now - started)
            if ahead > 0:
                await asyncio.sleep(ahead)

    def _failed(self, url: Url, error: Exception, fields: logs.Fields) -> None:
        link = self._link
        foreseen = isinstance(error, PostFailed | OSError)
        _log.warn(
            "failed to send database snapshot", {**fields, "error": error}, exc=None if foreseen else error
        )
        link.picker.unreachable(url)
        link.status.deactivate(SOURCE, "post", str(error))
        link.counters.sent_failures += 1
        link.counters.snapshot_send_failures += 1
        link.raft.report_unreachable(link.id)
        link.raft.report_snapshot(link.id, False)
        if isinstance(error, PostFailed) and error.removed:
            link.raft.member_removed()


class _Upload:
    """Owns one request with a long body. Its methods raise PostFailed."""

    def __init__(self, link: Link, url: Url) -> None:
        self._wire = link.wire
        self._loop = link.loop
        self._answer: HttpResponse | None = None
        self._failure: str | None = None
        self._full = False
        self._waiting: asyncio.Future[None] | None = None
        headers = link.identity.post_headers("application/octet-stream")
        self._call = link.wire.dial(url, "POST", SNAPSHOT_PATH, headers, self, upload=True)

    @property
    def answered(self) -> bool:
        """The other side has heard enough."""
        return self._answer is not None

    async def write(self, parts: list[bytes]) -> None:
        """Returns once there is room for more, or the other side has answered."""
        self._check()
        if self._answer is not None:
            return
        unsent = 0
        if self._call >= 0:
            [unsent] = self._wire.server.send_many([(self._call, parts)])
        self._full = unsent < 0 or unsent > STREAM_BACKLOG_BYTES or self._call < 0
        while self._full and self._answer is None:
            await self._event(STALL_SECONDS, "i/o timeout")

    def end(self) -> None:
        if self._answer is None:
            self._wire.server.finish_many([(self._call, 0, "")])

    async def response(self, timeout_seconds: float) -> HttpResponse:
        while self._answer is None:
            await self._event(timeout_seconds, "timeout awaiting response headers")
        return self._answer

    def close(self) -> None:
        """Whatever the state."""
        if self._answer is None and self._failure is None:
            self._wire.hang_up(self._call)

    def on_event(self, kind: int, payload: object) -> None:
        if kind == RESPONSE:
            self._answer = payload  # type: ignore[assignment]
        elif kind in (FAILED, CANCEL):
            self._failure = reason_of(payload)
        elif kind == WRITABLE:
            self._full = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _event(self, timeout_seconds: float, timeout_text: str) -> None:
        """Wait for the next event."""
        self._check()
        self._waiting = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._waiting
        except TimeoutError:
            raise PostFailed(timeout_text) from None
        finally:
            self._waiting = None
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise PostFailed(self._failure)
