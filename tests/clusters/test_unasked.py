"""Full databases, and what members do unasked about them and about learners.

A database is full: writes are refused everywhere with etcd's error, reads and deletions go on, also after a
restart, until there is room again and the alarm is cleared, by people or by `--auto-disarm`.
"""

from __future__ import annotations

from itertools import count

import grpc
import pytest
from cluster import Cluster, until
from conftest import Start
from members import Member
from programs import GO, OURS

from pyetcd.proto.rpc_pb2 import (
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    CompactionRequest,
    CompactionResponse,
    DefragmentRequest,
    DefragmentResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
)

NO_SPACE = "etcdserver: mvcc: database space exceeded"
QUOTA = 4 << 20
VALUE = bytes(200_000)
UNASKED_SECONDS = 30.0


def fill(member: Member) -> None:
    """Until it is refused."""
    with pytest.raises(grpc.RpcError) as refusal:
        put_for_ever(member)
    assert refusal.value.details() == NO_SPACE


def put_for_ever(member: Member) -> None:
    for number in count():
        member.client.put(b"full/%d" % number, VALUE)


def alarms(member: Member) -> set[int]:
    """Who has raised NOSPACE."""
    answer = member.client.ask("Maintenance/Alarm", AlarmRequest(), AlarmResponse)
    assert all(alarm.alarm == AlarmType.NOSPACE for alarm in answer.alarms)
    return {alarm.memberID for alarm in answer.alarms}


def refused(members: list[Member]) -> None:
    for member in members:
        with pytest.raises(grpc.RpcError) as refusal:
            member.client.put(b"a", b"x")
        assert refusal.value.details() == NO_SPACE
        assert member.client.get(b"full/0") == VALUE


def writes_again(cluster: Cluster) -> bool:
    try:
        for member in cluster.members:
            member.client.put(b"a", b"x")
    except grpc.RpcError as error:
        if error.details() != NO_SPACE:
            raise
        return False
    return not alarms(cluster.members[0])


def make_room(cluster: Cluster) -> None:
    """Delete and compact: this is served although writes are not."""
    client = cluster.leader().client
    delete = DeleteRangeRequest(key=b"full/1", range_end=b"full0")
    revision = client.ask("KV/DeleteRange", delete, DeleteRangeResponse).header.revision
    client.ask("KV/Compact", CompactionRequest(revision=revision, physical=True), CompactionResponse)


@pytest.mark.parametrize("kinds", [[OURS], [OURS, GO]], ids=["ours", "mixed"])
def test_a_full_database_is_cleared_by_people(start: Start, kinds: list[str]) -> None:
    cluster = start(kinds, 3, quota_backend_bytes=QUOTA, strict_reconfig_check="false")
    fill(cluster.members[1])
    until(lambda: bool(alarms(cluster.members[0])), "the alarm is raised")
    refused(cluster.members)
    learner = cluster.add(OURS, learner=True)
    cluster.wait_revision(cluster.leader().client.range(b"a").header.revision, [learner])
    assert any("alarm:NOSPACE" in error for error in learner.client.status().errors)
    cluster.remove(learner)
    for member in cluster.members:
        cluster.leader()
        member.stop()
        cluster.restart(member)
    refused(cluster.members)
    make_room(cluster)
    refused(cluster.members)  # room alone does not clear it
    for member in cluster.members:
        member.client.ask("Maintenance/Defragment", DefragmentRequest(), DefragmentResponse)
    disarm = AlarmRequest(action=AlarmRequest.DEACTIVATE, alarm=AlarmType.NOSPACE)
    for id in alarms(cluster.leader()):
        disarm.memberID = id
        cleared = cluster.leader().client.ask("Maintenance/Alarm", disarm, AlarmResponse).alarms
        assert list(cleared) == [AlarmMember(memberID=id, alarm=AlarmType.NOSPACE)]
    for member in cluster.members:
        member.client.put(b"a", b"x")
    cluster.same_hashes()


def test_a_full_database_is_cleared_unasked(start: Start) -> None:
    cluster = start([OURS], 3, quota_backend_bytes=QUOTA, auto_disarm="true")
    for _ in range(2):
        fill(cluster.members[1])
        until(lambda: bool(alarms(cluster.members[0])), "the alarm is raised")
        refused(cluster.members)
        make_room(cluster)
        until(lambda: writes_again(cluster), "all alarms are cleared", UNASKED_SECONDS)
        for member in cluster.members:
            member.stop()
            cluster.restart(member)  # it may defragment again
            cluster.leader()
    cluster.same_hashes()


def test_an_alarm_is_kept_while_there_is_no_room(start: Start) -> None:
    cluster = start([OURS], 1, quota_backend_bytes=QUOTA, auto_disarm="true")
    [member] = cluster.members
    fill(member)
    client = member.client
    revision = client.range(b"a").header.revision
    client.ask("KV/Compact", CompactionRequest(revision=revision, physical=True), CompactionResponse)
    assert not member.output.wait("cleared the alarm", 3)
    assert alarms(member) == {cluster.id_of(member)}


def test_learners_are_promoted_unasked(start: Start) -> None:
    cluster = start([OURS], 3, strict_reconfig_check="false", auto_promote_learners="true", max_learners=2)
    for number in range(50):
        cluster.leader().client.put(b"%d" % number, b"x")
    added = [cluster.add(OURS, learner=True) for _ in range(2)]
    for member in added:
        until(lambda member=member: not member.client.status().isLearner, "it votes")  # type: ignore[misc]
    assert any(member.output.has("promoted a learner unasked") for member in cluster.members)
    cluster.same_hashes()


def test_learners_stay_learners_unless_the_operator_wants_it(start: Start) -> None:
    cluster = start([OURS], 1, strict_reconfig_check="false")
    learner = cluster.add(OURS, learner=True)
    assert not learner.output.wait("promoted", 3)
    assert learner.client.status().isLearner
