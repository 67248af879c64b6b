"""One member of three alone: what needs the others fails as and when etcd says, and the rest goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from conftest import Start
from members import Member

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

TIMED_OUT = ("UNAVAILABLE", "etcdserver: request timed out")
NO_LEADER = ("UNAVAILABLE", "etcdserver: no leader")
WANTS_LEADER = (("hasleader", "true"),)
REQUEST_SECONDS = 7.0  # five, and two election timeouts
LATE_SECONDS = 1.5  # on a busy machine


def failure(call: Callable[[Member], object], member: Member) -> tuple[tuple[str, str], float]:
    """Code and words, and after how many seconds."""
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        call(member)
    return (error.value.code().name, error.value.details()), time.monotonic() - began


def test_requests_fail_in_time_and_serializable_reads_go_on(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    leader = cluster.leader()
    leader.client.put(b"a", b"1")
    cluster.same_hashes()
    alone = cluster.follower()
    for member in cluster.others(alone):
        member.freeze()
    requests: dict[str, Callable[[Member], object]] = {
        "put": lambda m: m.client.put(b"a", b"2"),
        "read": lambda m: m.client.get(b"a"),
        "lease": lambda m: m.client.ask("Lease/LeaseGrant", LeaseGrantRequest(TTL=60), LeaseGrantResponse),
        "compaction": lambda m: m.client.ask("KV/Compact", CompactionRequest(revision=2), CompactionResponse),
    }
    with ThreadPoolExecutor(len(requests)) as threads:
        pending = {name: threads.submit(failure, call, alone) for name, call in requests.items()}
        while not all(one.done() for one in pending.values()):
            assert alone.client.get(b"a", serializable=True, seconds=1) == b"1"
            assert alone.client.members(linearizable=False).members
            alone.client.status()
            time.sleep(0.1)
    for name, one in pending.items():
        told, seconds = one.result()
        assert told == TIMED_OUT, name
        assert REQUEST_SECONDS - 0.5 < seconds < REQUEST_SECONDS + LATE_SECONDS, name
    assert alone.client.status().leader == 0
    assert "etcdserver: no leader" in alone.client.status().errors
    for member in cluster.members:
        if not member.answering:
            member.thaw()
    cluster.leader()
    cluster.leader().client.put(b"a", b"3")
    cluster.same_hashes()


def test_the_list_of_members_fails_in_time_and_its_serializable_form_goes_on(
    mixture: str, start: Start
) -> None:
    """Alone, since in real etcd a read that comes while another waits begins to wait when that has failed."""
    cluster = start(mixture, 3)
    expected = cluster.leader().client.members()
    alone = cluster.follower()
    for member in cluster.others(alone):
        member.freeze()
    with ThreadPoolExecutor(1) as threads:
        pending = threads.submit(failure, lambda m: m.client.members(), alone)
        while not pending.done():
            told = alone.client.members(linearizable=False)
            assert list(told.members) == list(expected.members)
            time.sleep(0.1)
    said, seconds = pending.result()
    assert said == TIMED_OUT
    assert REQUEST_SECONDS - 0.5 < seconds < REQUEST_SECONDS + LATE_SECONDS
    for member in cluster.others(alone):
        member.thaw()
    cluster.leader()
    assert list(alone.client.members().members) == list(expected.members)


def test_what_wants_a_leader_ends_when_there_is_none(mixture: str, start: Start) -> None:
    """Requests and streams whose metadata say so, once there has been none for three election timeouts."""
    cluster = start(mixture, 3)
    alone = cluster.follower()
    create = WatchRequest(create_request=WatchCreateRequest(key=b"a"))
    watch = alone.client.stream("Watch/Watch", once(create), WatchResponse, metadata=WANTS_LEADER)
    assert next(watch).created
    for member in cluster.others(alone):
        member.freeze()
    with pytest.raises(grpc.RpcError) as end:
        next(watch)
    assert (end.value.code().name, end.value.details()) == NO_LEADER
    calls: list[Callable[[Member], object]] = [
        lambda m: m.client.ask("KV/Put", PutRequest(key=b"a"), PutResponse, metadata=WANTS_LEADER),
        lambda m: m.client.ask("KV/Range", RangeRequest(key=b"a"), RangeResponse, metadata=WANTS_LEADER),
    ]
    for call in calls:
        told, seconds = failure(call, alone)
        assert told == NO_LEADER
        assert seconds < 1


def once(request: WatchRequest) -> Iterator[WatchRequest]:
    """And the stream stays open."""
    yield request
    threading.Event().wait(30)
