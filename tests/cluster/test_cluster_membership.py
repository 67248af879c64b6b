"""The members as stored, and which changes may be applied to them."""

from __future__ import annotations

import json

import pytest

from pyetcd.cluster import changes
from pyetcd.cluster.members import Member
from pyetcd.cluster.membership import Applied, BadMembership, Membership
from pyetcd.cluster.versions import Downgrade, NewerCluster, Version
from pyetcd.proto import errors
from pyetcd.proto.raft_pb2 import ConfChange

ONE = Member(1, ("http://a:1",), name="one", client_urls=("http://a:2",))
TWO = Member(0xAB, ("http://b:1",))
LEARNER = Member(3, ("http://c:1",), is_learner=True)


class FakeBuckets:
    def __init__(self) -> None:
        self.data: dict[bytes, dict[bytes, bytes]] = {}

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self.data.get(bucket, {}).get(key)

    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        found = sorted(self.data.get(bucket, {}).items())
        return [(key, value) for key, value in found if key >= start and (end is None or key < end)]

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        self.data.setdefault(bucket, {})[key] = value

    def delete(self, bucket: bytes, key: bytes) -> None:
        self.data.get(bucket, {}).pop(key, None)


def make(*members: Member, max_learners: int = 1) -> tuple[Membership, FakeBuckets]:
    buckets = FakeBuckets()
    membership = Membership(buckets, 1, 9, max_learners)
    for member in members:
        apply(membership, changes.bootstrap(member))
    return membership, buckets


def apply(membership: Membership, data: bytes) -> Applied:
    change = ConfChange.FromString(data)
    membership.validate(change)
    return membership.apply(change)


def test_what_is_applied_is_stored_in_etcds_bytes_and_loaded_again() -> None:
    membership, buckets = make(ONE, TWO)
    apply(membership, changes.add(5, LEARNER))
    membership.set_attributes(0xAB, "two", ["http://b:2"])
    apply(membership, changes.remove(6, 1))
    membership.set_version(Version(3, 7))
    membership.set_downgrade(Downgrade(True, "3.6.0"))
    assert buckets.data == {
        b"members": {
            b"3": b'{"id":3,"peerURLs":["http://c:1"],"isLearner":true}',
            b"ab": b'{"id":171,"peerURLs":["http://b:1"],"name":"two","clientURLs":["http://b:2"]}',
        },
        b"members_removed": {b"1": b"removed"},
        b"cluster": {
            b"clusterVersion": b"3.7.0",
            b"downgrade": b'{"target-version":"3.6.0","enabled":true}',
        },
    }
    again = Membership(buckets, 0xAB, 9)
    again.load()
    assert again.members == membership.members
    assert again.removed == {1}
    assert (again.version, again.downgrade) == (Version(3, 7), Downgrade(True, "3.6.0"))
    assert [m.id for m in again.list()] == [3, 0xAB]
    assert ([m.id for m in again.voters()], [m.id for m in again.learners()]) == ([0xAB], [3])


def test_a_new_database_has_no_members_and_no_version() -> None:
    membership, _ = make()
    membership.load()
    assert (membership.members, membership.version, membership.downgrade) == ({}, None, Downgrade())


def test_an_ended_downgrade_leaves_no_target() -> None:
    membership, buckets = make()
    membership.set_downgrade(Downgrade(False, "3.6.0"))
    assert buckets.data[b"cluster"][b"downgrade"] == b'{"target-version":"","enabled":false}'


def test_a_promotion_makes_a_voter_of_a_learner() -> None:
    membership, buckets = make(ONE, LEARNER)
    assert apply(membership, changes.promote(1, 3)).kind == "promote"
    assert buckets.data[b"members"][b"3"] == b'{"id":3,"peerURLs":["http://c:1"]}'


def test_an_update_changes_the_peer_urls_only() -> None:
    membership, _ = make(ONE)
    apply(membership, changes.update(1, 1, ["http://new:1"]))
    assert membership.members[1] == Member(1, ("http://new:1",), False, "one", ("http://a:2",))


def test_attributes_of_a_removed_member_are_nothing() -> None:
    membership, buckets = make(ONE, TWO)
    apply(membership, changes.remove(1, 0xAB))
    membership.set_attributes(0xAB, "two", [])
    assert list(buckets.data[b"members"]) == [b"1"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (changes.add(1, Member(1, ("http://new:1",))), errors.MEMBER_EXISTS),
        (changes.add(1, Member(9, ("http://a:1",))), errors.PEER_URL_EXISTS),
        (changes.add(1, Member(9, ("http://new:1",), True)), errors.TOO_MANY_LEARNERS),
        (changes.add(1, Member(8, ("http://new:1",))), errors.MEMBER_NOT_FOUND),
        (changes.promote(1, 9), errors.MEMBER_NOT_FOUND),
        (changes.promote(1, 1), errors.MEMBER_NOT_LEARNER),
        (changes.remove(1, 9), errors.MEMBER_NOT_FOUND),
        (changes.remove(1, 8), errors.MEMBER_NOT_FOUND),
        (changes.update(1, 9, ["http://new:1"]), errors.MEMBER_NOT_FOUND),
        (changes.update(1, 0xAB, ["http://a:1"]), errors.PEER_URL_EXISTS),
        (ConfChange(type=0, node_id=9, context=b"garbage").SerializeToString(), errors.EtcdError),
        (ConfChange(type=0, node_id=9, context=b'{"id":10}').SerializeToString(), errors.EtcdError),
    ],
)
def test_a_change_that_does_not_fit_is_refused_with_etcds_error(
    data: bytes, error: type[errors.EtcdError]
) -> None:
    membership, _ = make(ONE, TWO, LEARNER, Member(8, ("http://gone:1",)))
    apply(membership, changes.remove(1, 8))
    with pytest.raises(error):
        apply(membership, data)


def test_an_update_may_keep_a_url_of_the_member_itself() -> None:
    membership, _ = make(ONE)
    apply(membership, changes.update(1, 1, ["http://a:1", "http://a:3"]))
    assert membership.members[1].peer_urls == ("http://a:1", "http://a:3")


def test_changes_carry_the_id_of_their_proposer_and_etcds_context() -> None:
    change = ConfChange.FromString(changes.add(77, LEARNER))
    assert (change.id, change.type, change.node_id) == (77, changes.ADD_LEARNER, 3)
    assert change.context == b'{"id":3,"peerURLs":["http://c:1"],"isLearner":true}'
    assert not ConfChange.FromString(changes.bootstrap(ONE)).HasField("id")
    assert not ConfChange.FromString(changes.remove(1, 3)).HasField("context")


@pytest.mark.parametrize(
    ("started", "unstarted", "add", "remove", "promote"),
    [
        (1, 0, True, False, True),
        (1, 1, False, True, True),
        (2, 0, True, True, True),
        (2, 1, False, True, True),
    ],
)
def test_a_quorum_of_started_members_must_stay(
    started: int, unstarted: int, add: bool, remove: bool, promote: bool
) -> None:
    voters = [Member(i, (), name="n") for i in range(1, started + 1)]
    voters += [Member(100 + i, ()) for i in range(unstarted)]
    assert changes.can_add_voter(voters) is add
    assert changes.can_remove_voter(voters, voters[-1].id) is remove
    assert changes.can_promote(voters) is promote
    membership, _ = make(*voters)
    assert membership.can_add_voter() is add
    assert membership.can_remove_voter(voters[-1].id) is remove
    assert membership.can_promote() is promote


def test_a_cluster_newer_than_the_server_is_refused() -> None:
    membership, buckets = make()
    buckets.put(b"cluster", b"clusterVersion", b"3.8.0")
    with pytest.raises(NewerCluster, match="server version is lower than determined cluster version"):
        membership.load()


@pytest.mark.parametrize(
    ("bucket", "key", "value"),
    [
        (b"members", b"xyz", b"{}"),
        (b"members", b"1", b"garbage"),
        (b"members_removed", b"-1", b"removed"),
        (b"cluster", b"clusterVersion", b"three"),
        (b"cluster", b"downgrade", b"[]"),
        (b"cluster", b"downgrade", b'{"enabled":true,"target-version":"x"}'),
    ],
)
def test_a_database_that_makes_no_sense_is_said_to(bucket: bytes, key: bytes, value: bytes) -> None:
    membership, buckets = make()
    buckets.put(bucket, key, value)
    with pytest.raises(BadMembership, match=bucket.decode()):
        membership.load()


def test_a_version_that_goes_down_asks_for_a_snapshot(capfd: pytest.CaptureFixture[str]) -> None:
    membership, _ = make()
    assert membership.set_version(Version(3, 7)) is False
    assert membership.set_version(Version(3, 7)) is False
    assert "forcing snapshot" not in capfd.readouterr().err
    assert membership.set_version(Version(3, 6)) is True
    told = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert told["msg"] == "Cluster version downgrade detected, forcing snapshot"
    assert (told["prev-cluster-version"], told["new-cluster-version"]) == ("3.7.0", "3.6.0")
