"""Maintenance.Snapshot: the database file as of one moment, in chunks, no faster than the client reads.

What goes out is the file of a pinned transaction, committed just now, and behind it the SHA-256 of all that:
what `etcdctl snapshot save` writes down and every `snapshot restore` checks. Memory is bounded by the wire's
backlog; the pin is held until the client has taken everything or has gone. Pages are compared to their
checksums before they leave: damage ends the stream with etcd's CORRUPT, and what the client has got by then
is no snapshot.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from pyetcd import logs
from pyetcd.api.dispatch import Outbox
from pyetcd.api.one_request import OneRequest
from pyetcd.logs.gotext import decimal_size
from pyetcd.member.member import Member
from pyetcd.member.snapshot_out import PinnedDatabase
from pyetcd.proto import errors, strict
from pyetcd.proto.rpc_pb2 import SnapshotRequest
from pyetcd.proto.splice import field_bytes, field_head, field_varint

CHUNK_BYTES: Final = 32 << 10  # of a message, as etcd's
READ_BYTES: Final = 256 << 10  # read, proved and hashed at once: about 1 ms
BACKLOG_BYTES: Final = 4 << 20  # unsent bytes beyond which reading waits for the client

_log = logs.get("api")


class SnapshotStream(OneRequest[SnapshotRequest]):
    """One open stream."""

    def __init__(self, member: Member, outbox: Outbox, call: int) -> None:
        self._member = member
        self._outbox = outbox
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()

    def parse(self, payload: bytes) -> SnapshotRequest:
        return strict.parse(SnapshotRequest, payload)

    def begin(self, request: SnapshotRequest) -> None:
        self._task = asyncio.get_running_loop().create_task(self._answer())

    def on_cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def on_writable(self) -> None:
        self._writable.set()

    async def _answer(self) -> None:
        try:
            database = await self._member.open_database()
            try:
                await self._send(database)
            finally:
                database.close()
        except Exception as error:
            self._outbox.fail(self._call, error)
        else:
            self._outbox.finish(self._call, errors.OK, "")

    async def _send(self, database: PinnedDatabase) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        total, version = database.size, database.storage_version
        fields = {"total-bytes": total, "size": decimal_size(total), "storage-version": version}
        _log.info("sending database snapshot to client", fields)
        tail = field_bytes(4, version.encode()) if version else b""
        digest = hashlib.sha256()
        sent = 0
        while sent < total:
            data = await database.read(sent, READ_BYTES)
            digest.update(data)
            messages = []
            for at in range(0, len(data), CHUNK_BYTES):
                blob = data[at : at + CHUNK_BYTES]
                sent += len(blob)
                messages.append([field_varint(2, total - sent) + field_head(3, len(blob)), blob, tail])
            await self._put(messages)
        fields_of_sum = {"total-bytes": total, "checksum-size": digest.digest_size}
        _log.info("sending database sha256 checksum to client", fields_of_sum)
        await self._put([[field_bytes(3, digest.digest()) + tail]])
        took = logs.duration(loop.time() - began)
        _log.info("successfully sent database snapshot to client", {**fields, "took": took})

    async def _put(self, messages: list[list[bytes]]) -> None:
        """Send messages, and return when there is room for more. A client that has gone is told of by
        `on_cancel`."""
        self._writable.clear()
        backlog = self._outbox.server.send_many([(self._call, message) for message in messages])[-1]
        if backlog < 0 or backlog > BACKLOG_BYTES:
            await self._writable.wait()
