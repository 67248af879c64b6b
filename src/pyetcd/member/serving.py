"""What this member answers its peers beside raft's messages; fulfils `peer.endpoints.Serving`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pyetcd.cluster.members import Member as ClusterMember
from pyetcd.lease.lessor import NotRenewed
from pyetcd.member.member import Member
from pyetcd.peer.calls import PeerHash, Versions
from pyetcd.peer.endpoints import LeaseLife, NotPrimary
from pyetcd.proto import errors
from pyetcd.version import SERVER_VERSION


class Serving:
    """Every method from the loop."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._leases = member.leases

    @property
    def cluster_id(self) -> int:
        return self._member.cluster_id

    def members(self) -> Sequence[ClusterMember]:
        return self._member.cluster.list()

    def versions(self) -> Versions:
        member = self._member
        cluster, storage = member.cluster_version(), member.storage_version()
        return Versions(SERVER_VERSION, cluster or "not_decided", storage or "unknown")

    async def promote(self, member_id: int, token: str | None) -> Sequence[ClusterMember]:
        self._member.identity.require_admin_token(token)
        return await self._member.promote(member_id, token)

    async def catch_up(self) -> None:
        try:
            await self._wait(self._leases.when_applied)
        except errors.TIMEOUT_WAIT_APPLIED_INDEX:
            raise TimeoutError from None

    async def renew(self, lease_id: int) -> int:
        """As a keep-alive stream does on the leader."""
        lessor, keep_checkpoint = self._leases.lessor, False
        if not self._member.is_certain:
            await self._member.current()
        while True:
            ttl = lessor.renew(lease_id, keep_checkpoint=keep_checkpoint)
            if not isinstance(ttl, NotRenewed):
                return ttl
            if ttl is NotRenewed.NOT_PRIMARY:
                raise NotPrimary
            if ttl is NotRenewed.UNKNOWN:
                raise errors.LEASE_NOT_FOUND
            if ttl is NotRenewed.EXPIRED:
                await self._wait(lambda run, fail: self._leases.when_ended(lease_id, run))
            else:
                keep_checkpoint = await self._take_back(lease_id)

    async def time_to_live(self, lease_id: int, keys: bool) -> LeaseLife:
        lessor = self._leases.lessor
        if not self._member.is_certain:
            await self._member.current()
        if not lessor.is_primary:
            raise NotPrimary
        lease = lessor.lookup(lease_id)
        if lease is None:
            raise errors.LEASE_NOT_FOUND
        if keys:
            await self._member.jobs.run(self._member.store.settle())
        remaining = int(lessor.remaining_seconds(lease))
        return LeaseLife(remaining, lease.ttl, list(lease.keys) if keys else ())

    async def hash_kv(self, revision: int) -> PeerHash:
        member = self._member
        found = await member.hash_kv(revision)
        return PeerHash(member.id, member.store.revision, found.hash, found.compact_revision, found.revision)

    async def downgrade_enabled(self) -> bool:
        await self._member.current()
        return self._member.cluster.downgrade.enabled

    async def _take_back(self, lease_id: int) -> bool:
        """Take the checkpoint of a lease back; whether that failed."""
        failed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._leases.checkpointer.take_back(lease_id, lambda error: _settle(failed, error is not None))
        return await failed

    async def _wait(
        self, wait: Callable[[Callable[[], object], Callable[[Exception], object]], object]
    ) -> None:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def fail(error: Exception) -> None:
            if not done.done():
                done.set_exception(error)

        wait(lambda: _settle(done, True), fail)
        await done


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
