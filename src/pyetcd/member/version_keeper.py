"""Versions on their own: the leader proposes the one that all members can have, every member's storage
follows the cluster's, and a downgrade that all members have made is ended by the leader.

The first two happen at once when there is reason to, and are looked at every few seconds besides. Rules are
in `cluster.versions`, steps of the storage in `cluster.migration`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import Message

from pyetcd import logs
from pyetcd.cluster.bootstrap import set_downgrade, set_version
from pyetcd.cluster.membership import Buckets, Membership
from pyetcd.cluster.migration import CannotMigrate, check_log, needed_version, plan, take
from pyetcd.cluster.versions import (
    SERVER,
    InvalidTarget,
    Version,
    check_downgrade,
    decide_cluster_version,
    decide_storage_version,
    is_downgraded,
    parse_target,
)
from pyetcd.member.position import Position
from pyetcd.peer.calls import Calls
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.raft import Entry, Node
from pyetcd.version import SERVER_VERSION

INTERVAL_SECONDS = 5.0
SLICE_ENTRIES = 20
CLUSTER_VERSION_SET = InternalRaftRequest.CLUSTER_VERSION_SET_FIELD_NUMBER
DOWNGRADE_INFO_SET = InternalRaftRequest.DOWNGRADE_INFO_SET_FIELD_NUMBER

_log = logs.get("member")


class VersionKeeper:
    """Run `settle`, `follow` and `end_downgrades` as tasks. Every method from the loop."""

    def __init__(
        self,
        cluster: Membership,
        backend: Buckets,
        position: Position,
        node: Node,
        calls: Calls,
        request: Callable[[int, bytes, Message], Awaitable[object]],
        current: Callable[[], Awaitable[object]],
        entries: Callable[[], Awaitable[Sequence[Entry] | None]],
        timeout_seconds: float,
        downgrade_check_seconds: float,
    ) -> None:
        """`request`: send one through the log. `current`: returns when this member has applied what the
        cluster had committed. `entries`: the log behind the last snapshot on disk, None while that is not at
        hand. `timeout_seconds`: for a member to tell its version. `downgrade_check_seconds`: how often the
        leader looks whether a downgrade is done; 0 for never."""
        self._cluster = cluster
        self._backend = backend
        self._position = position
        self._node = node
        self._calls = calls
        self._request = request
        self._current = current
        self._entries = entries
        self._timeout_seconds = timeout_seconds
        self._downgrade_check_seconds = downgrade_check_seconds
        self._changed = asyncio.Event()
        self._leads = asyncio.Event()

    def cluster_changed(self) -> None:
        """The cluster's version is another one."""
        self._changed.set()

    def leads(self) -> None:
        """This member has committed in its term as leader."""
        self._leads.set()

    # On their own

    async def follow(self) -> None:
        """Let the storage's version follow the cluster's."""
        while True:
            await _wait(self._changed, INTERVAL_SECONDS)
            storage = self._position.storage_version
            known = Version.parse(storage) if storage else None
            target = decide_storage_version(self._cluster.version, known)
            if target is not None:
                await self._migrate(known, target)

    async def settle(self) -> None:
        """As leader, propose the version that all members can have."""
        while True:
            await _wait(self._leads, INTERVAL_SECONDS)
            if not self._node.is_leader:
                continue
            try:
                version = decide_cluster_version(
                    self._cluster.version, await self._servers(), self._cluster.downgrade
                )
            except InvalidTarget as error:
                _log.error("Failed to monitor cluster version", {"error": error})
                continue
            if version is not None:
                await self._propose(version)

    async def end_downgrades(self) -> None:
        """As leader, end a downgrade when all members run its target version."""
        while self._downgrade_check_seconds:
            await asyncio.sleep(self._downgrade_check_seconds)
            downgrade = self._cluster.downgrade
            if not self._node.is_leader or not downgrade.enabled:
                continue
            if is_downgraded(await self._servers(), Version.parse(downgrade.target)):
                _log.info("the cluster has been downgraded", {"cluster-version": downgrade.target})
                try:
                    await self._set_downgrade(None)
                except EtcdError as error:  # tried again after the interval
                    _log.warn("failed to cancel downgrade", {"error": error.message})

    # For clients. Each raises the error that a client gets, and else returns the cluster's version.

    async def validate_downgrade(self, target: str) -> Version:
        """Whether one to `target` could be enabled now."""
        version = parse_target(target)
        before = self._known_version()
        await self._check_downgrade(version)
        return before

    async def enable_downgrade(self, target: str) -> Version:
        try:
            version = parse_target(target)
            await self._check_downgrade(version)
            await self._set_downgrade(version)
        except EtcdError as error:
            _log.warn("reject downgrade request", {"error": error.message})
            raise
        return self._known_version()

    async def cancel_downgrade(self) -> Version:
        """What keeps one from being cancelled is only logged, as by etcd."""
        try:
            await self._current()
            if not self._cluster.downgrade.enabled:
                raise errors.NO_INFLIGHT_DOWNGRADE
            await self._set_downgrade(None)
        except EtcdError as error:
            _log.warn("failed to cancel downgrade", {"error": error.message})
        return self._known_version()

    # Inside

    def _known_version(self) -> Version:
        if self._cluster.version is None:
            raise errors.CLUSTER_VERSION_UNAVAILABLE
        return self._cluster.version

    async def _check_downgrade(self, target: Version) -> None:
        await self._current()
        check_downgrade(self._known_version(), target, self._cluster.downgrade)

    async def _set_downgrade(self, target: Version | None) -> None:
        request = set_downgrade(target)
        await self._request(DOWNGRADE_INFO_SET, request.SerializeToString(), request)

    async def _migrate(self, storage: Version | None, cluster: Version) -> None:
        """Set the storage's version; where the log forbids it, that is tried again after the interval."""
        if storage is not None:
            versions = {"cluster-version": str(cluster), "storage-version": str(storage)}
            _log.info("cluster version differs from storage version.", versions)
        try:
            if storage is None:
                raise CannotMigrate("cannot detect storage schema version: missing term information")
            steps = plan(storage, cluster)
            if cluster < storage:
                entries = await self._entries()
                if entries is None:
                    return
                check_log(cluster, await _needed(entries))
                if self._cluster.version != cluster or self._position.storage_version != str(storage):
                    return  # another one meanwhile
            take(self._backend, steps)
        except CannotMigrate as error:
            fields = {"cluster-version": str(cluster), "error": error}
            _log.error("failed to update storage version", fields)
            return
        downgrade = self._cluster.downgrade
        if downgrade.enabled:
            fields = {"target-version": downgrade.target, "server-version": str(SERVER)}
            _log.info("The server is ready to downgrade", fields)

    async def _servers(self) -> dict[int, str | None]:
        """The server version of every member, None where it does not answer."""
        cluster = self._cluster
        others = [member for member in cluster.list() if member.id != cluster.local_id]
        told = await self._calls.versions_of(others, self._timeout_seconds)
        servers = {id: None if each is None else each.server for id, each in told.items()}
        servers[cluster.local_id] = SERVER_VERSION
        return servers

    async def _propose(self, version: Version) -> None:
        old = self._cluster.version
        if old is None:
            fields = {"cluster-version": version.short}
            _log.info("setting up initial cluster version using v3 API", fields)
        else:
            fields = {"from": old.short, "to": version.short}
            _log.info("updating cluster version using v3 API", fields)
        request = set_version(version)
        try:
            await self._request(CLUSTER_VERSION_SET, request.SerializeToString(), request)
        except EtcdError as error:  # tried again after the interval
            _log.warn("failed to update cluster version", {"error": error.message})
        else:
            _log.info("cluster version is updated", {"cluster-version": version.short})


async def _needed(entries: Sequence[Entry]) -> Version | None:
    """The oldest etcd that knows all there is in these entries; others run between slices of about a
    millisecond, since there may be thousands."""
    newest: Version | None = None
    for start in range(0, len(entries), SLICE_ENTRIES):
        version = needed_version(entries[start : start + SLICE_ENTRIES])
        if newest is None or (version is not None and newest < version):
            newest = version
        await asyncio.sleep(0)
    return newest


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until it is set, which it is no more then, or the time is over."""
    try:
        async with asyncio.timeout(seconds):  # wait_for can swallow a cancellation
            await event.wait()
    except TimeoutError:
        pass
    event.clear()
