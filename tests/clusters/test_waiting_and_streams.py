"""Locks and elections of a cluster, and which streams its members take: a learner, and one that knows no
leader. With CLUSTERS=go these are tests of real etcd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from conftest import Start
from members import Member
from rpc import OPTIONS

from pyetcd.proto.election_pb2 import CampaignRequest, LeaderRequest
from pyetcd.proto.lock_pb2 import LockRequest, LockResponse, UnlockRequest
from pyetcd.proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    RangeRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

SECONDS = 30
WANTS_LEADER = (("hasleader", "true"),)
NO_LEADER = ("UNAVAILABLE", "etcdserver: no leader")
LEARNER = ("FAILED_PRECONDITION", "etcdserver: rpc not supported for learner")
LOCK, UNLOCK = "/v3lockpb.Lock/Lock", "/v3lockpb.Lock/Unlock"
OBSERVE = "/v3electionpb.Election/Observe"
HEALTH = "/grpc.health.v1.Health/Watch"
RANGE_STREAM = "/etcdserverpb.KV/RangeStream"
SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"
WATCH, KEEP_ALIVE = "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"


@contextmanager
def channel_to(member: Member) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{member.port}", options=OPTIONS) as channel:
        grpc.channel_ready_future(channel).result(SECONDS)
        yield channel


def open_stream(
    channel: grpc.Channel, path: str, metadata: tuple[tuple[str, str], ...] = (), payload: bytes = b""
) -> grpc.Call:
    if path in (WATCH, KEEP_ALIVE):
        return channel.stream_stream(path)(iter([payload]), timeout=SECONDS, metadata=metadata)
    return channel.unary_stream(path)(payload, timeout=SECONDS, metadata=metadata)


def end_of(call: grpc.Call) -> tuple[str, str]:
    try:
        for _ in call:
            continue
    except grpc.RpcError:
        pass
    return call.code().name, call.details()


def until_deleted(member: Member, key: bytes) -> None:
    until(member, key, deleted=True)


def until(member: Member, key: bytes, *, deleted: bool = False) -> None:
    """Wait until the key has been put, or deleted, since the first revision."""
    create = WatchRequest(create_request=WatchCreateRequest(key=key, start_revision=1))
    watch = member.client.stream("Watch/Watch", iter([create]), WatchResponse, SECONDS)
    assert any(event.type == deleted for response in watch for event in response.events)
    watch.cancel()


def grant(member: Member, *leases: int) -> None:
    for lease in leases:
        member.client.ask("Lease/LeaseGrant", LeaseGrantRequest(ID=lease, TTL=600), LeaseGrantResponse)


def lock(channel: grpc.Channel, lease: int) -> grpc.Future:
    method = channel.unary_unary(LOCK, response_deserializer=LockResponse.FromString)
    return method.future(LockRequest(name=b"l", lease=lease).SerializeToString(), timeout=SECONDS)


def test_a_lock_goes_from_member_to_member_though_the_leader_is_lost(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    leader = cluster.leader()
    one, two = cluster.others(leader)
    grant(one, 1, 2, 3)
    with channel_to(one) as at_one, channel_to(two) as at_two:
        first = lock(at_one, 1).result(SECONDS)
        gives_up = lock(at_two, 2)
        until(two, b"l/2")
        waits = lock(at_two, 3)
        until(two, b"l/3")
        assert two.client.get(b"l/3") == b""  # and what its reads were asked before this, it has answered
        leader.kill()
        cluster.leader()
        gives_up.cancel()
        until_deleted(one, b"l/2")
        assert not waits.done()
        at_one.unary_unary(UNLOCK)(UnlockRequest(key=first.key).SerializeToString(), timeout=SECONDS)
        got = waits.result(SECONDS)
        assert got.key == b"l/3"
        assert got.header.revision > first.header.revision
        assert [kv.key for kv in one.client.range(b"l/", b"l0").kvs] == [b"l/3"]


def test_a_learner_takes_no_locks_and_no_streams_but_snapshots(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, strict_reconfig_check="false")
    learner = cluster.add(cluster.follower().kind, learner=True)
    cluster.leader().client.put(b"a", b"1")
    cluster.same_hashes()
    with channel_to(learner) as channel:
        for path in (WATCH, KEEP_ALIVE, RANGE_STREAM, HEALTH, OBSERVE):
            assert end_of(open_stream(channel, path)) == LEARNER, path
        assert end_of(open_stream(channel, SNAPSHOT)) == ("OK", "")
        waiting = lock(channel, 0)
        assert (waiting.code().name, waiting.details()) == LEARNER


def test_streams_that_want_a_leader_are_ended_and_refused_without_one(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    alone = cluster.follower()
    observe = LeaderRequest(name=b"none").SerializeToString()
    serializable = RangeRequest(key=b"a", serializable=True).SerializeToString()
    with channel_to(alone) as channel:
        observing = open_stream(channel, OBSERVE, WANTS_LEADER, observe)
        observing_anyway = open_stream(channel, OBSERVE, (), observe)
        health = open_stream(channel, HEALTH, WANTS_LEADER)
        next(health)
        for member in cluster.others(alone):
            member.freeze()
        assert end_of(health) == ("CANCELLED", "Stream has ended.")
        assert end_of(observing) == NO_LEADER
        assert observing_anyway.is_active()
        for path in (WATCH, KEEP_ALIVE, RANGE_STREAM, SNAPSHOT, HEALTH, OBSERVE):
            assert end_of(open_stream(channel, path, WANTS_LEADER, serializable)) == NO_LEADER, path
        assert end_of(open_stream(channel, RANGE_STREAM, (), serializable)) == ("OK", "")
        campaign = channel.unary_unary("/v3electionpb.Election/Campaign")
        refused = campaign.future(
            CampaignRequest(name=b"e").SerializeToString(), timeout=SECONDS, metadata=WANTS_LEADER
        )
        assert (refused.code().name, refused.details()) == NO_LEADER
        observing_anyway.cancel()
