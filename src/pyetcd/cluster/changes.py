"""Configuration changes: their entries, and whether one may be applied to the members there are.

A change is proposed with the member as JSON in its context and checked when it is applied, against what is
stored then, alike on every member. One that fails the check is applied as nothing. The proposer recognizes
its own by `id`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pyetcd.cluster.members import BadMember, Member, from_json, to_json, to_promotion_json
from pyetcd.cluster.urls import parse_urls
from pyetcd.proto import errors
from pyetcd.proto.raft_pb2 import ConfChange, ConfChangeType

ADD = ConfChangeType.ConfChangeAddNode
REMOVE = ConfChangeType.ConfChangeRemoveNode
UPDATE = ConfChangeType.ConfChangeUpdateNode
ADD_LEARNER = ConfChangeType.ConfChangeAddLearnerNode


def add(request_id: int, member: Member) -> bytes:
    """The entry data that adds a member, a learner or a voter."""
    kind = ADD_LEARNER if member.is_learner else ADD
    return _encode(request_id, kind, member.id, to_json(member))


def promote(request_id: int, member_id: int) -> bytes:
    return _encode(request_id, ADD, member_id, to_promotion_json(member_id))


def update(request_id: int, member_id: int, peer_urls: Collection[str]) -> bytes:
    """Changes the peer URLs. etcd stores the list as the client gave it."""
    return _encode(request_id, UPDATE, member_id, to_json(Member(member_id, tuple(peer_urls) or None)))


def remove(request_id: int, member_id: int) -> bytes:
    return _encode(request_id, REMOVE, member_id, None)


def bootstrap(member: Member) -> bytes:
    """The entry data by which a new cluster's first log names one of its members: there is no proposer."""
    return _encode(None, ADD, member.id, to_json(member))


def forced_promotion(member_id: int) -> bytes:
    """As `promote`, with no proposer."""
    return _encode(None, ADD, member_id, to_promotion_json(member_id))


def forced_removal(member_id: int) -> bytes:
    """As `remove`, with no proposer."""
    return _encode(None, REMOVE, member_id, None)


def _encode(request_id: int | None, kind: ConfChangeType, member_id: int, context: bytes | None) -> bytes:
    change = ConfChange(type=kind, node_id=member_id)
    if request_id is not None:
        change.id = request_id
    if context is not None:
        change.context = context
    return change.SerializeToString()


def member_of(change: ConfChange) -> tuple[Member, bool]:
    """The member in the context of a change that adds or updates, and whether it is a promotion. BadMember
    if it is not there, or another one than the change is about.
    """
    member, is_promotion = from_json(change.context)
    if member.id != change.node_id:
        raise BadMember(f"the change is about {change.node_id:x}, its context about {member.hex_id}")
    return member, is_promotion


def check_well_formed(change: ConfChange) -> None:
    """Whether it is one that a member proposes, whoever the members are. BadMember or UrlError."""
    if change.type == REMOVE:
        return
    member, is_promotion = member_of(change)
    if not is_promotion:
        parse_urls(member.peer_urls or ())


def validate(
    change: ConfChange, members: Mapping[int, Member], removed: Collection[int], max_learners: int
) -> None:
    """Whether the change can be applied now, or the error its proposer gets."""
    id = change.node_id
    if id in removed:
        raise errors.MEMBER_NOT_FOUND
    if change.type == REMOVE:
        if id not in members:
            raise errors.MEMBER_NOT_FOUND
        return
    if change.type not in (ADD, ADD_LEARNER, UPDATE):
        raise errors.EtcdError(errors.INVALID_ARGUMENT, f"unknown ConfChange type {change.type}")
    try:
        member, is_promotion = member_of(change)
    except BadMember as error:
        raise errors.EtcdError(errors.INVALID_ARGUMENT, f"malformed configuration change: {error}") from None
    if change.type == UPDATE:
        if id not in members:
            raise errors.MEMBER_NOT_FOUND
        _check_peer_urls(member, (other for other in members.values() if other.id != id))
    elif is_promotion:
        if id not in members:
            raise errors.MEMBER_NOT_FOUND
        if not members[id].is_learner:
            raise errors.MEMBER_NOT_LEARNER
    else:
        if id in members:
            raise errors.MEMBER_EXISTS
        _check_peer_urls(member, members.values())
        if member.is_learner and change.type == ADD_LEARNER:
            check_learners(members.values(), max_learners, one_more=True)


def check_learners(members: Collection[Member], max_learners: int, *, one_more: bool = False) -> None:
    """TOO_MANY_LEARNERS where there are, or with one more would be, more than allowed."""
    learners = sum(member.is_learner for member in members)
    if learners + one_more > max_learners:
        raise errors.TOO_MANY_LEARNERS


def _check_peer_urls(member: Member, others: Iterable[Member]) -> None:
    taken = {url for other in others for url in other.peer_urls or ()}
    if not taken.isdisjoint(member.peer_urls or ()):
        raise errors.PEER_URL_EXISTS


def can_add_voter(voters: Collection[Member]) -> bool:
    """Whether a quorum of started members stays if a voter is added that has not started. A cluster of one
    may always grow.
    """
    started = sum(member.is_started for member in voters)
    size = len(voters) + 1
    return (started == 1 and size == 2) or started >= size // 2 + 1


def can_remove_voter(voters: Collection[Member], id: int) -> bool:
    """Whether the voters left over have a quorum that has started."""
    left = [member for member in voters if member.id != id]
    return sum(member.is_started for member in left) >= len(left) // 2 + 1


def can_promote(voters: Collection[Member]) -> bool:
    """Whether a quorum has started once the learner, which has, votes too."""
    started = sum(member.is_started for member in voters) + 1
    return started >= (len(voters) + 1) // 2 + 1
