"""Members are added, promoted, removed and replaced, and move to other addresses, while clients write."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from cluster import Cluster
from cluster_load import Load
from conftest import Start
from members import Member, free_port

# By strict reconfiguration a change waits until all members have been connected for five seconds; where it
# is not what is tested it is off.


def names(cluster: Cluster) -> set[str]:
    return {member.name for member in cluster.leader().client.members().members}


def test_a_learner_catches_up_is_promoted_and_replaces_a_member(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    with Load(cluster) as load:
        load.wait_writes(50)
        learner = cluster.add(cluster.follower().kind, learner=True)
        load.watch_new_members()
        assert learner.client.status().isLearner
        cluster.promote(learner)
        load.wait_writes(20)
        cluster.remove(cluster.follower_but(learner))
        load.wait_writes(20)
        cluster.move_leader(learner)
        load.wait_writes(20)
    assert len(names(cluster)) == 3
    cluster.same_hashes()


def test_the_leader_is_removed_and_another_takes_over(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, strict_reconfig_check="false")
    with Load(cluster) as load:
        load.wait_writes(20)
        leader = cluster.leader()
        cluster.remove(leader)
        assert leader.output.has("the member has been permanently removed from the cluster")
        cluster.leader()
        load.wait_writes(20)
    assert names(cluster) == {member.name for member in cluster.members}
    cluster.same_hashes()


def test_a_lost_member_is_removed_and_a_new_one_takes_its_place(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    with Load(cluster) as load:
        load.wait_writes(50)
        lost = cluster.follower()
        id = cluster.id_of(lost)
        lost.kill()
        cluster.retried(lambda: cluster.leader().client.member_remove(id))
        cluster.members.remove(lost)
        lost.discard()
        cluster.add(lost.kind)
        load.watch_new_members()
        load.wait_writes(20)
    cluster.same_hashes()


def test_a_removed_member_that_was_down_is_told_when_it_comes_back(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    lost = cluster.follower()
    id = cluster.id_of(lost)
    lost.kill()
    cluster.retried(lambda: cluster.leader().client.member_remove(id))
    cluster.begin_restart(lost)
    lost.wait_end()
    assert lost.output.has("the member has been permanently removed from the cluster")


def test_a_member_moves_to_another_address(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    with Load(cluster) as load:
        load.wait_writes(20)
        for member in (cluster.follower(), cluster.leader()):
            move(cluster, member)
            load.wait_writes(20)
            everybody = cluster.leader().client.members().members
            assert member.peer_url in [url for one in everybody for url in one.peerURLs]
    for member in cluster.members:
        cluster.move_leader(member)  # everybody reaches everybody
    cluster.same_hashes()


def move(cluster: Cluster, member: Member) -> None:
    id = cluster.id_of(member)
    member.kill()
    cluster.leader()
    member.peer_port = free_port()
    member.listen_peer_url = member.peer_url = f"http://127.0.0.1:{member.peer_port}"
    cluster.retried(lambda: cluster.leader().client.member_update(id, member.peer_url))
    cluster.restart(member)


def test_changes_that_make_no_sense_are_refused_in_etcds_words(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, strict_reconfig_check="false")
    learner = cluster.add(cluster.follower().kind, learner=True)
    client = cluster.leader().client
    known = cluster.id_of(cluster.follower())
    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: client.member_add(cluster.members[0].peer_url), "etcdserver: Peer URLs already exists"),
        (
            lambda: client.member_add("http://127.0.0.1:1", learner=True),
            "etcdserver: too many learner members in cluster",
        ),
        (lambda: client.member_remove(4711), "etcdserver: member not found"),
        (lambda: client.member_update(4711, "http://127.0.0.1:1"), "etcdserver: member not found"),
        (
            lambda: client.member_promote(known),
            "etcdserver: can only promote a learner member",
        ),
        (lambda: client.move_leader(4711), "etcdserver: bad leader transferee"),
        (lambda: client.move_leader(cluster.id_of(learner)), "etcdserver: bad leader transferee"),
        (
            lambda: cluster.follower_but(learner).client.move_leader(known),
            "etcdserver: not leader",
        ),
    ]
    for change, words in refusals:
        with pytest.raises(grpc.RpcError) as refusal:
            change()
        assert refusal.value.details() == words


def test_a_learner_serves_only_what_etcd_lets_it_serve(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, strict_reconfig_check="false")
    learner = cluster.add(cluster.follower().kind, learner=True)
    cluster.leader().client.put(b"a", b"1")
    cluster.same_hashes()
    refused: list[Callable[[], object]] = [
        lambda: learner.client.put(b"a", b"x"),
        lambda: learner.client.get(b"a"),
        lambda: learner.client.members(),
        lambda: learner.client.member_add("http://127.0.0.1:1"),
    ]
    for call in refused:
        with pytest.raises(grpc.RpcError) as refusal:
            call()
        assert refusal.value.details() == "etcdserver: rpc not supported for learner"
    assert learner.client.get(b"a", serializable=True) == b"1"


def test_a_member_that_was_away_while_another_came_and_took_the_lead_is_led_by_it(
    mixture: str, start: Start
) -> None:
    """What a newcomer sends to whom its coming is news must not be answered as if it had been removed: both
    implementations would end."""
    cluster = start(mixture, 3, strict_reconfig_check="false")
    cluster.move_leader(cluster.members[0])
    away = cluster.members[2]
    away.kill()
    newcomer = cluster.add(cluster.members[1].kind)  # in a mixed cluster not of the kind that was away
    cluster.move_leader(newcomer)
    cluster.restart(away)
    assert cluster.leader() is newcomer
    for member in cluster.members:
        member.client.put(b"led by", newcomer.name.encode())
        assert newcomer.name in {each.name for each in member.client.members().members}
    assert cluster.leader() is newcomer
    cluster.same_hashes()
