"""The log and the `.snap` files: every segment that is there, not only those that a start would read."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError, Message

from pyetcd.cli.etcdutl.checks.findings import Report
from pyetcd.cli.etcdutl.checks.pages import RESTORE
from pyetcd.cluster.bootstrap import read_metadata
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.raft_pb2 import ConfChange, ConfChangeV2
from pyetcd.storage.files import Files
from pyetcd.storage.snap import SnapError, Snapshots, decode
from pyetcd.storage.wal import HardState, LogEntry, Marker, WalCorrupt, WalError, read_only
from pyetcd.storage.wal.scan import Contents, check_chain, read_segment
from pyetcd.storage.wal.segments import check_order, list_segments
from pyetcd.storage.wal.tail import end_of_data, judge

PARSERS: Final[dict[int, Callable[[bytes], Message]]] = {
    0: InternalRaftRequest.FromString,
    1: ConfChange.FromString,
    2: ConfChangeV2.FromString,
}
OLD: Final = "A start does not read it; what follows it is enough."


@dataclass(frozen=True, slots=True)
class LogState:
    """What a start would find: whose log it is, its newest valid marker, and what follows."""

    member_id: int
    cluster_id: int
    marker: Marker
    hard_state: HardState | None
    last_index: int
    entries: list[LogEntry]  # behind the marker


def check_log(report: Report, files: Files, directory: str) -> LogState | None:
    """None where the log cannot be read from its newest marker on."""
    replay = None
    try:
        replay = read_only(files, directory, entry=LogEntry)
    except WalError as error:
        report.damage(directory, str(error), RESTORE)
    try:
        _segments(report, files, directory, replay.marker.index if replay is not None else None)
    except WalError as error:
        report.damage(directory, str(error), RESTORE)
    if replay is None:
        return None
    report.fact("log", "path", directory)
    report.fact("log", "newest marker", replay.marker.index)
    report.fact("log", "last entry", replay.last_index)
    if replay.hard_state is not None:
        report.fact("log", "term", replay.hard_state.term)
        report.fact("log", "commit", replay.hard_state.commit)
    try:
        member_id, cluster_id = read_metadata(replay.metadata)
    except ValueError as error:
        report.damage(directory, f"whose log it is cannot be read: {error}", RESTORE)
        return None
    report.fact("members", "this member", f"{member_id:x}")
    report.fact("members", "cluster", f"{cluster_id:x}")
    return LogState(
        member_id, cluster_id, replay.marker, replay.hard_state, replay.last_index, replay.entries
    )


def check_entries(report: Report, where: str, log: LogState, applied: int) -> None:
    """That a member can read what it has yet to apply; what is applied, an older etcd may have written."""
    for entry in log.entries:
        if entry.index <= applied or not entry.data:
            continue
        try:
            PARSERS[entry.type](entry.data)
        except DecodeError:
            problem = f"entry {entry.index} cannot be read"
            report.damage(where, problem, RESTORE, "entries that cannot be read")


def _nothing(term: int, index: int, kind: int, data: bytes, size: int) -> None:
    """Nothing is kept of an entry while all segments are read."""


def _segments(report: Report, files: Files, directory: str, needed: int | None) -> None:
    """Each segment, and how it continues the one before. `needed`: from which index on a start reads."""
    segments = list_segments(files, directory)
    before: Contents[None] | None = None
    was_old = False
    total = 0
    for number, segment in enumerate(segments, 1):
        following = segments[number:]
        is_old = needed is not None and bool(following) and following[0].index <= needed
        fd = files.open(segment.path)
        try:
            contents = read_segment(files, segment, fd, _nothing)
            total += len(contents.offsets)
            if following:
                _middle(report, files, fd, contents, is_old)
            else:
                _last(report, files, fd, contents)
        finally:
            files.close(fd)
        if before is not None:
            _continues(report, before, contents, was_old)
        contents.entries, contents.offsets = [], array("Q")
        before, was_old = contents, is_old
    report.fact("log", "segments", len(segments))
    report.fact("log", "entries", total)


def _tell(report: Report, path: str, problem: str, is_old: bool) -> None:
    if is_old:
        report.warn(path, problem, OLD)
    elif not any(path in finding.problem and problem in finding.problem for finding in report.findings):
        report.damage(path, problem, RESTORE)


def _middle(report: Report, files: Files, fd: int, contents: Contents[None], is_old: bool) -> None:
    stop = contents.stop
    problem = stop.damage
    if not problem and end_of_data(files, fd, stop.offset) > stop.offset:
        problem = "zeros where a record should be, before the segment's end"
    if problem:
        _tell(report, contents.segment.path, f"at offset {stop.offset}: {problem}", is_old)


def _last(report: Report, files: Files, fd: int, contents: Contents[None]) -> None:
    missing = (contents.last_index or max(contents.segment.index, 1) - 1) + 1
    verdict = judge(files, fd, contents.stop, contents.last_crc, missing)
    path, offset = contents.segment.path, contents.stop.offset
    if verdict.damage:
        _tell(report, path, f"at offset {offset}: {verdict.damage}", False)
    elif verdict.torn:
        report.warn(
            path,
            f"its end is torn at offset {offset}: {contents.stop.damage or 'zeros amid a record'}",
            "A crash leaves this. Nothing behind it was acknowledged; a start cuts it and keeps a copy.",
        )


def _continues(report: Report, before: Contents[None], after: Contents[None], is_old: bool) -> None:
    """`is_old`: a start does not read the one before, as a purge that was cut short leaves some."""
    try:
        check_order(before.segment, after.segment)
        check_chain([before, after])
    except WalCorrupt as error:
        _tell(report, after.segment.path, error.reason, is_old)


def check_snap_files(report: Report, files: Files, directory: str) -> None:
    """Whether each can be read. A start needs none of them."""
    names = Snapshots(files, directory).names()
    report.fact("log", "snap files", len(names))
    for name in names:
        path = f"{directory}/{name}"
        try:
            snapshot = decode(files.read(path))
        except SnapError as error:
            report.warn(path, f"cannot be read: {error}", "It may be removed: etcd 3.7 starts without it.")
            continue
        if name != f"{snapshot.term:016x}-{snapshot.index:016x}.snap":
            report.warn(path, f"holds the snapshot of index {snapshot.index} and term {snapshot.term}")
