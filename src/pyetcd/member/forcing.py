"""`--force-new-cluster`: one member goes on alone with what it has, when the others are lost for good.

Rules that hold here, as etcd has them (server/storage/util.go, server/etcdserver/bootstrap.go):

* What the log does not call committed is dropped, unless the database has applied it.
* Behind it come changes of the configuration that remove all others, in order of their IDs. They count as
  committed, and are applied like any other.
* There must always be a voter, or raft ends. So a member that is not in the configuration is added first,
  with etcd's default peer URL. A learner is promoted first; etcd itself fails there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pyetcd import logs
from pyetcd.cluster import changes
from pyetcd.cluster.members import Member
from pyetcd.raft import ConfChangeType, Entry, EntryType, InvalidMessage
from pyetcd.raft.changes import ConfChangeSingle
from pyetcd.raft.codec import conf_change_of

DEFAULT_PEER_URLS: Final = ("http://localhost:2380",)

_log = logs.get("member")


def committed(entries: Sequence[Entry], commit: int) -> Sequence[Entry]:
    """The entries up to `commit`."""
    for at, entry in enumerate(entries):
        if entry.index > commit:
            _log.info(
                "discarding uncommitted WAL entries",
                {
                    "entry-index": entry.index,
                    "commit-index-from-wal": commit,
                    "number-of-discarded-entries": len(entries) - at,
                },
            )
            return entries[:at]
    return entries


def is_removed(entries: Iterable[Entry], id: int) -> bool:
    """Whether these entries remove a member."""
    return any(
        single.type is ConfChangeType.ConfChangeRemoveNode and single.node_id == id
        for entry in entries
        for single in _changes(entry)
    )


def entries_for_one(
    members: Iterable[Member], unapplied: Iterable[Entry], id: int, term: int, after: int
) -> list[Entry]:
    """The entries behind index `after` that leave member `id` alone, once `unapplied` has been applied to
    `members`."""
    is_learner = _configuration(members, unapplied)
    data: list[bytes] = []
    if id not in is_learner:
        data.append(changes.bootstrap(Member(id, DEFAULT_PEER_URLS)))
    elif is_learner[id]:
        data.append(changes.forced_promotion(id))
    data += [changes.forced_removal(other) for other in sorted(is_learner) if other != id]
    return [Entry(term, index, EntryType.EntryConfChange, each) for index, each in enumerate(data, after + 1)]


def _configuration(members: Iterable[Member], unapplied: Iterable[Entry]) -> Mapping[int, bool]:
    """Who is in the configuration in the end, and whether as a learner."""
    is_learner = {member.id: member.is_learner for member in members}
    for entry in unapplied:
        for single in _changes(entry):
            if single.type is ConfChangeType.ConfChangeRemoveNode:
                is_learner.pop(single.node_id, None)
            elif single.type is ConfChangeType.ConfChangeAddNode:
                is_learner[single.node_id] = False
            elif single.type is ConfChangeType.ConfChangeAddLearnerNode:
                is_learner[single.node_id] = True
    return is_learner


def _changes(entry: Entry) -> Sequence[ConfChangeSingle]:
    if not entry.type:
        return ()
    try:
        return conf_change_of(entry).as_v2().changes
    except InvalidMessage:
        return ()
