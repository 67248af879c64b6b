"""A follower behind the leader's log is sent a snapshot; one that is not far behind is sent entries."""

from __future__ import annotations

import pytest
from cluster import Cluster, until
from cluster_load import Load
from conftest import Start
from members import Member
from proxies import State

LIMITS = {"snapshot_count": 100, "snapshot_catchup_entries": 10}
BEHIND = 500  # entries; the log in memory is cut every hundred
SENT = "sent database snapshot"


def put_many(member: Member, count: int, name: str = "many") -> None:
    for number in range(count):
        member.client.put(b"%s/%d" % (name.encode(), number % 50), b"%d" % number)


def sent(cluster: Cluster) -> list[str]:
    return [member.name for member in cluster.members if member.output.has(SENT)]


@pytest.mark.parametrize("away", ["killed", "cut off"])
def test_a_follower_far_behind_is_caught_up_by_a_snapshot_under_load(
    away: str, mixture: str, start: Start
) -> None:
    cluster = start(mixture, 3, proxied=away == "cut off", **LIMITS)
    with Load(cluster) as load:
        load.wait_writes(20)
        leader, behind = cluster.leader(), cluster.follower()
        if away == "killed":
            behind.kill()
        else:
            cluster.isolate(behind, State.CUT)
        put_many(leader, BEHIND)
        if away == "killed":
            cluster.restart(behind)
        else:
            cluster.heal()
        until(lambda: leader.output.has(SENT), "a snapshot is sent")
        cluster.wait_revision(leader.client.status().header.revision)
        load.wait_writes(20)
        cluster.move_leader(behind)
        load.wait_writes(20)
    assert behind.output.has("applied snapshot")
    cluster.same_hashes()


def test_a_new_member_of_an_old_cluster_begins_with_a_snapshot(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, strict_reconfig_check="false", **LIMITS)
    leader = cluster.leader()
    put_many(leader, BEHIND)
    member = cluster.add(cluster.follower().kind, learner=True)
    until(lambda: leader.output.has(SENT), "a snapshot is sent")
    cluster.promote(member)
    cluster.same_hashes()


def test_a_snapshot_that_is_cut_short_is_sent_again(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, proxied=True, **LIMITS)
    assert cluster.network is not None
    leader, behind = cluster.leader(), cluster.follower()
    cluster.isolate(behind, State.CUT)
    for number in range(40):
        leader.client.put(b"large/%d" % number, bytes(250_000))
    put_many(leader, BEHIND)
    cluster.network.between([leader.name], [behind.name], State.OPEN, delay=0.3)
    until(lambda: leader.output.has("sending database snapshot"), "a snapshot is on its way")
    cluster.isolate(behind, State.CUT)
    until(lambda: leader.output.has("failed to send database snapshot"), "the snapshot fails")
    cluster.heal()
    until(lambda: leader.output.has(SENT), "a snapshot arrives")
    cluster.same_hashes()


def test_a_follower_not_far_behind_needs_no_snapshot(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    leader, behind = cluster.leader(), cluster.follower()
    behind.kill()
    put_many(leader, BEHIND)
    cluster.restart(behind)
    cluster.same_hashes()
    assert not sent(cluster)
