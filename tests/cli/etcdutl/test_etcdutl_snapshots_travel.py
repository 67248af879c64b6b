"""Snapshots of 3.7 servers, ours and real, restored by either etcdutl, serve on either with equal HashKV."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Etcd, GoEtcd, Server, free_port
from utl_runner import Utl

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    SnapshotRequest,
    SnapshotResponse,
)


def _snapshot(server: Server, path: Path) -> Path:
    stream = server.channel.unary_stream(
        "/etcdserverpb.Maintenance/Snapshot",
        request_serializer=SnapshotRequest.SerializeToString,
        response_deserializer=SnapshotResponse.FromString,
    )
    path.write_bytes(b"".join(part.blob for part in stream(SnapshotRequest(), timeout=60)))
    return path


class Taken:
    """A snapshot with some history, and what the server said when it was taken."""

    def __init__(self, server: Server, path: Path) -> None:
        for number in range(300):
            server.put(b"key-%d" % (number % 50), b"value %d" % number * (number % 7))
        some = DeleteRangeRequest(key=b"key-1", range_end=b"key-2")
        server.call("KV/DeleteRange", some, DeleteRangeResponse)
        server.call("KV/Compact", CompactionRequest(revision=120, physical=True), CompactionResponse)
        self.revision = server.put(b"last", b"")
        self.hash = server.hash()
        self.path = _snapshot(server, path)


@pytest.fixture(scope="module")
def taken(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Taken]:
    """By whose server it was taken."""
    found: dict[str, Taken] = {}
    for whose in ("ours", "go"):
        directory = tmp_path_factory.mktemp(whose)
        server = Etcd(directory) if whose == "ours" else GoEtcd(goetcd, directory)
        try:
            found[whose] = Taken(server, directory / "snapshot.db")
        finally:
            server.close()
    return found


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    running: list[Server] = []
    yield running
    for server in running:
        server.close()


@pytest.mark.parametrize("served", ["ours", "go"])
@pytest.mark.parametrize("restored", ["ours", "go"])
@pytest.mark.parametrize("source", ["ours", "go"])
def test_a_snapshot_serves_elsewhere_with_the_same_hash(
    utl: Utl,
    taken: dict[str, Taken],
    go_etcdutl: Path,
    goetcd: Path,
    tmp_path: Path,
    servers: list[Server],
    source: str,
    restored: str,
    served: str,
) -> None:
    snapshot = taken[source]
    ports = free_port(), free_port()
    url = f"http://127.0.0.1:{ports[1]}"
    line = (
        *("snapshot", "restore", str(snapshot.path), "--data-dir=data"),
        *(f"--initial-cluster=default={url}", f"--initial-advertise-peer-urls={url}"),
    )
    if restored == "ours":
        assert utl(*line).code == 0
    else:
        command = [str(go_etcdutl), *line]
        environment = {"PATH": os.environ["PATH"]}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    checked = utl("hashkv", "data/member/snap/db")
    assert checked.out.split(", ")[:2] == [str(snapshot.hash), str(snapshot.revision)]
    server = Etcd(tmp_path, ports) if served == "ours" else GoEtcd(goetcd, tmp_path, ports)
    servers.append(server)
    assert server.hash() == snapshot.hash
    assert server.put(b"new", b"") == snapshot.revision + 1
