"""`--force-new-cluster` on copies of one member's data directory: ours and real etcd go on alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, until
from conftest import Start
from members import Member
from programs import GO, OURS
from rpc import Client


def fill(cluster: Cluster) -> None:
    client = cluster.leader().client
    for number in range(60):
        client.put(b"key-%d" % (number % 17), b"value-%d" % number)


def copied(member: Member, directory: Path, kind: str) -> Member:
    """The same member at another place, as either implementation, alone."""
    place = directory / kind
    place.mkdir()
    copy = Member(member.name, kind, place, {"force-new-cluster": "true"})
    shutil.copytree(member.data, copy.data)
    return copy


def seen(client: Client) -> tuple[object, ...]:
    """What must be alike."""
    members = [
        (each.ID, each.name, tuple(each.peerURLs), each.isLearner) for each in client.members().members
    ]
    hashed = client.hash_kv(0)
    status = client.status()
    return (
        members,
        hashed.hash,
        hashed.header.revision,
        status.version,
        status.storageVersion,
        status.dbSize > 0,
    )


Force = Callable[[Member], tuple[Member, Member]]


@pytest.fixture
def force(tmp_path: Path) -> Iterator[Force]:
    """Starts copies of a stopped member, ours and real etcd, and returns both."""
    started: list[Member] = []

    def both(member: Member) -> tuple[Member, Member]:
        for kind in (OURS, GO):
            copy = copied(member, tmp_path, kind)
            started.append(copy)
            copy.begin(f"{copy.name}={copy.peer_url}", "new")
            copy.wait_ready()
        return started[-2], started[-1]

    yield both
    for member in started:
        member.discard()


@pytest.mark.parametrize("snapshot_count", [10_000, 20])
@pytest.mark.parametrize("which", ["leader", "follower"])
def test_the_same_members_and_keys_are_left(
    start: Start, force: Force, which: str, snapshot_count: int
) -> None:
    cluster = start("go", 3, snapshot_count=snapshot_count)
    fill(cluster)
    member = cluster.leader() if which == "leader" else cluster.follower()
    for each in cluster.members:
        each.kill()
    ours, theirs = force(member)
    assert seen(ours.client) == seen(theirs.client)
    assert len(ours.client.members().members) == 1
    for each in (ours, theirs):
        each.client.put(b"alone", b"value")
    assert seen(ours.client) == seen(theirs.client)
    del ours.flags["force-new-cluster"]
    ours.kill()
    ours.begin(f"{ours.name}={ours.peer_url}", "new")
    ours.wait_ready()
    assert ours.client.get(b"alone") == b"value"
    # And real etcd goes on with what we made of it.
    ours.stop()
    ours.kind = GO
    ours.begin(f"{ours.name}={ours.peer_url}", "new")
    ours.wait_ready()
    assert seen(ours.client) == seen(theirs.client)


def test_a_learner_becomes_a_cluster_of_its_own(start: Start, tmp_path: Path) -> None:
    """Real etcd ends there: its raft has no voters left."""
    cluster = start("go", 1)
    fill(cluster)
    learner = cluster.add(GO, learner=True)
    hashed = cluster.leader().client.hash_kv(0)
    revision = hashed.header.revision
    until(lambda: learner.client.status().header.revision >= revision, "the learner has it all")
    for each in cluster.members:
        each.kill()
    ours, theirs = (copied(learner, tmp_path, kind) for kind in (OURS, GO))
    try:
        theirs.begin(f"{theirs.name}={theirs.peer_url}", "new")
        assert theirs.wait_end() != 0
        assert theirs.output.has("removed all voters")
        ours.begin(f"{ours.name}={ours.peer_url}", "new")
        ours.wait_ready()
        (only,) = ours.client.members().members
        assert not only.isLearner
        assert ours.client.hash_kv(0).hash == hashed.hash
        ours.client.put(b"alone", b"value")
        ours.stop()
        ours.kind = GO
        del ours.flags["force-new-cluster"]
        ours.begin(f"{ours.name}={ours.peer_url}", "new")
        ours.wait_ready()
        assert ours.client.get(b"alone") == b"value"
    finally:
        ours.discard()
        theirs.discard()
