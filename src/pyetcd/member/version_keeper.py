"""Versions on their own: the leader proposes the one that all members can have, and every member's storage
follows the cluster's.

Both happen at once when there is reason to, and are looked at every few seconds besides. Rules are in
`cluster.versions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from pyetcd import logs
from pyetcd.cluster.bootstrap import set_version
from pyetcd.cluster.membership import Membership
from pyetcd.cluster.versions import Version, decide_cluster_version, decide_storage_version
from pyetcd.member.position import Position
from pyetcd.peer.calls import Calls
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.raft import Node
from pyetcd.version import SERVER_VERSION

INTERVAL_SECONDS = 5.0
CLUSTER_VERSION_SET = InternalRaftRequest.CLUSTER_VERSION_SET_FIELD_NUMBER

_log = logs.get("member")


class VersionKeeper:
    """Run `settle` and `follow` as tasks. Every method from the loop."""

    def __init__(
        self,
        cluster: Membership,
        position: Position,
        node: Node,
        calls: Calls,
        request: Callable[[int, bytes, Message], Awaitable[object]],
        timeout_seconds: float,
    ) -> None:
        """`request`: send one through the log. `timeout_seconds`: for a member to tell its version."""
        self._cluster = cluster
        self._position = position
        self._node = node
        self._calls = calls
        self._request = request
        self._timeout_seconds = timeout_seconds
        self._changed = asyncio.Event()
        self._leads = asyncio.Event()

    def cluster_changed(self) -> None:
        """The cluster's version is another one."""
        self._changed.set()

    def leads(self) -> None:
        """This member has committed in its term as leader."""
        self._leads.set()

    async def follow(self) -> None:
        """Let the storage's version follow the cluster's."""
        while True:
            await _wait(self._changed, INTERVAL_SECONDS)
            storage = self._position.storage_version
            known = Version.parse(storage) if storage else None
            target = decide_storage_version(self._cluster.version, known)
            if target is not None:
                self._position.set_storage_version(str(target))

    async def settle(self) -> None:
        """As leader, propose the version that all members can have."""
        while True:
            await _wait(self._leads, INTERVAL_SECONDS)
            if self._node.is_leader:
                await self._settle()

    async def _settle(self) -> None:
        cluster = self._cluster
        others = [member for member in cluster.list() if member.id != cluster.local_id]
        told = await self._calls.versions_of(others, self._timeout_seconds)
        servers = {id: None if each is None else each.server for id, each in told.items()}
        servers[cluster.local_id] = SERVER_VERSION
        version = decide_cluster_version(cluster.version, servers, cluster.downgrade)
        if version is None:
            return
        request = set_version(version)
        try:
            await self._request(CLUSTER_VERSION_SET, request.SerializeToString(), request)
        except EtcdError as error:  # tried again after the interval
            _log.warn("failed to update cluster version", {"error": error.message})


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until it is set, which it is no more then, or the time is over."""
    try:
        async with asyncio.timeout(seconds):  # wait_for can swallow a cancellation
            await event.wait()
    except TimeoutError:
        pass
    event.clear()
