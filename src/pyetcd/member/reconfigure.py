"""Changes of the membership: what clients may ask for now, and the way through the log.

A change is checked twice: here, by what this member knows at the moment (is there a quorum of started and
connected members before and after, is a learner in step), and again when it is applied, alike on every member
(`cluster.changes.validate`). With `--strict-reconfig-check=false` the checks of health are left out.

A learner is promoted where its progress is known, by the leader; other members pass the request on.

Texts and rules after etcd's server/etcdserver/server.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from pyetcd import logs
from pyetcd.cluster import changes
from pyetcd.cluster.members import Member, new_member
from pyetcd.cluster.membership import Membership
from pyetcd.cluster.urls import UrlError, parse_urls
from pyetcd.member.config import ServerConfig
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError
from pyetcd.raft import AnyConfChange, ConfChange, Entry, EntryType, Node, ProposalDropped
from pyetcd.raft.codec import conf_change_of

RETRY_SECONDS = 0.05  # while there is no leader, or leadership is moving
HEALTH_SECONDS = 5.0  # a connection counts as good once it has lasted so long
READY_SHARE = 0.9  # of the leader's log that a learner must have

_log = logs.get("member")


class Connections(Protocol):
    """Since when peers are connected."""

    def active_since(self, id: int) -> float | None: ...


class Reconfiguration:
    """One member's share in changes of the cluster. Every method from the loop; each returns the members as
    they are when the change has been applied here."""

    def __init__(
        self,
        config: ServerConfig,
        cluster: Membership,
        node: Node,
        connections: Connections,
        clock: Callable[[], float],
        next_id: Callable[[], int],
        propose: Callable[[AnyConfChange], None],
        when_applied: Callable[[], Awaitable[None]],
        timed_out: Callable[[float], Exception],
    ) -> None:
        """`propose` raises ProposalDropped. `timed_out(since)`: what to call a proposal that was not
        applied in time."""
        self._config = config
        self._cluster = cluster
        self._node = node
        self._connections = connections
        self._clock = clock
        self._next_id = next_id
        self._propose = propose
        self._when_applied = when_applied
        self._timed_out = timed_out
        self._waiting: dict[int, asyncio.Future[Sequence[Member]]] = {}
        self.promotions = 0
        self.failed_promotions: dict[str, int] = {}  # by reason

    # What clients ask for

    async def add(
        self, peer_urls: Sequence[str], is_learner: bool, unix_seconds: int
    ) -> tuple[Member, Sequence[Member]]:
        """The new member, and all. Its ID follows from its URLs and the time."""
        try:
            urls = [url.text for url in parse_urls(peer_urls)]
        except UrlError:
            raise errors.MEMBER_BAD_URLS from None
        member = new_member("", urls, "", unix_seconds, is_learner)
        self._check_add(member)
        return member, await self._change(changes.add(self._next_id(), member))

    async def remove(self, id: int) -> Sequence[Member]:
        self._check_remove(id)
        return await self._change(changes.remove(self._next_id(), id))

    async def update(self, id: int, peer_urls: Sequence[str]) -> Sequence[Member]:
        try:
            parse_urls(peer_urls)  # etcd does not look, and ends once such a change is applied
        except UrlError:
            raise errors.MEMBER_BAD_URLS from None
        return await self._change(changes.update(self._next_id(), id, peer_urls))

    async def promote_here(self, id: int) -> Sequence[Member]:
        """Promote a learner. NOT_LEADER where the leader must be asked."""
        try:
            await self._check_promote(id)
            members = await self._change(changes.promote(self._next_id(), id))
        except errors.NOT_LEADER:
            raise
        except EtcdError as error:
            count = self.failed_promotions.get(error.message, 0)
            self.failed_promotions[error.message] = count + 1
            raise
        self.promotions += 1
        return members

    def ready_learners(self) -> Sequence[int]:
        """Those that `promote_here` would promote now, if this member leads."""
        if not self._node.is_leader:
            return []
        if self._config.strict_reconfig_check and not self._cluster.can_promote():
            return []
        return [
            member.id
            for member in self._cluster.list()
            if member.is_learner and member.is_started and self._share(member.id) >= READY_SHARE
        ]

    # Through the log

    def applied(self, request_id: int, error: EtcdError | None) -> None:
        """A change has been applied, or refused as it was to be applied."""
        waiter = self._waiting.pop(request_id, None)
        if waiter is None or waiter.done():
            return
        if error is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(self._cluster.list())

    def stop(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            if not waiter.done():
                waiter.set_exception(errors.STOPPED())

    async def _change(self, data: bytes) -> Sequence[Member]:
        change = conf_change_of(Entry(0, 0, EntryType.EntryConfChange, data))
        assert isinstance(change, ConfChange), "that is what was encoded"
        waiter: asyncio.Future[Sequence[Member]] = asyncio.get_running_loop().create_future()
        self._waiting[change.id] = waiter
        since = self._clock()
        try:
            async with asyncio.timeout(self._config.request_timeout_seconds):
                while not (waiter.done() or self._proposed(change)):
                    await asyncio.sleep(RETRY_SECONDS)
                members = await waiter
        except TimeoutError:
            raise self._timed_out(since) from None
        finally:
            self._waiting.pop(change.id, None)
        _log.info(
            "applied a configuration change through raft",
            {
                "local-member-id": f"{self._cluster.local_id:x}",
                "raft-conf-change": change.type.name,
                "raft-conf-change-node-id": f"{change.node_id:x}",
            },
        )
        return members

    def _proposed(self, change: AnyConfChange) -> bool:
        try:
            self._propose(change)
        except ProposalDropped:
            return False
        return True

    # Checks

    def _check_add(self, member: Member) -> None:
        if not self._config.strict_reconfig_check:
            return
        voters = self._cluster.voters()
        fields = {"local-member-id": f"{self._cluster.local_id:x}", "requested-member-add": member.hex_id}
        if not member.is_learner and not self._cluster.can_add_voter():
            why = "rejecting member add request; not enough healthy members"
            raise _rejected(why, fields, errors.MEMBER_NOT_ENOUGH_STARTED)
        if len(voters) > 1 and self._connected(voters) < (len(voters) + 1) // 2 + 1:
            why = (
                "rejecting member add request; local member has not been connected to majority peers, "
                "reconfigure breaks active quorum"
            )
            raise _rejected(why, fields, errors.UNHEALTHY)

    def _check_remove(self, id: int) -> None:
        cluster = self._cluster
        found = cluster.members.get(id)
        if not self._config.strict_reconfig_check or (found is not None and found.is_learner):
            return
        voters = cluster.voters()
        local = f"{cluster.local_id:x}"
        if not cluster.can_remove_voter(id):
            why = "rejecting member remove request; not enough healthy members"
            fields = {"local-member-id": local, "requested-member-remove-id": f"{id:x}"}
            raise _rejected(why, fields, errors.MEMBER_NOT_ENOUGH_STARTED)
        if id != cluster.local_id and self._connections.active_since(id) is None:
            return  # it takes no part in the quorum there is
        active = self._connected(voters)
        if active - 1 < 1 + (len(voters) - 1) // 2:
            why = (
                "rejecting member remove request; local member has not been connected to all peers, "
                "reconfigure breaks active quorum"
            )
            fields = {"local-member-id": local, "requested-member-remove": f"{id:x}"}
            raise _rejected(why, {**fields, "active-peers": active}, errors.UNHEALTHY)

    async def _check_promote(self, id: int) -> None:
        await self._when_applied()
        progress = self._node.progress()
        if self._node.id not in progress:  # or it leads, and has just been removed
            raise errors.NOT_LEADER
        if id not in progress:
            raise errors.MEMBER_NOT_FOUND
        share = self._share(id)
        if share < READY_SHARE:
            _log.error(
                "rejecting promote learner: learner is not ready",
                {"learner-ready-percent": share, "ready-percent-threshold": READY_SHARE},
            )
            raise errors.LEARNER_NOT_READY
        if self._config.strict_reconfig_check and not self._cluster.can_promote():
            why = "rejecting member promote request; not enough healthy members"
            fields = {
                "local-member-id": f"{self._cluster.local_id:x}",
                "requested-member-remove-id": f"{id:x}",
            }
            raise _rejected(why, fields, errors.MEMBER_NOT_ENOUGH_STARTED)

    def _share(self, id: int) -> float:
        """How much of its log a member has, as the leader knows."""
        progress = self._node.progress()
        return progress[id].match / max(progress[self._node.id].match, 1) if id in progress else 0.0

    def _connected(self, members: Sequence[Member]) -> int:
        """How many have been connected to this member for a while, itself included."""
        return connected_since(
            self._connections, self._clock() - HEALTH_SECONDS, self._cluster.local_id, members
        )


def connected_since(connections: Connections, since: float, local_id: int, members: Sequence[Member]) -> int:
    """How many of `members` are this one, or connected to it since before `since`."""
    return sum(
        member.id == local_id
        or ((active := connections.active_since(member.id)) is not None and active < since)
        for member in members
    )


def _rejected(why: str, fields: Mapping[str, object], error: type[errors.KnownError]) -> errors.KnownError:
    _log.warn(why, {**fields, "error": error.message})
    return error()
