"""A whole member in this process, on a real disk, without the wire: as a server, but asked directly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from google.protobuf.message import Message

from pyetcd._native import Appender, Wake
from pyetcd.member.config import ServerConfig
from pyetcd.member.features import FeatureGates
from pyetcd.member.member import Member
from pyetcd.member.opening import open_member
from pyetcd.mvcc.answer import Answer
from pyetcd.peer.wire import PeerWire
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    DeleteRangeRequest,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    TxnRequest,
)
from pyetcd.storage.files import OsFiles

DEADLINE_SECONDS = 30.0
NOWHERE = cast(PeerWire, SimpleNamespace(server=None))  # a member without others dials nobody
KINDS: dict[type[Message], int] = {
    PutRequest: InternalRaftRequest.PUT_FIELD_NUMBER,
    DeleteRangeRequest: InternalRaftRequest.DELETE_RANGE_FIELD_NUMBER,
    TxnRequest: InternalRaftRequest.TXN_FIELD_NUMBER,
    AlarmRequest: InternalRaftRequest.ALARM_FIELD_NUMBER,
    LeaseGrantRequest: InternalRaftRequest.LEASE_GRANT_FIELD_NUMBER,
    LeaseRevokeRequest: InternalRaftRequest.LEASE_REVOKE_FIELD_NUMBER,
    LeaseCheckpointRequest: InternalRaftRequest.LEASE_CHECKPOINT_FIELD_NUMBER,
}


async def until(happened: Callable[[], bool]) -> None:
    """Let the loop run until `happened`, at most for `DEADLINE_SECONDS`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_SECONDS
    while not happened():
        assert loop.time() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


async def ask(member: Member, request: Message) -> Answer:
    """Send a request through the log."""
    return await member.request(KINDS[type(request)], request.SerializeToString(), request)


@asynccontextmanager
async def running(directory: Path, features: str = "") -> AsyncIterator[Member]:
    """A member of a cluster of its own; it leads when this is entered."""
    loop = asyncio.get_running_loop()
    failures: list[BaseException] = []
    wake = Wake()
    appender = Appender(wake)
    config = ServerConfig(data_dir=str(directory / "data"))
    if features:
        config = replace(config, features=FeatureGates().with_text(features))
    with ThreadPoolExecutor(2) as executor:
        opened = open_member(config, OsFiles(), executor, appender, random.Random(1))
        member = Member(config, opened, loop, int(loop.time() * 1000), NOWHERE, failures.append, lambda: None)

        def woken() -> None:
            wake.clear()
            member.on_wake()

        loop.add_reader(wake.fileno(), woken)
        member.start()
        try:
            await until(lambda: member.leases.lessor.is_primary)
            yield member
        finally:
            loop.remove_reader(wake.fileno())
            appender.close()
            await member.stop()
    assert not failures
