"""Leases over gRPC, on servers as processes: kept alive, run out, over kill -9, and on real etcd's disk."""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from servers import Etcd, GoEtcd, Server

from pyetcd.proto.kv_pb2 import Event
from pyetcd.proto.rpc_pb2 import (
    DeleteRangeRequest,
    DeleteRangeResponse,
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
    PutRequest,
    PutResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles

DEADLINE_SECONDS = 20.0
MIN_TTL = 2
ELECTION_SECONDS = 1


class KeepAlive:
    """An open keep-alive stream; asks one lease at a time."""

    def __init__(self, server: Server, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._requests: queue.SimpleQueue[LeaseKeepAliveRequest | None] = queue.SimpleQueue()
        method = server.channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=LeaseKeepAliveResponse.FromString,
        )
        self.call = method(iter(self._requests.get, None), metadata=metadata, timeout=DEADLINE_SECONDS)

    def renew(self, lease: int) -> int:
        self._requests.put(LeaseKeepAliveRequest(ID=lease))
        answer: LeaseKeepAliveResponse = next(self.call)
        renewed, ttl = answer.ID, answer.TTL
        assert renewed == lease
        return ttl

    def close(self) -> None:
        """Close our side; the server then ends the stream well."""
        self._requests.put(None)
        assert list(self.call) == []
        assert self.call.code() is grpc.StatusCode.OK


def grant(server: Server, ttl: int, lease: int = 0) -> LeaseGrantResponse:
    answer = server.call("Lease/LeaseGrant", LeaseGrantRequest(TTL=ttl, ID=lease), LeaseGrantResponse)
    assert isinstance(answer, LeaseGrantResponse)
    return answer


def revoke(server: Server, lease: int) -> int:
    answer = server.call("Lease/LeaseRevoke", LeaseRevokeRequest(ID=lease), LeaseRevokeResponse)
    assert isinstance(answer, LeaseRevokeResponse)
    return answer.header.revision


def time_to_live(server: Server, lease: int, keys: bool = False) -> LeaseTimeToLiveResponse:
    request = LeaseTimeToLiveRequest(ID=lease, keys=keys)
    answer = server.call("Lease/LeaseTimeToLive", request, LeaseTimeToLiveResponse)
    assert isinstance(answer, LeaseTimeToLiveResponse)
    return answer


def leases(server: Server) -> list[int]:
    answer = server.call("Lease/LeaseLeases", LeaseLeasesRequest(), LeaseLeasesResponse)
    assert isinstance(answer, LeaseLeasesResponse)
    return [each.ID for each in answer.leases]


def put(server: Server, key: bytes, lease: int = 0) -> None:
    server.call("KV/Put", PutRequest(key=key, value=b"v", lease=lease), PutResponse)


def until(happened: Callable[[], bool]) -> float:
    """Seconds until it happened."""
    started = time.monotonic()
    while not happened():
        assert time.monotonic() - started < DEADLINE_SECONDS, "did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - started


@pytest.fixture
def two(tmp_path: Path, goetcd: Path) -> Iterator[tuple[Etcd, GoEtcd]]:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, theirs = Etcd(tmp_path / "ours"), GoEtcd(goetcd, tmp_path / "theirs")
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_lease_without_an_id_gets_a_positive_one_of_its_own(etcd: Etcd) -> None:
    ids = {grant(etcd, 60).ID for _ in range(20)}
    assert len(ids) == 20
    assert all(0 < lease < 1 << 63 for lease in ids)
    assert set(leases(etcd)) == ids


def test_a_lease_that_is_kept_alive_keeps_its_keys_and_one_that_is_not_loses_them(etcd: Etcd) -> None:
    kept, left = grant(etcd, MIN_TTL), grant(etcd, MIN_TTL)
    put(etcd, b"kept", kept.ID)
    put(etcd, b"left", left.ID)
    granted = time.monotonic()
    stream = KeepAlive(etcd)

    def is_gone() -> bool:
        assert stream.renew(kept.ID) == MIN_TTL
        return not etcd.range(b"left").kvs

    until(is_gone)
    assert time.monotonic() - granted >= MIN_TTL - 0.5, "a lease lives at least its time"
    assert etcd.range(b"kept").count == 1
    assert time_to_live(etcd, left.ID).TTL == -1
    assert stream.renew(left.ID) == 0
    stream.close()


def test_a_watcher_sees_the_keys_of_a_lease_go_under_one_revision(etcd: Etcd) -> None:
    lease = grant(etcd, MIN_TTL).ID
    for key in (b"w3", b"w1", b"w2"):
        put(etcd, key, lease)
    create = WatchRequest(create_request=WatchCreateRequest(key=b"w", range_end=b"x", prev_kv=True))
    requests: queue.SimpleQueue[WatchRequest | None] = queue.SimpleQueue()
    requests.put(create)
    method = etcd.channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=WatchResponse.FromString,
    )
    call = method(iter(requests.get, None), timeout=DEADLINE_SECONDS)
    assert next(call).created
    events: list[Event] = []
    while len(events) < 3:
        events += next(call).events
    assert [event.kv.key for event in events] == [b"w1", b"w2", b"w3"]
    assert {event.type for event in events} == {Event.DELETE}
    assert len({event.kv.mod_revision for event in events}) == 1
    assert [event.prev_kv.lease for event in events] == [lease] * 3
    call.cancel()


def test_a_time_to_live_lists_many_keys_in_slices_and_leaves_out_deleted_ones(etcd: Etcd) -> None:
    lease = grant(etcd, 600).ID
    for start in range(0, 2500, 100):
        puts = [PutRequest(key=b"many-%04d" % number, lease=lease) for number in range(start, start + 100)]
        etcd.call("KV/Txn", TxnRequest(success=[RequestOp(request_put=each) for each in puts]), TxnResponse)
    found = time_to_live(etcd, lease, keys=True)
    assert sorted(found.keys) == [b"many-%04d" % number for number in range(2500)]
    assert 590 <= found.TTL < 600
    assert found.grantedTTL == 600
    assert not time_to_live(etcd, lease).keys
    for start in range(0, 2500, 500):  # asked while the keys leave: all of them or none
        request = DeleteRangeRequest(key=b"many-%04d" % start, range_end=b"many-%04d" % (start + 500))
        delete = etcd.channel.unary_unary(
            "/etcdserverpb.KV/DeleteRange",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=DeleteRangeResponse.FromString,
        )
        deleted = delete.future(request, timeout=DEADLINE_SECONDS)
        left, found = 2500 - start, time_to_live(etcd, lease, keys=True)
        while found.keys and len(found.keys) == left:
            found = time_to_live(etcd, lease, keys=True)
        assert len(found.keys) == left - 500
        assert deleted.result().deleted == 500


def test_what_was_granted_survives_kill_9_and_lives_its_time_anew(etcd: Etcd) -> None:
    long, short = grant(etcd, 100), grant(etcd, MIN_TTL)
    put(etcd, b"long", long.ID)
    put(etcd, b"short", short.ID)
    before = etcd.hash()
    etcd.restart(signal.SIGKILL)
    restarted = time.monotonic()
    found = time_to_live(etcd, long.ID, keys=True)
    assert list(found.keys) == [b"long"]
    assert 90 <= found.TTL <= 100 + ELECTION_SECONDS
    if etcd.range(b"short").kvs:
        assert etcd.hash() == before
        until(lambda: not etcd.range(b"short").kvs)
    assert time.monotonic() - restarted < MIN_TTL + ELECTION_SECONDS + 5
    assert leases(etcd) == [long.ID]


def test_a_stream_that_wants_a_leader_is_served_by_one(etcd: Etcd) -> None:
    lease = grant(etcd, 60).ID
    stream = KeepAlive(etcd, (("hasleader", "true"),))
    assert stream.renew(lease) == 60
    stream.close()


def lease_bucket(server: Server) -> list[tuple[bytes, bytes]]:
    """Of a stopped server."""
    backend = Backend.open(OsFiles(), str(server.directory / "data/member/snap/db"), None)
    rows = backend.scan(b"lease", b"")
    backend.close_now()
    return rows


def test_leases_lie_on_disk_as_real_etcd_writes_them_and_each_goes_on_with_the_others(
    two: tuple[Etcd, GoEtcd], goetcd: Path
) -> None:
    for server in two:
        for lease, ttl in ((1, 1), (-5, 60), (2**63 - 1, 9_000_000_000), (77, 300), (78, 300)):
            grant(server, ttl, lease)
            put(server, b"key of %d" % lease, lease)
        revoke(server, 77)
        until(lambda server=server: 1 not in leases(server))  # type: ignore[misc]
    ours, theirs = two
    assert ours.hash() == theirs.hash()
    for server in two:
        server.stop()
    rows = lease_bucket(ours)
    assert rows == lease_bucket(theirs)
    assert len(rows) == 3
    swapped = GoEtcd(goetcd, ours.directory), Etcd(theirs.directory)
    try:
        for server in swapped:
            assert sorted(leases(server)) == [-5, 78, 2**63 - 1]
            assert list(time_to_live(server, -5, keys=True).keys) == [b"key of -5"]
            assert revoke(server, 78) == 9
        assert swapped[0].hash() == swapped[1].hash()
    finally:
        for server in swapped:
            server.close()
