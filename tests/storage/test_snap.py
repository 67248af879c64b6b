"""Snapshot files: whole or not there, readable by etcd, broken ones put aside."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pyetcd.proto import raft_pb2, snap_pb2
from pyetcd.storage.files import OsFiles
from pyetcd.storage.snap import SnapError, Snapshot, Snapshots, decode, encode

CONF_STATE = raft_pb2.ConfState(voters=[7], auto_leave=False).SerializeToString()


def snapshot(index: int, term: int = 2, data: bytes = b"{}") -> Snapshot:
    return Snapshot(index, term, CONF_STATE, data)


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(OsFiles(), str(tmp_path))


def test_what_is_saved_is_loaded(snapshots: Snapshots, tmp_path: Path) -> None:
    saved = snapshots.save(snapshot(0x18, data=b"x" * 70_000))
    assert saved.path == str(tmp_path / "0000000000000002-0000000000000018.snap")
    assert snapshots.load() == snapshot(0x18, data=b"x" * 70_000)
    assert [file.name for file in tmp_path.iterdir()] == ["0000000000000002-0000000000000018.snap"]


def test_the_bytes_are_those_protobuf_makes() -> None:
    raft = raft_pb2.Snapshot(data=b"{}")
    raft.metadata.index, raft.metadata.term = 0x18, 2
    raft.metadata.conf_state.MergeFromString(CONF_STATE)
    frame = snap_pb2.snapshot.FromString(encode(snapshot(0x18)))
    assert frame.data == raft.SerializeToString()
    assert frame.SerializeToString() == encode(snapshot(0x18))


def test_the_newest_is_loaded_first_and_only_a_wanted_one(snapshots: Snapshots) -> None:
    for index, term in ((5, 9), (30, 2), (20, 2)):
        snapshots.save(snapshot(index, term))
    assert snapshots.names()[0] == "0000000000000009-0000000000000005.snap"
    assert snapshots.load() == snapshot(5, 9)
    assert snapshots.load({(20, 2), (30, 2)}) == snapshot(30, 2)
    assert snapshots.load({(20, 3)}) is None


def test_no_snapshot_is_none(snapshots: Snapshots) -> None:
    assert snapshots.load() is None


def test_a_broken_file_is_put_aside_and_the_one_before_is_used(snapshots: Snapshots, tmp_path: Path) -> None:
    snapshots.save(snapshot(10))
    newest = Path(snapshots.save(snapshot(20)).path)
    newest.write_bytes(newest.read_bytes()[:-1] + b"\xff")
    assert snapshots.load() == snapshot(10)
    assert (tmp_path / (newest.name + ".broken")).exists()
    assert snapshots.names() == ["0000000000000002-000000000000000a.snap"]


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    content = encode(snapshot(0x18, data=b"membership"))
    for at in range(len(content)):
        with pytest.raises(SnapError):
            decode(content[:at])
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with pytest.raises(SnapError):
                decode(bytes(flipped))


def test_leftovers_are_removed_at_start(snapshots: Snapshots, tmp_path: Path) -> None:
    for name in ("tmp-0000000000000002-0000000000000018.snap", "db.tmp.123", "db", "tmp55", "note"):
        (tmp_path / name).write_bytes(b"")
    snapshots.tidy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "note"]


def test_databases_of_older_snapshots_are_released(snapshots: Snapshots, tmp_path: Path) -> None:
    for index in (1, 2, 3):
        (tmp_path / f"{index:016x}.snap.db").write_bytes(b"")
    snapshots.release_databases(2)
    assert sorted(path.name[:16] for path in tmp_path.iterdir()) == [f"{index:016x}" for index in (2, 3)]


def test_only_so_many_are_kept(snapshots: Snapshots) -> None:
    for index in range(1, 8):
        snapshots.save(snapshot(index))
    assert len(snapshots.purge(5)) == 2
    assert snapshots.names()[-1] == "0000000000000002-0000000000000003.snap"
    assert snapshots.purge(5) == []


def test_only_so_many_received_databases_are_kept(snapshots: Snapshots, tmp_path: Path) -> None:
    for index in range(1, 8):
        (tmp_path / f"{index:016x}.snap.db").write_bytes(b"")
    assert [Path(path).name[:16] for path in snapshots.purge_databases(5)] == [f"{i:016x}" for i in (1, 2)]
    assert snapshots.purge_databases(5) == []


def test_a_file_says_how_long_it_took(snapshots: Snapshots) -> None:
    times = iter([1.0, 2.0, 4.0, 8.0, 16.0])
    saved = snapshots.save(snapshot(1), lambda: next(times))
    assert (saved.encode_seconds, saved.sync_seconds, saved.total_seconds) == (1.0, 4.0, 15.0)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    class FullDisk(OsFiles):
        def pwrite(self, fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
            super().pwrite(fd, data[:10], offset)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        Snapshots(FullDisk(), str(tmp_path)).save(snapshot(1))
    assert list(tmp_path.iterdir()) == []
