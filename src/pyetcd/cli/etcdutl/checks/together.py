"""Whether database and log belong together, as a start looks at it, before one is tried."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from pyetcd.cli.etcdutl.checks.buckets import Contents
from pyetcd.cli.etcdutl.checks.findings import Report
from pyetcd.cli.etcdutl.checks.log import LogState, check_entries
from pyetcd.cli.etcdutl.checks.pages import RESTORE
from pyetcd.cluster.datadir import DataDir
from pyetcd.proto.raft_pb2 import ConfChange, ConfChangeV2
from pyetcd.storage.files import Files

WHERE: Final = "database and log"
FOREIGN: Final = "Put back the database and the log that belong to each other, both of one copy."


def check_together(report: Report, files: Files, place: DataDir, contents: Contents, log: LogState) -> None:
    applied, marker = contents.consistent_index, log.marker.index
    if marker > applied:
        received = place.received_database(marker)
        if files.exists(received):
            report.note(received, f"a database received at index {marker} is about to take the place of db")
        else:
            problem = f"the log begins behind index {marker}, the database has applied only up to {applied}"
            report.damage(WHERE, problem, RESTORE)
    check_entries(report, place.wal, log, applied)
    if applied > log.last_index:
        problem = f"the database has applied entry {applied}, the log ends with {log.last_index}"
        if len(contents.members) > 1:
            report.note(WHERE, problem, "Go's etcd leaves this in a crash; other members bring the rest.")
        else:
            report.damage(WHERE, problem, RESTORE)
    if log.hard_state is not None and contents.term > log.hard_state.term:
        report.damage(
            WHERE, f"the database is of term {contents.term}, the log of {log.hard_state.term}", FOREIGN
        )
    if log.hard_state is None and applied:
        report.damage(WHERE, f"the log has no hard state, the database has applied entry {applied}", FOREIGN)
    owner = log.member_id
    known = contents.members | contents.removed | _added(log)
    if contents.members and owner not in known:
        report.damage(WHERE, f"the log is that of member {owner:x}, whom the database does not know", FOREIGN)
    if owner in contents.removed:
        advice = "It does not start again. Add it anew, with an empty directory."
        report.warn(WHERE, f"member {owner:x} was removed from the cluster", advice)


def _added(log: LogState) -> frozenset[int]:
    """Members that the log brings."""
    found: set[int] = set()
    for entry in log.entries:
        try:
            if not entry.type:
                continue
            if entry.type == 1:
                found.add(ConfChange.FromString(entry.data).node_id)
            else:
                found.update(each.node_id for each in ConfChangeV2.FromString(entry.data).changes)
        except DecodeError:
            continue  # told of already
    return frozenset(found)
