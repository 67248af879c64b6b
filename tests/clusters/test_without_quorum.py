"""One member of three alone: what needs the others fails as and when etcd says, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
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
)

TIMED_OUT = ("UNAVAILABLE", "etcdserver: request timed out")
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
