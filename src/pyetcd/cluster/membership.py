"""The members as they are stored: in memory for reading, in the backend's buckets for good.

Buckets and bytes are etcd's, since `Hash` covers them: `members` and `members_removed` by hexadecimal ID,
`cluster` with `clusterVersion` and `downgrade`. All changes come from applied entries, so they are the same
on every member; what is written here is committed together with the consistent index of those entries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pyetcd import logs
from pyetcd.cluster import changes, gojson
from pyetcd.cluster.members import BadMember, Member, from_json, to_json
from pyetcd.cluster.versions import SERVER, Downgrade, Version, check_not_newer
from pyetcd.proto.raft_pb2 import ConfChange

_log = logs.get("cluster")

MEMBERS = b"members"
REMOVED = b"members_removed"
CLUSTER = b"cluster"
_VERSION = b"clusterVersion"
_DOWNGRADE = b"downgrade"


class Buckets(Protocol):
    """The part of the backend that is needed here."""

    def get(self, bucket: bytes, key: bytes) -> bytes | None: ...
    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = ..., limit: int = ...
    ) -> list[tuple[bytes, bytes]]: ...
    def put(self, bucket: bytes, key: bytes, value: bytes) -> None: ...
    def delete(self, bucket: bytes, key: bytes) -> None: ...


class BadMembership(Exception):
    """What the database says of the members cannot be read."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What an applied change did. `member` is as it is now, or as it was if it has been removed."""

    kind: str  # "add", "promote", "update", "remove"
    id: int
    member: Member | None


class Membership:
    """The members of one cluster, as one member sees them. `removed` IDs never come back."""

    def __init__(self, buckets: Buckets, local_id: int, cluster_id: int, max_learners: int = 1) -> None:
        self._buckets = buckets
        self.local_id = local_id
        self.cluster_id = cluster_id
        self.max_learners = max_learners
        self.members: dict[int, Member] = {}
        self.removed: set[int] = set()
        self.version: Version | None = None
        self.downgrade = Downgrade()

    # Reading

    def load(self) -> None:
        """`read`, and say in the log what was found. NewerCluster if the version agreed on is too new."""
        self.read()
        if self.downgrade.enabled:
            fields = {
                "target-cluster-version": self.downgrade.target,
                "current-server-version": str(SERVER),
            }
            _log.info("cluster is downgrading to target version", fields)
        check_not_newer(self.version)
        for member in self.list():
            _log.info(
                "recovered/added member from store",
                {
                    **self._ids(),
                    "recovered-remote-peer-id": member.hex_id,
                    "recovered-remote-peer-urls": member.peer_urls,
                    "recovered-remote-peer-is-learner": member.is_learner,
                },
            )
        if self.version is not None:
            _log.info("set cluster version from store", {"cluster-version": self.version.short})

    def read(self) -> None:
        """Read everything from the backend. BadMembership if it makes no sense."""
        self.members = {}
        for key, value in self._buckets.scan(MEMBERS, b""):
            id = _id_of(MEMBERS, key)
            try:
                self.members[id] = from_json(value)[0]
            except BadMember as error:
                raise BadMembership(f"couldn't read members from backend: {key!r}: {error}") from None
        self.removed = {_id_of(REMOVED, key) for key, _ in self._buckets.scan(REMOVED, b"")}
        self.version = _read_version(self._buckets)
        self.downgrade = _read_downgrade(self._buckets)

    def list(self) -> Sequence[Member]:
        """All members, by ID."""
        return [self.members[id] for id in sorted(self.members)]

    def voters(self) -> Sequence[Member]:
        return [member for member in self.list() if not member.is_learner]

    def learners(self) -> Sequence[Member]:
        return [member for member in self.list() if member.is_learner]

    @property
    def is_local_learner(self) -> bool:
        local = self.members.get(self.local_id)
        return local is not None and local.is_learner

    def by_name(self, name: str) -> Member | None:
        return next((member for member in self.list() if member.name == name), None)

    # What may be asked for now

    def can_add_voter(self) -> bool:
        """Whether a quorum of started members stays if a voter is added that has not started."""
        voters = self.voters()
        fits = changes.can_add_voter(voters)
        return fits or self._too_few("add", voters, len(voters) + 1)

    def can_remove_voter(self, id: int) -> bool:
        """Whether the voters left over have a quorum that has started."""
        voters = self.voters()
        left = [member for member in voters if member.id != id]
        return changes.can_remove_voter(voters, id) or self._too_few("remove", left, len(left))

    def can_promote(self) -> bool:
        """Whether a quorum has started once a learner votes too, which has."""
        voters = self.voters()
        fits = changes.can_promote(voters)
        return fits or self._too_few("promote", voters, len(voters) + 1, one_more=1)

    def _too_few(self, change: str, members: Sequence[Member], size: int, *, one_more: int = 0) -> bool:
        """Says why not. False."""
        started = sum(member.is_started for member in members) + one_more
        counts = {"number-of-started-member": started, "quorum": size // 2 + 1}
        why = f"rejecting member {change}; started member will be less than quorum"
        _log.warn(why, {**counts, **self._ids()})
        return False

    # Applying

    def validate(self, change: ConfChange) -> None:
        """The error the change's proposer gets, if it does not fit now; it is then applied as nothing."""
        changes.validate(change, self.members, self.removed, self.max_learners)

    def apply(self, change: ConfChange) -> Applied:
        """Apply a change that has been validated."""
        if change.type == changes.REMOVE:
            return self._remove(change.node_id)
        member, is_promotion = changes.member_of(change)
        if change.type == changes.UPDATE:
            old = self.members[member.id]
            self._save(replace(old, peer_urls=member.peer_urls))
            _log.info("updated member", self._about("updated-remote", self.members[member.id]))
            return Applied("update", member.id, self.members[member.id])
        if is_promotion:
            self._save(replace(self.members[member.id], is_learner=False))
            _log.info("promote member", {**self._ids(), "promoted-member-id": member.hex_id})
            return Applied("promote", member.id, self.members[member.id])
        self._save(member)
        _log.info(
            "added member",
            {
                **self._ids(),
                "added-peer-id": member.hex_id,
                "added-peer-peer-urls": member.peer_urls,
                "added-peer-is-learner": member.is_learner,
            },
        )
        return Applied("add", member.id, member)

    def set_attributes(self, id: int, name: str, client_urls: Sequence[str]) -> None:
        """A member has published itself. For one that was removed, or is unknown, this is nothing."""
        member = self.members.get(id)
        if member is None:
            ids = {**self._ids(), "updated-peer-id": f"{id:x}"}
            _log.warn("skipped attributes update of removed member", ids)
            return
        self._save(member.with_attributes(name, client_urls))

    def set_version(self, version: Version) -> bool:
        """The cluster has agreed on a version. Returns whether it went down, which asks for a snapshot at
        once.

        NewerCluster where this server is too old for it.
        """
        old, self.version = self.version, version
        if old is not None:
            fields = {"from": old.short, "to": version.short}
            _log.info("updated cluster version", {**self._ids(), **fields})
        else:
            _log.info("set initial cluster version", {**self._ids(), "cluster-version": version.short})
        check_not_newer(version)
        self._buckets.put(CLUSTER, _VERSION, str(version).encode())
        if old is None or old <= version:
            return False
        fields = {"prev-cluster-version": str(old), "new-cluster-version": str(version)}
        _log.info("Cluster version downgrade detected, forcing snapshot", fields)
        return True

    def set_downgrade(self, downgrade: Downgrade) -> None:
        self.downgrade = downgrade if downgrade.enabled else Downgrade()
        target, enabled = gojson.string(self.downgrade.target), "true" if self.downgrade.enabled else "false"
        text = gojson.fields([("target-version", target), ("enabled", enabled)])
        self._buckets.put(CLUSTER, _DOWNGRADE, text.encode())

    # Inside

    def _save(self, member: Member) -> None:
        self.members[member.id] = member
        self._buckets.put(MEMBERS, member.hex_id.encode(), to_json(member))

    def _remove(self, id: int) -> Applied:
        key = f"{id:x}".encode()
        self._buckets.delete(MEMBERS, key)
        self._buckets.put(REMOVED, key, b"removed")
        member = self.members.pop(id, None)
        self.removed.add(id)
        if member is None:
            _log.warn(
                "skipped removing already removed member",
                {**self._ids(), "removed-remote-peer-id": f"{id:x}"},
            )
        else:
            _log.info("removed member", self._about("removed-remote", member))
        return Applied("remove", id, member)

    def _ids(self) -> dict[str, object]:
        return {"cluster-id": f"{self.cluster_id:x}", "local-member-id": f"{self.local_id:x}"}

    def _about(self, prefix: str, member: Member) -> dict[str, object]:
        return {
            **self._ids(),
            f"{prefix}-peer-id": member.hex_id,
            f"{prefix}-peer-urls": member.peer_urls,
            f"{prefix}-peer-is-learner": member.is_learner,
        }


def _id_of(bucket: bytes, key: bytes) -> int:
    try:
        id = int(key, 16)
    except ValueError:
        id = -1
    if not 0 <= id < 1 << 64:
        raise BadMembership(f"bucket {bucket.decode()}: {key!r} is not a member ID")
    return id


def _read_version(buckets: Buckets) -> Version | None:
    value = buckets.get(CLUSTER, _VERSION)
    if value is None:
        return None
    try:
        return Version.parse(value.decode())
    except ValueError as error:
        raise BadMembership(f"bucket cluster: clusterVersion: {error}") from None


def _read_downgrade(buckets: Buckets) -> Downgrade:
    value = buckets.get(CLUSTER, _DOWNGRADE)
    if value is None:
        return Downgrade()
    try:
        found = json.loads(value)
        downgrade = Downgrade(bool(found.get("enabled")), str(found.get("target-version") or ""))
        if downgrade.enabled:
            Version.parse(downgrade.target)
    except (ValueError, AttributeError) as error:
        raise BadMembership(f"bucket cluster: downgrade: {error}") from None
    return downgrade
