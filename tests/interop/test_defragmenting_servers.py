"""Maintenance.Defragment on running servers: as etcd answers, logs and counts it, but nobody waits for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from gateway_twins import Asked, ask
from servers import Etcd, GoEtcd

from pyetcd.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DefragmentRequest,
    DefragmentResponse,
    HashRequest,
    HashResponse,
    StatusRequest,
    StatusResponse,
)

FIELDS = [
    "path",
    "current-db-size-bytes-diff",
    "current-db-size-bytes",
    "current-db-size",
    "current-db-size-in-use-bytes-diff",
    "current-db-size-in-use-bytes",
    "current-db-size-in-use",
    "took",
]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    server = Etcd(tmp_path / "ours")
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _directories(tmp_path: Path) -> None:
    for name in ("ours", "go"):
        (tmp_path / name).mkdir()


def fill(server: Etcd | GoEtcd, count: int = 3000) -> None:
    """Then compact nearly all of it away."""
    for number in range(count):
        server.put(b"key-%03d" % (number % 100), bytes(1000))
    server.call("KV/Compact", CompactionRequest(revision=count, physical=True), CompactionResponse)


def status(server: Etcd | GoEtcd) -> StatusResponse:
    response = server.call("Maintenance/Status", StatusRequest(), StatusResponse)
    assert isinstance(response, StatusResponse)
    return response


def defragment(server: Etcd | GoEtcd) -> DefragmentResponse:
    response = server.call("Maintenance/Defragment", DefragmentRequest(), DefragmentResponse)
    assert isinstance(response, DefragmentResponse)
    return response


def database_hash(server: Etcd | GoEtcd) -> int:
    response = server.call("Maintenance/Hash", HashRequest(), HashResponse)
    assert isinstance(response, HashResponse)
    return response.hash


def metric(server: Etcd, name: str) -> float:
    with urlopen(f"{server.client_url}/metrics", timeout=20) as response:
        return next(
            float(line.split()[1])
            for line in response.read().decode().splitlines()
            if line.startswith(name + " ")
        )


def lines(server: Etcd | GoEtcd, message: str) -> list[dict[str, object]]:
    text = server.printed.text()
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in found if line["msg"] == message]


def test_the_answer_the_log_and_the_metric_are_etcds(etcd: Etcd, goetcd: Path, tmp_path: Path) -> None:
    go = GoEtcd(goetcd, tmp_path / "go")
    try:
        for server in (etcd, go):
            fill(server)
            before = status(server)
            assert defragment(server) == DefragmentResponse(), "without a header"
            assert status(server).dbSize < before.dbSize / 2
            asked = Asked("/v3/maintenance/defragment", b"{}")
            told = ask(server, asked)
            assert (told.status, told.body) == (200, b"{}")
        done = lines(etcd, "finished defragmenting directory")[0]
        assert [name for name in done if name not in ("level", "ts", "caller", "msg")] == FIELDS
        assert len(lines(etcd, "starting defragment")) == len(lines(etcd, "finished defragment")) == 2
        assert lines(etcd, "grpc service status changed")[-1]["status"] == "SERVING"
        assert metric(etcd, "etcd_disk_backend_defrag_duration_seconds_count") == 2
        assert metric(etcd, "etcd_disk_defrag_inflight") == 0
    finally:
        go.close()


def test_everything_is_there_also_for_go_and_after_restarts(etcd: Etcd, goetcd: Path, tmp_path: Path) -> None:
    fill(etcd)
    for number in range(100):
        etcd.put(b"last-%d" % number, b"value")
    before = database_hash(etcd)
    defragment(etcd)
    assert database_hash(etcd) == before
    etcd.restart()
    assert database_hash(etcd) == before
    defragment(etcd)
    etcd.stop()
    go = GoEtcd(goetcd, tmp_path / "ours")
    try:
        assert status(go).dbSize < 2_000_000
        defragment(go)
    finally:
        go.close()


def test_writes_and_reads_go_on_meanwhile(etcd: Etcd) -> None:
    for number in range(4_000):
        etcd.put(b"key-%05d" % number, bytes(6000))
    ended, slowest, done = threading.Event(), 0.0, 0
    thread = threading.Thread(target=lambda: (defragment(etcd), ended.set()))
    thread.start()
    while not ended.is_set():
        began = time.monotonic()
        etcd.put(b"meanwhile-%d" % done, b"v")
        slowest = max(slowest, time.monotonic() - began)
        done += 1
    thread.join()
    assert done > 20
    assert slowest < 0.5, "the whole takes far longer"
    defragment(etcd)
    before = database_hash(etcd)
    etcd.restart()
    assert database_hash(etcd) == before


def test_the_health_service_says_so_where_the_gate_is_open(tmp_path: Path) -> None:
    server = Etcd(tmp_path / "ours", feature_gates="StopGRPCServiceOnDefrag=true")
    try:
        watch = server.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )(HealthCheckRequest(), timeout=30)
        told = [next(watch).status]
        defragment(server)
        told += [next(watch).status, next(watch).status]
        serving, stopped = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
        assert told == [serving, stopped, serving]
        assert lines(server, "grpc service status changed")[-2]["reason"] == "defrag is active"
    finally:
        server.close()


@pytest.mark.parametrize(("threshold", "is_done"), [(1, True), (1000, False)])
def test_a_start_defragments_from_a_threshold_on(etcd: Etcd, threshold: int, is_done: bool) -> None:
    fill(etcd, 4000)
    before, hashed = status(etcd).dbSize, database_hash(etcd)
    etcd.flags["bootstrap-defrag-threshold-megabytes"] = str(threshold)
    etcd.restart()
    assert bool(lines(etcd, "finished defragmenting directory")) == is_done
    assert bool(lines(etcd, "Skipping defragmentation")) != is_done
    assert (status(etcd).dbSize < before / 2) == is_done
    assert database_hash(etcd) == hashed


def test_what_a_crash_left_of_a_copy_is_cleared_away(etcd: Etcd, tmp_path: Path) -> None:
    etcd.stop()
    snap = next((tmp_path / "ours").rglob("snap"))
    for name in ("db.tmp.1", "db.tmp.1.sum", "db.tmp.123456"):
        (snap / name).write_bytes(b"half")
    etcd.restart()
    assert not list(snap.glob("db.tmp*"))
