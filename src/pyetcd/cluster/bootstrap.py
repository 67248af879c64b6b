"""How a cluster begins: from `--initial-cluster` to its IDs, its first log entries, and what its members
say first.

Every member of a new cluster writes the same first entries by itself, one per member in order of their IDs,
all of term 1 and committed from the start; so no member needs another one for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyetcd.cluster import changes
from pyetcd.cluster.members import Member, cluster_id, new_member
from pyetcd.cluster.versions import Version
from pyetcd.proto.membership_pb2 import (
    Attributes,
    ClusterMemberAttrSetRequest,
    ClusterVersionSetRequest,
    DowngradeInfoSetRequest,
)
from pyetcd.proto.metadata_pb2 import Metadata

BOOTSTRAP_TERM = 1


class BadCluster(ValueError):
    """The initial cluster contradicts itself."""


@dataclass(frozen=True, slots=True)
class NewCluster:
    """A cluster that is about to begin: members by ID, and its own ID."""

    id: int
    members: Sequence[Member]

    def named(self, name: str) -> Member:
        """The member of this name; BadCluster if there is none."""
        for member in self.members:
            if member.name == name:
                return member
        raise BadCluster(f"couldn't find local name {_quoted(name)} in the initial cluster configuration")

    def entry_data(self) -> list[bytes]:
        """The data of the first log entries, indexes 1, 2, …, type ConfChange, term `BOOTSTRAP_TERM`."""
        return [changes.bootstrap(member) for member in self.members]


def new_cluster(initial: Mapping[str, Iterable[str]], token: str) -> NewCluster:
    """The cluster that `--initial-cluster` (name to peer URLs, in canonical text) and the token describe."""
    members: dict[int, Member] = {}
    for name, urls in initial.items():
        member = new_member(name, urls, token)
        if member.id in members:
            raise BadCluster(f"member exists with identical ID {member.hex_id}")
        if member.id == 0:
            raise BadCluster("cannot use 0 as member id")
        members[member.id] = member
    ordered = [members[id] for id in sorted(members)]
    return NewCluster(cluster_id(members), ordered)


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a member without a log begins: in which cluster, as which of its members.

    With `is_new` every member begins by itself with the same entries. Otherwise it begins with nothing, and
    the leader of the running cluster brings everything; `remotes` are that cluster's members as one of them
    told, there to be dialled until the log says who they are.
    """

    cluster: NewCluster
    local_id: int
    is_new: bool = True
    remotes: Sequence[Member] = ()


def metadata(member_id: int, cluster_id: int) -> bytes:
    """What the log says in every segment: whose it is."""
    return Metadata(NodeID=member_id, ClusterID=cluster_id).SerializeToString()


def read_metadata(data: bytes) -> tuple[int, int]:
    """Member and cluster ID. ValueError if the bytes are no such thing."""
    try:
        found = Metadata.FromString(data)
    except Exception as error:  # upb's DecodeError is a plain Exception in some builds
        raise ValueError(f"metadata of the log: {error}") from None
    return found.NodeID, found.ClusterID


def publish(member_id: int, name: str, client_urls: Iterable[str]) -> ClusterMemberAttrSetRequest:
    """What a member proposes once it has started."""
    attributes = Attributes(name=name, client_urls=list(client_urls))
    return ClusterMemberAttrSetRequest(member_ID=member_id, member_attributes=attributes)


def set_version(version: Version) -> ClusterVersionSetRequest:
    """What a leader proposes once it knows all members' versions."""
    return ClusterVersionSetRequest(ver=str(version))


def set_downgrade(target: Version | None) -> DowngradeInfoSetRequest:
    """Enable a downgrade to `target`, or with None end it."""
    if target is None:
        return DowngradeInfoSetRequest()
    return DowngradeInfoSetRequest(enabled=True, ver=str(target))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
