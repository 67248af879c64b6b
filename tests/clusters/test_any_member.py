"""Clients see one etcd, whichever member they ask and whichever leads: leases, reads, alarms, stored data."""

from __future__ import annotations

import time

import grpc
import pytest
from cluster import Cluster, until
from cluster_leases import grant, keep_alive, leases, time_to_live
from programs import GO
from rpc import Client

from pyetcd.proto.rpc_pb2 import AlarmRequest, AlarmResponse, AlarmType, HashRequest, HashResponse


def test_a_lease_is_granted_by_one_member_kept_alive_by_others_and_ends_on_all(led: Cluster) -> None:
    seconds = 2
    granted = {member: grant(member.client, seconds) for member in led.members}
    for member, lease in granted.items():
        member.client.put(b"leased/%d" % lease, b"x", lease)
    deadline = time.monotonic() + seconds + 1
    while time.monotonic() < deadline:
        for member in led.members:
            for lease in granted.values():
                assert keep_alive(member.client, lease) == seconds, member
                assert 0 < time_to_live(member.client, lease).TTL <= seconds, member
        time.sleep(0.3)
    assert all(member.client.range(b"leased/", b"leased0").count == 3 for member in led.members)
    for member in led.members:
        assert leases(member.client) == set(granted.values())
    until(lambda: not led.leader().client.range(b"leased/", b"leased0").count, "leases end", 2 * seconds)
    for member in led.members:
        for lease in granted.values():
            assert time_to_live(member.client, lease).TTL == -1
            assert keep_alive(member.client, lease) == 0
    led.same_hashes()


def test_a_lease_lives_on_under_a_new_leader_and_ends_there(led: Cluster) -> None:
    leader = led.leader()
    successor = led.others(leader)[0]  # in a mixed cluster mostly of the other kind
    lease = grant(leader.client, 3)
    leader.client.put(b"leased", b"x", lease)
    led.move_leader(successor)
    began = time.monotonic()
    assert keep_alive(leader.client, lease) == 3
    until(lambda: leader.client.get(b"leased") is None, "the lease ends")
    assert time.monotonic() - began > 2.5
    led.same_hashes()


def test_what_one_member_has_written_any_other_reads_at_once(led: Cluster) -> None:
    for number in range(60):
        writer, reader = led.members[number % 3], led.members[number // 3 % 3]
        writer.client.put(b"a", b"%d" % number)
        assert reader.client.get(b"a") == b"%d" % number


def test_all_buckets_are_the_same_on_all_members(led: Cluster) -> None:
    """Members, versions, leases and alarms are stored alike, byte for byte, not only keys."""
    lease = grant(led.members[1].client, 600)
    for number in range(20):
        led.members[number % 3].client.put(b"%d" % number, b"x", lease if number % 2 else 0)
    raise_alarm(led.members[2].client, AlarmRequest.ACTIVATE)
    raise_alarm(led.members[0].client, AlarmRequest.DEACTIVATE)

    def hashes() -> set[int]:
        return {m.client.ask("Maintenance/Hash", HashRequest(), HashResponse).hash for m in led.members}

    until(lambda: len(hashes()) == 1, "all members have the same hash of everything")


def test_an_alarm_at_one_member_stops_writes_at_all(led: Cluster) -> None:
    for member in led.members:
        id = led.id_of(member)
        raise_alarm(member.client, AlarmRequest.ACTIVATE, id)
        for other in led.members:
            with pytest.raises(grpc.RpcError) as refusal:
                other.client.put(b"a", b"x")
            assert refusal.value.details() == "etcdserver: mvcc: database space exceeded"
        raise_alarm(led.leader().client, AlarmRequest.DEACTIVATE, id)
        for other in led.members:
            other.client.put(b"a", b"x")
    led.same_hashes()


def test_a_member_of_real_etcd_compares_its_data_with_the_others_and_finds_them_equal(led: Cluster) -> None:
    member = next((one for one in led.members if one.kind == GO), None)
    if member is None:
        pytest.skip("there is none in this cluster")
    for number in range(20):
        led.leader().client.put(b"%d" % number, b"x")
    member.stop()
    member.flags["feature-gates"] = "InitialCorruptCheck=true"
    led.restart(member)
    assert member.output.has("initial corruption checking passed; no corruption")
    led.same_hashes()


def raise_alarm(client: Client, action: AlarmRequest.AlarmAction, member: int = 0) -> None:
    request = AlarmRequest(action=action, memberID=member, alarm=AlarmType.NOSPACE)
    client.ask("Maintenance/Alarm", request, AlarmResponse)
