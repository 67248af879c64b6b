"""Members of ours and of real etcd 3.7.1 in one cluster: whoever leads, follows, joins, lags or is replaced,
clients see one etcd and all members hold the same data. Where Go is not installed these tests are skipped."""

from __future__ import annotations

import pytest
from cluster import until
from cluster_leases import grant, revoke, time_to_live
from cluster_load import Load
from conftest import ROUNDS, Start
from programs import GO, OURS

both_ways = pytest.mark.parametrize(
    ("some", "other"), [(GO, OURS), (OURS, GO)], ids=["ours joins", "go joins"]
)
either_leads = pytest.mark.parametrize("leading", [OURS, GO], ids=["ours leads", "go leads"])
LIMITS = {"snapshot_count": 100, "snapshot_catchup_entries": 10}


@both_ways
def test_a_member_joins_two_of_the_other_kind_and_leads_them(some: str, other: str, start: Start) -> None:
    cluster = start([some], 2)
    with Load(cluster) as load:
        load.wait_writes(20)
        joined = cluster.add(other)
        load.watch_new_members()
        cluster.same_hashes()
        cluster.move_leader(joined)
        load.wait_writes(20)
        for member in cluster.others(joined):
            member.kill()
            load.wait_writes(20)
            assert cluster.leader() is joined
            cluster.restart(member)
        joined.kill()
        cluster.leader()
        load.wait_writes(20)
        cluster.restart(joined)
    cluster.same_hashes()


@both_ways
def test_all_members_are_replaced_by_those_of_the_other_kind(some: str, other: str, start: Start) -> None:
    """As somebody migrates who keeps the old data directories: learner, promotion, removal, one by one."""
    cluster = start([some], 3, strict_reconfig_check="false")
    with Load(cluster) as load:
        for old in list(cluster.members):
            load.wait_writes(20)
            new = cluster.add(other, learner=True)
            load.watch_new_members()
            cluster.promote(new)
            cluster.remove(old)
            cluster.same_hashes()
        load.wait_writes(20)
    assert {member.kind for member in cluster.members} == {other}
    cluster.same_hashes()


def test_the_executable_of_every_member_is_swapped_on_its_directory_and_back(start: Start) -> None:
    cluster = start([GO], 3, **LIMITS)
    with Load(cluster, watching=False) as load:  # real etcd waits seconds for clients to end their watches
        for _ in range(ROUNDS):
            for kind in (OURS, GO):
                for member in list(cluster.members):
                    load.wait_writes(20)
                    member.stop() if member is cluster.leader() else member.kill()
                    cluster.leader()
                    cluster.restart(member, kind)
                cluster.same_hashes()
    cluster.same_hashes()


@either_leads
def test_a_follower_of_the_other_kind_far_behind_is_caught_up_by_a_snapshot(
    leading: str, start: Start
) -> None:
    cluster = start([leading, OURS if leading == GO else GO, leading], 3, **LIMITS)
    leader, behind = cluster.members[0], cluster.members[1]
    cluster.move_leader(leader)
    with Load(cluster) as load:
        load.wait_writes(20)
        lease = grant(leader.client, 600)
        behind.kill()
        for number in range(500):
            leader.client.put(b"many/%d" % (number % 50), b"%d" % number, lease if number % 7 == 0 else 0)
        cluster.restart(behind)
        until(lambda: leader.output.has("sent database snapshot"), "a snapshot is sent")
        load.wait_writes(20)
    assert behind.output.has("applied snapshot")
    cluster.same_hashes()
    cluster.move_leader(behind)
    assert sorted(time_to_live(leader.client, lease).keys) == sorted(time_to_live(behind.client, lease).keys)
    revoke(behind.client, lease)
    cluster.same_hashes()
