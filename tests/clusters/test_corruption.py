"""A member whose data were changed behind its back is found by the others' hashes: before it takes part
again, by the leader's comparisons, and by what compactions leave. Then hardly anything is served."""

from __future__ import annotations

import grpc
import pytest
from cluster import Cluster, until
from conftest import Start
from members import Member
from programs import GO, OURS

from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import (
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    CompactionRequest,
    CompactionResponse,
)
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles

KEYS = 20
FOUND_SECONDS = 30.0

leading = pytest.mark.parametrize(
    "kinds", [[OURS], [OURS, GO], [GO, OURS]], ids=["ours", "ours leads", "go leads"]
)


def changed_behind_its_back(member: Member) -> None:
    """One value in its database, with all checksums in order, as a bug would change it."""
    backend = Backend.open(OsFiles(), str(member.data / "member" / "snap" / "db"), None)
    try:
        [(bucket_key, record)] = backend.scan(schema.KEY, b"", None, 1)
        pair = KeyValue.FromString(record)
        pair.value = b"changed"
        backend.put(schema.KEY, bucket_key, pair.SerializeToString())
        backend.commit_now()
    finally:
        backend.discard()


def with_history(start: Start, kinds: list[str], **flags: object) -> tuple[Cluster, Member]:
    """Three members, led by the first, and one of the others, which has been stopped."""
    cluster = start(kinds, 3, **flags)
    leader = cluster.members[0]
    cluster.move_leader(leader)
    for number in range(KEYS):
        leader.client.put(b"%d" % number, b"a value")
    cluster.same_hashes()
    victim = cluster.members[1]
    victim.stop()
    return cluster, victim


def alarms(member: Member) -> list[AlarmMember]:
    return list(member.client.ask("Maintenance/Alarm", AlarmRequest(), AlarmResponse).alarms)


def found(cluster: Cluster, *victims: int) -> None:
    """The alarm is raised for just these, and nothing is written any more."""
    corrupt = [AlarmMember(memberID=id, alarm=AlarmType.CORRUPT) for id in victims]
    until(lambda: alarms(cluster.members[0]) == corrupt, "the alarm is raised", FOUND_SECONDS)
    for member in cluster.members:
        with pytest.raises(grpc.RpcError) as refusal:
            member.client.put(b"a", b"x")
        assert refusal.value.details() == "etcdserver: corrupt cluster"


@pytest.mark.parametrize(
    ("kinds", "flags"),
    [([OURS, OURS, GO], {}), ([OURS, GO, OURS], {"feature_gates": "InitialCorruptCheck=true"})],
    ids=["ours", "go beside ours"],
)
def test_a_member_with_other_data_does_not_start(
    start: Start, kinds: list[str], flags: dict[str, object]
) -> None:
    cluster, victim = with_history(start, kinds, **flags)
    changed_behind_its_back(victim)
    cluster.begin_restart(victim)
    assert victim.wait_end() == 1
    assert victim.output.has("starting initial corruption check")
    assert victim.output.has("found different hash values from remote peer")
    assert victim.output.has("found data inconsistency with peers")
    cluster.members[0].client.put(b"a", b"the others go on")


def test_a_sound_member_starts_whoever_answers(start: Start) -> None:
    cluster, other = with_history(start, [OURS])
    cluster.restart(other)
    assert other.output.has("initial corruption checking passed; no corruption")
    for member in cluster.members:
        member.kill()
    for member in cluster.members:
        cluster.begin_restart(member)
    for member in cluster.members:
        member.wait_ready()
        assert member.output.has("initial corruption checking passed; no corruption")
    assert any(member.output.has("failed hash kv request") for member in cluster.members)
    cluster.same_hashes()


@leading
def test_the_leader_finds_a_follower_with_other_data(start: Start, kinds: list[str]) -> None:
    cluster, victim = with_history(start, kinds, corrupt_check_time="1s")
    assert cluster.members[0].output.wait("finished peer corruption check", FOUND_SECONDS)
    changed_behind_its_back(victim)
    cluster.restart(victim)
    found(cluster, cluster.id_of(victim))


@leading
def test_compactions_of_other_data_are_found(start: Start, kinds: list[str]) -> None:
    chosen = {"feature_gates": "CompactHashCheck=true", "compact_hash_check_time": "1s"}
    cluster, victim = with_history(start, kinds, **chosen)
    changed_behind_its_back(victim)
    cluster.restart(victim)
    leader = cluster.members[0]
    cluster.move_leader(leader)
    leader.client.ask("KV/Compact", CompactionRequest(revision=KEYS // 2), CompactionResponse)
    found(cluster, cluster.id_of(victim))
    assert leader.output.has("finished compaction hash check")
    assert leader.output.has("Detected compaction hash mismatch")


def test_equal_members_raise_no_alarm(start: Start) -> None:
    times = {"corrupt_check_time": "500ms", "compact_hash_check_time": "500ms"}
    cluster, other = with_history(start, [OURS, GO], **times)
    cluster.restart(other)
    leader = cluster.members[0]
    cluster.move_leader(leader)
    for number in range(4 * KEYS):
        leader.client.put(b"%d" % (number % 7), b"another value")
        if number % KEYS == KEYS - 1:
            revision = leader.client.range(b"a").header.revision - 3
            leader.client.ask("KV/Compact", CompactionRequest(revision=revision), CompactionResponse)
    for text in ("successfully checked hash on whole cluster", "finished peer corruption check"):
        assert leader.output.wait(text, FOUND_SECONDS), text
    assert alarms(leader) == []
    cluster.same_hashes()


def test_an_interrupted_compaction_is_no_damage(start: Start) -> None:
    """What a member removed before and after a restart leaves no hash; the others' are not held against it,
    and the next compaction is compared by all."""
    gates = "CompactHashCheck=true,InitialCorruptCheck=true"
    cluster = start([OURS, GO], 3, feature_gates=gates, compact_hash_check_time="500ms")
    leader = cluster.members[0]
    cluster.move_leader(leader)
    slow = cluster.members[2]
    slow.stop()
    slow.flags |= {"compaction-batch-limit": "1", "compaction-sleep-interval": "1h"}
    cluster.restart(slow)
    for number in range(KEYS):
        leader.client.put(b"key", b"%d" % number)
    revision = leader.client.range(b"key").header.revision
    cluster.wait_revision(revision)
    leader.client.ask("KV/Compact", CompactionRequest(revision=revision - 5), CompactionResponse)
    assert leader.output.wait("skipped revision in compaction hash check", FOUND_SECONDS)
    slow.stop()
    slow.flags |= {"compaction-batch-limit": "0", "compaction-sleep-interval": "0s"}
    cluster.restart(slow)
    assert slow.output.has("initial corruption checking passed; no corruption")
    assert not slow.output.has("found different"), "half a compaction changes no hash"
    assert slow.output.wait("previous compaction was interrupted", FOUND_SECONDS)
    cluster.move_leader(leader)
    leader.client.ask("KV/Compact", CompactionRequest(revision=revision - 2), CompactionResponse)
    assert leader.output.wait("successfully checked hash on whole cluster", FOUND_SECONDS)
    assert alarms(leader) == []
    cluster.same_hashes()
