"""Two whole members in this process: one leads, the other is its learner, and what they say to each other
goes from hand to hand, snapshots included, as long as the test lets it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from typing import cast
from unittest import mock

from fake_peers import silent
from whole_member import SEGMENT_BYTES, InPlace, LaterAppender, NowAppender

from pyetcd import logs
from pyetcd.cluster.bootstrap import Beginning, NewCluster
from pyetcd.member import member as member_module
from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.member.opening import open_member
from pyetcd.mvcc.answer import Answer
from pyetcd.peer.seams import Database, Refused
from pyetcd.peer.wire import PeerWire
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    TxnRequest,
)
from pyetcd.raft import InvalidMessage, Message, ProposalDropped
from pyetcd.storage.files import Files

CHUNK_BYTES = 16 << 10
EVENT_SECONDS = 20.0
LEARNER_URL = "http://127.0.0.1:3380"

Request = (
    PutRequest
    | DeleteRangeRequest
    | TxnRequest
    | LeaseGrantRequest
    | LeaseRevokeRequest
    | CompactionRequest
    | AlarmRequest
)
KINDS = {
    PutRequest: InternalRaftRequest.PUT_FIELD_NUMBER,
    DeleteRangeRequest: InternalRaftRequest.DELETE_RANGE_FIELD_NUMBER,
    TxnRequest: InternalRaftRequest.TXN_FIELD_NUMBER,
    LeaseGrantRequest: InternalRaftRequest.LEASE_GRANT_FIELD_NUMBER,
    LeaseRevokeRequest: InternalRaftRequest.LEASE_REVOKE_FIELD_NUMBER,
    CompactionRequest: InternalRaftRequest.COMPACTION_FIELD_NUMBER,
    AlarmRequest: InternalRaftRequest.ALARM_FIELD_NUMBER,
}


async def ask(member: Member, request: Request) -> Answer:
    """Send a request through the log."""
    return await member.request(KINDS[type(request)], request.SerializeToString(), request)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(EVENT_SECONDS):
        while not holds():
            await asyncio.sleep(0)


class Between:
    """What lies between the members. While `is_open` is false everything is lost. `on_chunk(offset, chunk)`
    may change what goes over of a database, `pause_seconds` slows it down."""

    def __init__(self) -> None:
        self.members: dict[int, Member] = {}
        self.is_open = True
        self.pause_seconds = 0.0
        self.on_chunk: Callable[[int, bytes], bytes] = lambda offset, chunk: chunk
        self.refused: list[Refused] = []
        self.snapshots = 0  # that have arrived
        self.tasks: set[asyncio.Task[None]] = set()

    def deliver(self, message: Message) -> None:
        member = self.members.get(message.to)
        if member is None or not self.is_open:
            return
        with suppress(Refused, InvalidMessage, ProposalDropped):
            member.peers.process(message)
            member.end_of_turn()

    def carry(self, message: Message, database: Database) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(message, database))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _carry(self, message: Message, database: Database) -> None:
        sender = self.members[message.from_]
        arrived = False
        try:
            arrived = await self._over(message, database)
        except Refused as error:
            self.refused.append(error)
        finally:
            database.close()
            sender.peers.report_snapshot(message.to, arrived)
            sender.end_of_turn()

    async def _over(self, message: Message, database: Database) -> bool:
        receiver = self.members.get(message.to)
        if receiver is None or not self.is_open:
            return False
        sink = receiver.peers.receive_snapshot(message)
        try:
            for offset in range(0, database.size, CHUNK_BYTES):
                chunk = await database.read(offset, min(CHUNK_BYTES, database.size - offset))
                await asyncio.sleep(self.pause_seconds)
                await sink.write(self.on_chunk(offset, chunk))
            await sink.finish()
        except BaseException:
            sink.abort()
            raise
        self.snapshots += 1
        receiver.peers.process(message)
        receiver.end_of_turn()
        return True


class Line:
    """In the place of a member's `peer.transport.Transport`."""

    def __init__(self, between: Between) -> None:
        self._between = between
        self.peers: set[int] = set()

    def add_peer(self, id: int, urls: object) -> None:
        self.peers.add(id)

    def update_peer(self, id: int, urls: object) -> None:
        assert id in self.peers

    def remove_peer(self, id: int) -> None:
        self.peers.discard(id)

    def add_remote(self, id: int, urls: object) -> None: ...

    def has_peer(self, id: int) -> bool:
        return id in self.peers

    def active_since(self, id: int) -> float | None:
        return 0.0

    def hold(self) -> None: ...

    def flush(self) -> None: ...

    def send(self, messages: list[Message]) -> None:
        loop = asyncio.get_running_loop()
        for message in messages:
            loop.call_soon(self._between.deliver, message)

    def send_snapshot(self, message: Message, database: Database) -> None:
        self._between.carry(message, database)


@asynccontextmanager
async def running(
    between: Between,
    config: ServerConfig,
    files: Files,
    *,
    beginning: Beginning | None = None,
    executor: Executor | None = None,
    appender: LaterAppender | None = None,
    failures: list[BaseException] | None = None,
) -> AsyncIterator[Member]:
    """One of them. Failures that are not asked for must not be."""
    failed: list[BaseException] = []
    loop = asyncio.get_running_loop()
    logs.attach(loop)  # threads have something to say, too
    opened = open_member(
        config,
        files,
        executor or InPlace(),
        appender or NowAppender(files),  # type: ignore[arg-type]
        random.Random(1),
        cluster=beginning,
        segment_bytes=SEGMENT_BYTES,
    )
    line = Line(between)
    with mock.patch.object(member_module, "Transport", return_value=line):
        member = Member(
            config,
            opened,
            loop,
            1_700_000_000_000,
            cast(PeerWire, silent()),
            (failed if failures is None else failures).append,
            lambda: None,
        )
    if appender is not None:
        appender.on_done = member.on_wake
    between.members[member.id] = member
    member.start()
    try:
        yield member
    finally:
        between.members.pop(member.id)
        if appender is not None:
            appender.close()
        await member.stop()
        if not between.members:
            logs.attach(None)
    assert not failed, failed


@asynccontextmanager
async def leading(
    between: Between, config: ServerConfig, files: Files, **parts: object
) -> AsyncIterator[Member]:
    """One that leads."""
    async with running(between, config, files, **parts) as member:  # type: ignore[arg-type]
        await asyncio.wait_for(member.current(), EVENT_SECONDS)
        await until(lambda: member.cluster.version is not None)
        yield member


async def learner_of(leader: Member) -> Beginning:
    """Add a learner; how it begins."""
    added, members = await leader.reconfiguration.add([LEARNER_URL], True, 1_700_000_000)
    remotes = [member for member in members if member.id != added.id]
    return Beginning(NewCluster(leader.cluster_id, ()), added.id, is_new=False, remotes=remotes)


async def level(leader: Member, other: Member) -> None:
    """Until the other one has applied all that the leader has."""
    await until(lambda: other.applied_index == leader.applied_index)
