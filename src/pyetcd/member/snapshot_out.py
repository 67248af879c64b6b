"""Snapshots for members that have fallen behind the log.

Raft only says that a member needs one. What is sent is a later state than raft thinks of: a pinned
transaction of the database, just committed, the index and term it holds for as they stand in it, and the
membership of that very moment in front. So the message and the database behind it cannot disagree.

While one is on its way, and for half a minute after it has arrived, the log in memory is not compacted: the
member needs the entries behind the snapshot to catch up, and would need another snapshot without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Protocol

from pyetcd import logs
from pyetcd.cluster.membership import Membership
from pyetcd.cluster.v2store import membership_json
from pyetcd.logs.gotext import decimal_size
from pyetcd.peer.seams import Database
from pyetcd.raft import ConfState, Message, Snapshot, SnapshotMetadata
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend, Pinned

HOLD_SECONDS = 30.0

_log = logs.get("member")


class Transport(Protocol):
    """The part of `peer.transport.Transport` that is needed here."""

    def send_snapshot(self, message: Message, database: Database) -> None: ...


class PinnedDatabase:
    """The database of one pinned transaction, as it goes over the network."""

    def __init__(
        self,
        pinned: Pinned,
        executor: Executor,
        on_closed: Callable[[], None],
    ) -> None:
        self.size = pinned.size
        self.storage_version = (pinned.get(schema.META, schema.STORAGE_VERSION) or b"").decode()
        self._pinned = pinned
        self._executor = executor
        self._on_closed = on_closed
        self._closed = False

    async def read(self, offset: int, count: int) -> bytes:
        """`count` bytes of the file; fewer at its end."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._pinned.read, offset, count)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pinned.close()
            self._on_closed()


class SnapshotSender:
    """Sends the snapshots of one member. Every method from the loop."""

    def __init__(
        self,
        local_id: int,
        backend: Backend,
        transport: Transport,
        executor: Executor,
        spawn: Callable[[Coroutine[None, None, None]], None],
        report: Callable[[int, bool], None],
        seconds: list[float],
    ) -> None:
        """`report(id, ok)`: tell raft what has become of a snapshot that did not get to the transport.
        `seconds` is added to: how long each database was pinned."""
        self._seconds = seconds
        self._local_id = local_id
        self._backend = backend
        self._transport = transport
        self._executor = executor
        self._spawn = spawn
        self._report = report
        self.in_flight = 0

    def send(self, message: Message) -> None:
        """`message` is raft's MsgSnap; what it carries is replaced."""
        self.in_flight += 1
        self._spawn(self._send(message))

    async def _send(self, message: Message) -> None:
        pinned: Pinned | None = None
        try:
            await self._backend.commit()
            pinned = self._backend.pin()
            message.snapshot = self._snapshot_of(pinned)
        except BaseException:
            if pinned is not None:
                pinned.close()
            self.in_flight -= 1
            self._report(message.to, False)
            raise
        fields = {
            "from": f"{self._local_id:x}",
            "to": f"{message.to:x}",
            "bytes": pinned.size,
            "size": decimal_size(pinned.size),
        }
        _log.info("sending merged snapshot", fields)
        loop = asyncio.get_running_loop()
        began = loop.time()

        def closed() -> None:
            took = loop.time() - began
            self._seconds.append(took)
            _log.info("sent merged snapshot", {**fields, "took": logs.duration(took)})
            loop.call_later(HOLD_SECONDS, self._arrived)

        self._transport.send_snapshot(message, PinnedDatabase(pinned, self._executor, closed))

    def _snapshot_of(self, pinned: Pinned) -> Snapshot:
        index, term = schema.position(pinned)
        cluster = Membership(_ReadOnly(pinned), self._local_id, 0)
        cluster.read()
        voters = tuple(member.id for member in cluster.voters())
        learners = tuple(member.id for member in cluster.learners())
        data = membership_json(cluster.list(), cluster.removed, cluster.version)
        return Snapshot(SnapshotMetadata(index, term, ConfState(voters=voters, learners=learners)), data)

    def _arrived(self) -> None:
        self.in_flight -= 1


class _ReadOnly:
    """A pinned transaction where a membership wants a backend."""

    def __init__(self, pinned: Pinned) -> None:
        self.get = pinned.get
        self.scan = pinned.scan

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        raise AssertionError("a pinned transaction is not written")

    def delete(self, bucket: bytes, key: bytes) -> None:
        raise AssertionError("a pinned transaction is not written")
