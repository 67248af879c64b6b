"""`migrate`: the storage version goes step by step, and never below what the log needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from crash_files import StepFiles
from utl_runner import Utl, content, make_database

from pyetcd.cli.etcdutl.restore import Immediate
from pyetcd.cluster.migration import needed_version
from pyetcd.cluster.versions import Version
from pyetcd.proto.membership_pb2 import ClusterVersionSetRequest
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import DowngradeVersionTestRequest, PutRequest
from pyetcd.storage.schema import META
from pyetcd.storage.wal import HardState, LogEntry, Wal

VERSION = b"storageVersion"
TERM = {b"term": bytes(7) + b"\2"}


def requests(*messages: InternalRaftRequest) -> list[LogEntry]:
    return [LogEntry(1, index, 0, each.SerializeToString()) for index, each in enumerate(messages, 1)]


OLD = requests(InternalRaftRequest(put=PutRequest(key=b"a")))
NEW = requests(InternalRaftRequest(downgrade_version_test=DowngradeVersionTestRequest(ver="3.7.0")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def make(data: Path, version: bytes | None, entries: Sequence[LogEntry] = OLD) -> None:
    """A member's directory with this storage version and this log."""
    meta = {**TERM, **({} if version is None else {VERSION: version})}
    make_database(data / "member/snap/db", {META: meta})
    files = StepFiles()
    wal = Wal.create(files, str(data / "member/wal"), b"metadata", Immediate(files), segment_bytes=1 << 16)
    wal.save(HardState(1, 1, len(entries)), entries, True)
    wal.close()


def version_in(data: Path) -> bytes | None:
    return content(data / "member/snap/db")[META].get(VERSION)


def go(utl: Utl, target: str, *flags: str) -> tuple[int, list[str], str]:
    ran = utl("migrate", "--data-dir", "data", "--target-version", target, *flags)
    assert ran.out == ""
    return ran.code, ran.told, ran.error if "Error: " in ran.err else ""


def test_it_goes_down_and_up_a_version_at_a_time(utl: Utl, data: Path) -> None:
    make(data, b"3.7.0")
    step = 'info updated storage version {{"new-storage-version": "{}"}}'
    assert go(utl, "3.5") == (0, [step.format("3.6.0"), step.format("3.5.0")], "")
    assert version_in(data) is None, "3.5 does not write it down"
    assert go(utl, "3.7") == (0, [step.format("3.6.0"), step.format("3.7.0")], "")
    assert version_in(data) == b"3.7.0"
    assert go(utl, "3.6") == (0, [step.format("3.6.0")], "")
    assert version_in(data) == b"3.6.0"


@pytest.mark.parametrize(("stored", "target"), [(b"3.7.0", "3.7"), (b"3.6.0", "3.6"), (None, "3.5")])
def test_at_the_target_nothing_is_written(utl: Utl, data: Path, stored: bytes | None, target: str) -> None:
    make(data, stored)
    before = (data / "member/snap/db").read_bytes()
    told = f'info storage version up-to-date {{"storage-version": "{target}"}}'
    assert go(utl, target) == (0, [told], "")
    assert (data / "member/snap/db").read_bytes() == before


def test_a_version_nobody_knows_needs_force(utl: Utl, data: Path) -> None:
    make(data, b"3.7.0")
    why = 'cannot create migration plan: version "3.8.0" is not supported'
    assert go(utl, "3.8") == (1, [], why)
    code, told, _ = go(utl, "3.8", "--force")
    assert code == 0
    assert told[0].startswith('info normal migrate failed, trying with force {"error": "cannot create')
    assert told[1] == 'warn forcefully set storage version {"storage-version": "3.8"}'
    assert version_in(data) == b"3.8.0"
    assert go(utl, "3.7") == (1, [], why)
    assert go(utl, "3.5", "--force")[1][-1] == "warn forcefully cleared storage version"
    assert version_in(data) is None


def test_the_major_version_stays(utl: Utl, data: Path) -> None:
    make(data, b"3.7.0")
    code, told, error = go(utl, "4.0")
    assert (code, error) == (
        1,
        "cannot create migration plan: changing major storage version is not supported",
    )
    fields = '{"storage-version": "3.7.0", "target-storage-version": "4.0.0"}'
    assert told == [f"error Changing major storage version is not supported {fields}"]


def test_a_log_with_newer_entries_keeps_the_version_up(utl: Utl, data: Path) -> None:
    make(data, b"3.7.0", NEW)
    code, _, error = go(utl, "3.6")
    assert code == 1
    assert error == (
        "cannot downgrade storage, WAL contains newer entries, as the target version (3.6.0) is lower than"
        " the version (3.7.0) detected from WAL logs"
    )
    assert version_in(data) == b"3.7.0"
    assert go(utl, "3.6", "--force")[0] == 0
    assert version_in(data) == b"3.6.0"


def test_what_a_log_needs_is_the_newest_thing_in_it() -> None:
    assert needed_version(OLD) is None, "all versions know a put"
    agreed = InternalRaftRequest(cluster_version_set=ClusterVersionSetRequest(ver="3.7.0"))
    assert needed_version([*OLD, *requests(agreed)]) == Version(3, 5)
    assert needed_version([*NEW, *OLD]) == Version(3, 7)
    assert needed_version([LogEntry(1, 1, 1, b""), LogEntry(1, 2, 2, b"")]) == Version(3, 4)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("3", 'wrong target version format, expected "X.Y", got "3"'),
        ("3.6.0", 'wrong target version format, expected "X.Y", got "3.6.0"'),
        ("a.6", 'failed to parse target version: strconv.ParseInt: parsing "a": invalid syntax'),
        ("3.4", 'target version "3.4" not supported. Minimal "3.5"'),
    ],
)
def test_a_bad_target_is_refused_before_anything_is_looked_at(utl: Utl, target: str, error: str) -> None:
    assert go(utl, target) == (128, [], error)


def test_a_database_without_signs_of_its_version_is_refused(utl: Utl, data: Path) -> None:
    make_database(data / "member/snap/db", {})
    code, told, error = go(utl, "3.6")
    assert (code, error) == (1, "missing term information")
    assert told[0].startswith("error failed to detect storage version. ")


def test_without_its_log_a_database_is_not_touched(utl: Utl, data: Path) -> None:
    make_database(data / "member/snap/db", {META: {**TERM, VERSION: b"3.7.0"}})
    code, told, error = go(utl, "3.6")
    assert code == 1
    assert error.startswith("failed to get the lastest snapshot: ")
    assert told[0].startswith("error Failed to finalize config ")
    assert version_in(data) == b"3.7.0"
