"""A disk that is full or fails: the member says so in one clear line and ends, or never starts; then goes on.

The disk is a small tmpfs where one can be mounted, and besides a limit on the length of files, which makes
single writes fail.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from crash_member import Crashable
from crash_seed import Seed, keys_of
from servers import READY_SECONDS

from pyetcd.proto.rpc_pb2 import Compare, PutRequest, RequestOp, TxnRequest, TxnResponse

ROOM = 32 << 20  # of the small disk
VALUE = b"v" * 100_000
REASONS = ("No space left on device", "File too large", "Input/output error")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "disk"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=700", "tmpfs", str(target)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield target
    subprocess.run(["umount", "--lazy", str(target)], check=True)


def small_segments(segment_bytes: int) -> None:
    """The log reserves 64 MB at a time; here that would be all there is."""
    from pyetcd.member.opening import open_member

    assert open_member.__kwdefaults__ is not None
    open_member.__kwdefaults__["segment_bytes"] = segment_bytes


def short_files(bytes_max: int, segment_bytes: int) -> None:
    """No file may be longer; a write beyond that fails as on a full disk (EFBIG instead of ENOSPC)."""
    small_segments(segment_bytes)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, resource.RLIM_INFINITY))


def failing_syncs(begun: Path, after: int) -> None:
    """The database's syncs fail (the log's are native), `after` of them after there is a file `begun`."""
    from pyetcd.storage.files import OsFiles

    calls = 0

    def fdatasync(files: OsFiles, fd: int) -> None:
        nonlocal calls
        calls += begun.exists()
        if calls > after:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(fd)

    OsFiles.fdatasync = fdatasync  # type: ignore[method-assign]


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={10 * ROOM}", str(disk)], check=True)


def fill(directory: Path) -> Path:
    """Take all space that is left."""
    path = directory / "ballast"
    with path.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"\0")
        except OSError:
            pass
    return path


def put_until_it_ends(member: Crashable, value: bytes, upto: int = 3000) -> dict[bytes, bytes]:
    """Everything that was acknowledged before the member went away."""
    written = {}
    try:
        for number in range(upto):
            key = b"full/%04d" % number
            member.put(key, value)
            written[key] = value
    except grpc.RpcError as error:
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN), error  # noqa: PT017
        return written
    raise AssertionError("the disk was never full")


@contextmanager
def ended_by_its_disk(member: Crashable, *names: str) -> Iterator[None]:
    """Within, the member meets the end of its disk, and ends with one clear line that names the file."""
    began = time.monotonic()
    yield
    ending = member.ending(began, 60)
    assert ending.code == 1, ending.text
    assert any(reason in ending.fatal for reason in REASONS), ending.fatal
    assert any(str(member.data / name) in ending.fatal for name in names), ending.fatal


def is_there(member: Crashable, written: dict[bytes, bytes]) -> None:
    found = {kv.key: kv.value for kv in member.range(b"full/", b"full0").kvs}
    assert {key: found.get(key) for key in written} == written
    assert len(found) <= len(written) + 1, "and what was on its way when it happened"


def test_a_disk_too_small_for_a_new_member_is_refused_and_with_space_it_starts(
    small_disk: Path, tmp_path: Path
) -> None:
    """The log reserves 64 MB."""
    member = Crashable(tmp_path, data=small_disk / "data")
    refusal = member.refused()
    assert refusal.code == 1
    assert "No space left on device" in refusal.fatal
    assert str(member.data / "member/wal") in refusal.fatal
    assert not [path for path in member.data.rglob("*") if path.is_file()], "nothing is left lying about"
    enlarge(small_disk)
    member.start()
    member.put(b"a", b"1")
    member.stop()


def test_a_member_that_fills_its_disk_ends_and_with_space_has_all_that_was_acknowledged(
    small_disk: Path, tmp_path: Path
) -> None:
    member = Crashable(tmp_path, data=small_disk / "data")
    member.start(small_segments, 2 << 20)
    with ended_by_its_disk(member, "member/wal", "member/snap/db"):
        written = put_until_it_ends(member, VALUE)
    assert len(written) > 50
    enlarge(small_disk)
    member.start(small_segments, 2 << 20)
    is_there(member, written)
    member.put(b"goes on", b"1")
    member.stop()


@pytest.mark.parametrize("value", [b"small", VALUE])
def test_a_disk_that_others_fill_ends_the_member_and_once_they_are_gone_everything_is_there(
    value: bytes, small_disk: Path, tmp_path: Path, seed: Seed
) -> None:
    member = Crashable(tmp_path, data=small_disk / "data")
    seed.place(member.data)
    member.start(small_segments, 1 << 20)
    ballast = fill(small_disk)
    with ended_by_its_disk(member, "member/wal", "member/snap/db"):
        written = put_until_it_ends(member, value, upto=20_000)
    # As long as there is room in the files it has, it may well start again.
    member.begin(small_segments, 1 << 20)
    if member.printed.wait_ready(READY_SECONDS):
        is_there(member, written)
        member.process.send_signal(signal.SIGTERM)
    assert member.ending(time.monotonic(), 20).code in (1, -signal.SIGTERM)
    ballast.unlink()
    member.start(small_segments, 1 << 20)
    is_there(member, written)
    found = {key: kv for key, kv in keys_of(member).items() if not key.startswith(b"full/")}
    assert found == seed.late_keys
    member.stop()


def test_a_member_killed_on_a_full_disk_has_all_that_was_acknowledged(
    small_disk: Path, tmp_path: Path
) -> None:
    member = Crashable(tmp_path, data=small_disk / "data")
    member.start(small_segments, 1 << 20)
    member.put(b"full/first", b"1")
    ballast = fill(small_disk)
    written = {b"full/first": b"1"}
    for number in range(30):  # there is room in the file of the log
        member.put(b"full/%02d" % number, b"small")
        written[b"full/%02d" % number] = b"small"
    member.stop(signal.SIGKILL)
    ballast.unlink()
    member.start(small_segments, 1 << 20)
    is_there(member, written)
    member.stop()


def test_a_write_to_the_database_that_fails_ends_the_member_and_loses_nothing(tmp_path: Path) -> None:
    member = Crashable(tmp_path)
    member.start(small_segments, 1 << 20)
    member.put(b"full/first", b"1")
    member.stop()
    member.start(short_files, 20 << 20, 1 << 20)
    with ended_by_its_disk(member, "member/snap/db"):
        written = put_until_it_ends(member, VALUE)
    member.start(small_segments, 1 << 20)
    is_there(member, {**written, b"full/first": b"1"})
    member.stop()


def test_a_write_to_the_log_that_fails_ends_the_member_and_loses_nothing(tmp_path: Path) -> None:
    member = Crashable(tmp_path)
    member.start(small_segments, 40 << 20)
    member.put(b"full/first", b"1")
    member.stop()
    member.start(short_files, 20 << 20, 40 << 20)
    # Large in the log, nothing in the database: the branch that is not taken.
    put = RequestOp(request_put=PutRequest(key=b"full/never", value=VALUE))
    request = TxnRequest(
        compare=[Compare(key=b"full/first", target=Compare.VERSION, version=7)], success=[put]
    )
    answers = 0
    with ended_by_its_disk(member, "member/wal"), pytest.raises(grpc.RpcError):  # noqa: PT012
        while True:
            member.call("KV/Txn", request, TxnResponse)
            answers += 1
    assert answers > 100
    member.start(small_segments, 40 << 20)
    is_there(member, {b"full/first": b"1"})
    assert member.put(b"a", b"1") == 3
    member.stop()


@pytest.mark.parametrize("after", [0, 7])
def test_a_sync_that_fails_ends_the_member_and_loses_nothing(after: int, tmp_path: Path) -> None:
    """It is not tried again: what a failed sync has left behind, nobody knows."""
    member = Crashable(tmp_path)
    begun = tmp_path / "begun"
    member.start(failing_syncs, begun, after)
    member.put(b"full/first", b"value")
    begun.touch()
    with ended_by_its_disk(member, "member/snap/db"):
        written = put_until_it_ends(member, b"value", upto=1_000_000)
    member.start()
    is_there(member, {b"full/first": b"value", **written})
    member.stop()
