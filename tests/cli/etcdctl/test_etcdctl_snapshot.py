"""`snapshot save`: against a server that sends what a test tells it to, beside real etcdctl 3.7.1."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from both import Both
from ctl_runner import Etcdctl, Ran, RealEtcd

from pyetcd.proto.rpc_pb2 import SnapshotResponse

DATABASE = bytes(range(256)) * 512
HASH = hashlib.sha256(DATABASE).digest()
LINES = [
    ("snapshot/v3_snapshot.go:83", "created temporary db file"),
    ("v3/maintenance.go:236", "opened snapshot stream; downloading"),
    ("snapshot/v3_snapshot.go:96", "fetching snapshot"),
    ("v3/maintenance.go:302", "completed snapshot read; closing"),
    ("snapshot/v3_snapshot.go:111", "fetched snapshot"),
    ("snapshot/v3_snapshot.go:121", "saved"),
]


class Backups(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Sends `blobs`, then ends with `status`."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.status = grpc.StatusCode.OK
        self.version = "3.7.0"

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if not call.method.endswith("/Snapshot"):
            return None

        def answer(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            left = sum(map(len, self.blobs))
            for blob in self.blobs:
                left -= len(blob)
                yield SnapshotResponse(
                    blob=blob, remaining_bytes=left, version=self.version
                ).SerializeToString()
            if self.status is not grpc.StatusCode.OK:
                context.abort(self.status, "etcdserver: no more")

        return grpc.unary_stream_rpc_method_handler(answer)


class Stage:
    def __init__(self, backups: Backups, endpoint: str, both: Both, directory: Path) -> None:
        self.backups = backups
        self.both = both
        self.directory = directory
        self.endpoint = endpoint

    def same(self, *more: str) -> Ran:
        """Both programs, which must agree; then whether each left what it had to."""
        path = self.directory / "saved"
        runs: list[tuple[Ran, bytes | None, int]] = []
        for program in (self.both.real, self.both.ours):
            ran = program("snapshot", "save", str(path), f"--endpoints={self.endpoint}", *more)
            errors = b"".join(line for line in ran.err.splitlines(True) if not line.startswith(b"{"))
            data = path.read_bytes() if path.exists() else None
            mode = path.stat().st_mode & 0o777 if path.exists() else 0
            runs.append((Ran(ran.code, ran.out, errors), data, mode))
            path.unlink(missing_ok=True)
            assert os.listdir(self.directory) == [], "the file of parts is gone"
        assert runs[0] == runs[1]
        self.saved = runs[1][1]
        return runs[1][0]

    def ours(self, path: Path) -> Ran:
        return self.both.ours("snapshot", "save", str(path), f"--endpoints={self.endpoint}")


@pytest.fixture
def stage(both: Both, tmp_path: Path) -> Iterator[Stage]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    backups = Backups()
    server.add_generic_rpc_handlers((backups,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Stage(backups, f"127.0.0.1:{port}", both, tmp_path)
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("version", ["3.7.0", ""])
def test_a_snapshot_is_saved_with_its_hash(stage: Stage, version: str) -> None:
    stage.backups.version = version
    stage.backups.blobs = [DATABASE[:40_000], DATABASE[40_000:], HASH]
    ran = stage.same()
    expected = f"Snapshot saved at {stage.directory / 'saved'}\n"
    assert ran.text == expected + (f"Server version {version}\n" if version else "")
    assert stage.saved == DATABASE + HASH


def test_the_hash_may_come_in_pieces_and_with_the_database(stage: Stage) -> None:
    stage.backups.blobs = [DATABASE + HASH[:5], HASH[5:6], b"", HASH[6:]]
    assert stage.same().code == 0


def test_a_snapshot_without_a_hash_is_refused(stage: Stage) -> None:
    stage.backups.blobs = [DATABASE]
    ran = stage.same()
    assert (ran.code, ran.err) == (5, b"Error: sha256 checksum not found [bytes: 131072]\n")
    stage.backups.blobs = []
    stage.backups.version = ""
    assert stage.both.ours("snapshot", "save", "x", "--endpoints=127.0.0.1:1,127.0.0.1:2").code == 5


def test_a_database_that_does_not_fit_its_hash_is_refused_though_etcdctl_keeps_it(stage: Stage) -> None:
    stage.backups.blobs = [DATABASE[:-1] + b"x", HASH]
    ran = stage.ours(stage.directory / "saved")
    got = hashlib.sha256(stage.backups.blobs[0]).hexdigest()
    assert ran.code == 5
    assert ran.err.decode().endswith(f"Error: expected sha256 {HASH.hex()}, got {got}\n")
    assert os.listdir(stage.directory) == []


@pytest.mark.parametrize("blobs", [[], [DATABASE]], ids=["at once", "after a part"])
def test_a_stream_that_fails_leaves_nothing_behind(stage: Stage, blobs: list[bytes]) -> None:
    stage.backups.blobs = blobs
    stage.backups.status = grpc.StatusCode.PERMISSION_DENIED
    ran = stage.same()
    assert ran.code == 5
    assert b"etcdserver: no more" in ran.err


def test_an_earlier_snapshot_stays_until_the_new_one_is_complete(stage: Stage) -> None:
    path = stage.directory / "saved"
    path.write_bytes(b"earlier")
    stage.backups.blobs = [DATABASE]
    assert stage.ours(path).code == 5
    assert path.read_bytes() == b"earlier"
    stage.backups.blobs = [DATABASE, HASH]
    assert stage.ours(path).code == 0
    assert path.read_bytes() == DATABASE + HASH


def test_what_is_done_is_told_in_etcdctls_log_lines(stage: Stage) -> None:
    stage.backups.blobs = [DATABASE, HASH]
    path = stage.directory / "saved"
    told = [json.loads(line) for line in stage.ours(path).err.splitlines()]
    assert [(line["caller"], line["msg"]) for line in told] == LINES
    assert {line["level"] for line in told} == {"info"}
    assert (told[4]["size"], told[4]["etcd-version"]) == ("131 kB", "3.7.0")
    assert (told[0]["path"], told[5]["path"]) == (f"{path}.part", str(path))


@pytest.mark.parametrize(
    "arguments",
    [
        ["snapshot", "save"],
        ["snapshot", "save", "a", "b"],
        ["snapshot", "save", "/no/such/place", "--endpoints=127.0.0.1:1"],
        ["snapshot", "save", "x", "--endpoints=127.0.0.1:1,127.0.0.1:2"],
        ["snapshot", "save", "x", "--endpoints="],
    ],
    ids=" ".join,
)
def test_mistakes_are_told_alike(both: Both, arguments: list[str]) -> None:
    assert both.same(*arguments).code in (5, 128)


def test_a_directory_is_not_replaced(stage: Stage) -> None:
    stage.backups.blobs = [DATABASE, HASH]
    runs = [
        program("snapshot", "save", str(stage.directory), f"--endpoints={stage.endpoint}")
        for program in (stage.both.real, stage.both.ours)
    ]
    errors = [ran.err.splitlines()[-1] for ran in runs]
    assert errors[0] == errors[1]
    assert errors[1].endswith(b": file exists)")
    assert [ran.code for ran in runs] == [5, 5]


def test_without_a_server_only_the_command_timeout_ends_it(both: Both, tmp_path: Path) -> None:
    line = ["snapshot", "save", str(tmp_path / "s"), "--endpoints=127.0.0.1:1", "--command-timeout=1s"]
    for program in (both.real, both.ours):
        ran = program(*line)
        assert (ran.code, ran.err.splitlines()[-1]) == (5, b"Error: context deadline exceeded")
    assert os.listdir(tmp_path) == []


def test_a_snapshot_of_a_real_member_is_one_to_real_etcdutl(
    ctl: Etcdctl, real_etcd: RealEtcd, tmp_path: Path
) -> None:
    from ctl_runner import real_program

    ctl("put", "a", "b")
    path = tmp_path / "saved"
    assert ctl("snapshot", "save", str(path)).code == 0
    status = [str(real_program("etcdutl")), "snapshot", "status", str(path), "-w", "json"]
    told = json.loads(subprocess.run(status, capture_output=True, check=True, timeout=60).stdout)
    assert told["totalSize"] > 0
    assert told["revision"] > 1
