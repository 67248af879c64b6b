"""Members of ours and of real etcd 3.7.1 in one cluster: whoever leads, follows, joins, lags or is replaced,
clients see one etcd and all members hold the same data. Where Go is not installed these tests are skipped."""

from __future__ import annotations

import time

import grpc
import pytest
from cluster import Cluster, until
from cluster_load import Load
from conftest import ROUNDS, WANTED, Start
from members import Member
from programs import GO, OURS
from rpc import Client

from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    HashRequest,
    HashResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)

pytestmark = pytest.mark.skipif("mixed" not in WANTED, reason="only where CLUSTERS has mixed")

both_ways = pytest.mark.parametrize(
    ("some", "other"), [(GO, OURS), (OURS, GO)], ids=["ours joins", "go joins"]
)
either_leads = pytest.mark.parametrize("leading", [OURS, GO], ids=["ours leads", "go leads"])
LIMITS = {"snapshot_count": 100, "snapshot_catchup_entries": 10}


def of_kind(cluster: Cluster, kind: str) -> Member:
    return next(member for member in cluster.members if member.kind == kind)


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


@both_ways
def test_the_executable_of_every_member_is_swapped_on_its_directory(
    some: str, other: str, start: Start
) -> None:
    cluster = start([some], 3, **LIMITS)
    with Load(cluster, watching=False) as load:  # real etcd waits seconds for clients to end their watches
        for _ in range(ROUNDS):
            for kind in (other, some):
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


def grant(client: Client, seconds: int) -> int:
    return client.ask("Lease/LeaseGrant", LeaseGrantRequest(TTL=seconds), LeaseGrantResponse).ID


def revoke(client: Client, lease: int) -> None:
    client.ask("Lease/LeaseRevoke", LeaseRevokeRequest(ID=lease), LeaseRevokeResponse)


def time_to_live(client: Client, lease: int) -> LeaseTimeToLiveResponse:
    request = LeaseTimeToLiveRequest(ID=lease, keys=True)
    return client.ask("Lease/LeaseTimeToLive", request, LeaseTimeToLiveResponse)


def keep_alive(client: Client, lease: int) -> int:
    """What it has to live now; 0 when there is no such lease."""
    requests = iter([LeaseKeepAliveRequest(ID=lease)])
    for answer in client.stream("Lease/LeaseKeepAlive", requests, LeaseKeepAliveResponse, seconds=10):
        return int(answer.TTL)
    raise AssertionError("the stream ended without an answer")


@either_leads
def test_a_lease_is_granted_by_one_member_kept_alive_by_others_and_ends_on_all(
    leading: str, start: Start
) -> None:
    cluster = start("mixed", 3)
    cluster.move_leader(of_kind(cluster, leading))
    seconds = 3
    leases = {member: grant(member.client, seconds) for member in cluster.members}
    for member, lease in leases.items():
        member.client.put(b"leased/%d" % lease, b"x", lease)
    deadline = time.monotonic() + seconds + 1.5
    while time.monotonic() < deadline:
        for member in cluster.members:
            for lease in leases.values():
                assert keep_alive(member.client, lease) == seconds, member
                assert 0 < time_to_live(member.client, lease).TTL <= seconds, member
        time.sleep(0.3)
    assert all(member.client.range(b"leased/", b"leased0").count == 3 for member in cluster.members)
    for member in cluster.members:
        known = member.client.ask("Lease/LeaseLeases", LeaseLeasesRequest(), LeaseLeasesResponse)
        assert {lease.ID for lease in known.leases} == set(leases.values())
    until(lambda: not cluster.leader().client.range(b"leased/", b"leased0").count, "leases end", 2 * seconds)
    for member in cluster.members:
        for lease in leases.values():
            assert time_to_live(member.client, lease).TTL == -1
            assert keep_alive(member.client, lease) == 0
    cluster.same_hashes()


@either_leads
def test_a_lease_lives_on_under_a_new_leader_and_ends_there(leading: str, start: Start) -> None:
    cluster = start("mixed", 3)
    leader = of_kind(cluster, leading)
    successor = of_kind(cluster, OURS if leading == GO else GO)
    cluster.move_leader(leader)
    lease = grant(leader.client, 4)
    leader.client.put(b"leased", b"x", lease)
    cluster.move_leader(successor)
    granted = time.monotonic()
    assert keep_alive(leader.client, lease) == 4
    until(lambda: leader.client.get(b"leased") is None, "the lease ends")
    assert time.monotonic() - granted > 3.5
    cluster.same_hashes()


@either_leads
def test_what_one_member_has_written_any_other_reads_at_once(leading: str, start: Start) -> None:
    cluster = start("mixed", 3)
    cluster.move_leader(of_kind(cluster, leading))
    for number in range(60):
        writer, reader = cluster.members[number % 3], cluster.members[number // 3 % 3]
        writer.client.put(b"a", b"%d" % number)
        assert reader.client.get(b"a") == b"%d" % number


@either_leads
def test_all_buckets_are_the_same_on_all_members(leading: str, start: Start) -> None:
    """Members, versions, leases and alarms are stored alike, byte for byte, not only keys."""
    cluster = start("mixed", 3)
    cluster.move_leader(of_kind(cluster, leading))
    lease = grant(cluster.members[1].client, 600)
    for number in range(20):
        cluster.members[number % 3].client.put(b"%d" % number, b"x", lease if number % 2 else 0)
    raise_alarm(cluster.members[2].client, AlarmRequest.ACTIVATE)
    raise_alarm(cluster.members[0].client, AlarmRequest.DEACTIVATE)

    def hashes() -> set[int]:
        return {m.client.ask("Maintenance/Hash", HashRequest(), HashResponse).hash for m in cluster.members}

    until(lambda: len(hashes()) == 1, "all members have the same hash of everything")


def raise_alarm(client: Client, action: AlarmRequest.AlarmAction, member: int = 0) -> None:
    request = AlarmRequest(action=action, memberID=member, alarm=AlarmType.NOSPACE)
    client.ask("Maintenance/Alarm", request, AlarmResponse)


@either_leads
def test_an_alarm_at_one_member_stops_writes_at_all(leading: str, start: Start) -> None:
    cluster = start("mixed", 3)
    cluster.move_leader(of_kind(cluster, leading))
    for member in cluster.members:
        id = cluster.id_of(member)
        raise_alarm(member.client, AlarmRequest.ACTIVATE, id)
        for other in cluster.members:
            with pytest.raises(grpc.RpcError) as refusal:
                other.client.put(b"a", b"x")
            assert refusal.value.details() == "etcdserver: mvcc: database space exceeded"
        raise_alarm(cluster.leader().client, AlarmRequest.DEACTIVATE, id)
        for other in cluster.members:
            other.client.put(b"a", b"x")
    cluster.same_hashes()


@pytest.mark.parametrize("kind", [OURS, GO])
def test_a_member_that_compares_its_data_with_the_others_before_it_serves_finds_them_equal(
    kind: str, start: Start
) -> None:
    cluster = start("mixed", 3)
    for number in range(20):
        cluster.leader().client.put(b"%d" % number, b"x")
    member = of_kind(cluster, kind)
    member.stop()
    member.flags["feature-gates"] = "InitialCorruptCheck=true"
    cluster.restart(member)
    assert member.output.has("initial corruption checking passed; no corruption")
    cluster.same_hashes()
