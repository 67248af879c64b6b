"""Logs and snapshot files go back and forth between etcd's own packages and ours.

Needs Go and its module proxy or a filled module cache.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pyetcd.cluster.members import Member, from_json, to_json
from pyetcd.cluster.v2store import membership_json
from pyetcd.cluster.versions import Version
from pyetcd.proto.raft_pb2 import ConfState
from pyetcd.storage.files import OsFiles
from pyetcd.storage.snap import Snapshot, Snapshots
from pyetcd.storage.wal import HardState, LogEntry, Marker, Wal, WalCorrupt

CONF_STATE = ConfState(voters=[7]).SerializeToString()


class NowAppender:
    """Writes at once: here nothing is about threads."""

    def __init__(self) -> None:
        self.files = OsFiles()
        self.done = 0

    def append(self, fd: int, offset: int, data: bytes | list[bytes], sync: bool = True) -> int:
        self.files.pwrite(fd, data if isinstance(data, bytes) else b"".join(data), offset)
        self.done += 1
        return self.done

    def completed(self) -> int:
        return self.done


def run(gowal: Path, *args: object, stdin: str = "") -> str:
    command = [str(gowal), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def open_log(directory: Path, marker: Marker | None = None) -> tuple[Wal, list[LogEntry], HardState | None]:
    files = OsFiles()
    wal, replay = Wal.open(files, str(directory), NowAppender(), marker, entry=LogEntry, segment_bytes=65536)
    return wal, replay.entries, replay.hard_state


def write_log(directory: Path, count: int) -> list[LogEntry]:
    wal = Wal.create(OsFiles(), str(directory), b"our metadata", NowAppender(), segment_bytes=65536)
    saved = [LogEntry(1, 1, 1, b"conf")]
    saved += [LogEntry(2, i, 0, bytes([i % 256]) * (i * 7 % 700)) for i in range(2, count + 1)]
    for each in saved:
        wal.save(HardState(2, 7, each.index - 1), [each], True)
        wal.completed()
        if each.index == count // 2:
            wal.save_snapshot(each.index - 1, 2, CONF_STATE)
    wal.close()
    return saved


def as_go(entries: list[LogEntry]) -> list[dict[str, object]]:
    return [{"Term": e.term, "Index": e.index, "Type": e.type, "Data": e.data.hex()} for e in entries]


def test_etcd_reads_our_log_and_goes_on_where_we_stopped(gowal: Path, tmp_path: Path) -> None:
    saved = write_log(tmp_path / "wal", 600)
    assert len(list((tmp_path / "wal").glob("*.wal"))) > 3
    found = json.loads(run(gowal, "read", tmp_path / "wal", 0, 0))
    assert found["Metadata"] == b"our metadata".hex()
    assert found["State"] == [2, 7, 599]
    assert found["Entries"] == as_go(saved)
    assert found["Markers"] == [[0, 0], [299, 2]]
    found = json.loads(run(gowal, "read", tmp_path / "wal", 299, 2))
    assert found["Entries"] == as_go(saved[299:])


def test_we_read_etcds_log_and_etcd_reads_what_we_append(gowal: Path, tmp_path: Path) -> None:
    run(gowal, "write", tmp_path / "wal", 900, 500)
    wal, entries, state = open_log(tmp_path / "wal", Marker(0, 0))
    assert state == HardState(3, 0x8E9E05C52164694D, 899)
    assert [e.index for e in entries] == list(range(1, 901))
    assert all(e.data == bytes([e.index % 256]) * (e.index * 7 % 501) for e in entries)
    more = [LogEntry(4, i, 0, b"ours") for i in range(901, 905)]
    wal.save(HardState(4, 7, 904), more, True)
    wal.close()
    found = json.loads(run(gowal, "read", tmp_path / "wal", 449, 3))
    assert found["Entries"] == as_go([*entries[449:], *more])
    wal, entries, _ = open_log(tmp_path / "wal")
    wal.close()
    assert entries[0].index == 450


def test_a_log_we_repaired_is_one_etcd_reads(gowal: Path, tmp_path: Path) -> None:
    saved = write_log(tmp_path / "wal", 40)
    [segment] = (tmp_path / "wal").glob("*.wal")
    data = segment.read_bytes()
    end = len(data.rstrip(b"\0"))
    segment.write_bytes(data[: end - 60] + bytes(len(data) - end + 60))  # into the last entry
    wal, entries, _ = open_log(tmp_path / "wal", Marker(0, 0))
    assert entries == saved[: len(entries)]
    assert 38 <= len(entries) < 40
    wal.save(HardState(5, 7, len(entries)), [LogEntry(5, len(entries) + 1, 0, b"again")], True)
    wal.close()
    found = json.loads(run(gowal, "read", tmp_path / "wal", 0, 0))
    assert [e["Term"] for e in found["Entries"]][-1] == 5
    assert len(found["Entries"]) == len(entries) + 1


def test_where_etcd_refuses_a_log_so_do_we(gowal: Path, tmp_path: Path) -> None:
    write_log(tmp_path / "wal", 40)
    [segment] = (tmp_path / "wal").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[data.index(bytes([20]) * 100) + 10] ^= 1
    segment.write_bytes(data)
    command = [str(gowal), "read", str(tmp_path / "wal"), "0", "0"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert "crc mismatch" in refused.stderr
    with pytest.raises(WalCorrupt, match="crc mismatch"):
        open_log(tmp_path / "wal")


def test_etcd_reads_our_snapshot_file(gowal: Path, tmp_path: Path) -> None:
    data = membership_json([Member(7, ("http://a:1",), False, "n", ("http://a:2",))], [9], Version(3, 7))
    path = Snapshots(OsFiles(), str(tmp_path)).save(Snapshot(300, 2, CONF_STATE, data)).path
    found = json.loads(run(gowal, "snap", path))
    assert found == {"Index": 300, "Term": 2, "Voters": [7], "Data": data.hex()}


def test_members_are_the_json_go_writes(gowal: Path) -> None:
    members = [
        Member(1, ("http://a:1",)),
        Member(
            2**64 - 1, ("http://a:1?x=<a>&b", "unix://b"), True, 'né\u2028\x01\x7f"\\/\t\b\f', ("http://c",)
        ),
        Member(3, None),
        Member(4, (), name="😀"),
    ]
    lines = [to_json(member).decode() for member in members]
    assert run(gowal, "member", stdin="\n".join(lines)).splitlines() == lines
    assert [from_json(line.encode())[0] for line in lines] == members
