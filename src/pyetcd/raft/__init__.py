"""Consensus as a pure state machine: messages and time go in, work comes out.

No clock, no disk, no network, no threads in this room. The caller owns them: it calls `tick` as time
passes, `step` with what arrives, `propose` with what clients want, and carries out what `ready` returns. So
the code that runs in production runs in a simulator too, and the same calls in the same order, with the
same `random.Random`, have the same outcome. It behaves as etcd-raft 3.7 does, down to the log lines: its
transcripts are among the tests.

Theory of operation
-------------------

    step, tick, propose ──► Raft: role, term, log, progress of the others ──► Ready
           ▲                                                                   │
           └── stable(ready), applied(index) ◄── the caller's disk and state machine

`Ready` names what changed since the last one: entries and state to store, messages to send, entries to
apply. Nothing may be said before what it rests on is on disk: that we voted, that we have entries, that we
ourselves count for the majority. So messages come in two kinds, and the caller has two ways to keep them
apart.

*Asynchronous* (`Config.async_storage=True`), which the server uses. Appending and applying run beside raft,
and any number of Readys may be under way, each handed out once:

    ready = node.ready()
    if ready:
        send(ready.messages)                    # at once: they promise nothing
        storage.append(ready.entries)           # the readable log: now, so that raft finds them later
        seq = wal.save(ready.hard_state, ready.entries, ready.must_sync)
        if ready.wants_append(): waiting.append((seq, ready))
        apply(ready.committed)                  # on our own disk already, and on a majority's
        node.applied(ready.committed[-1].index) # when done; in parts if that suits
    ...
    for ready in those_now_durable:             # in order, each one
        send(node.stable(ready))                # now our votes and acknowledgements may be heard

With a `ready.snapshot`, finish what was handed out to be applied before it; then the state machine and
`storage` are replaced (`storage.apply_snapshot`), and durably so before `stable`. What `storage.snapshot()`
offers to others should be the state as it is: a follower ignores a snapshot whose configuration it is not
in. After `stable` and `applied` there may be more to do: ask `ready()` again. A single member commits in
`stable`, and the Ready after it has the entries to apply; proposals made meanwhile are in it, too.

*Synchronous*: `ready`, store, then send, apply, `advance()`; then the next. For tests and tools.

Rules of this room
------------------

* An `Entry` is made once and shared by log, messages, WAL and state machine. Nobody changes it, or a list
  handed out.
* The hot path is `propose` of many payloads at once, on a leader: measured with 300-byte entries on a
  single voter, 0.5 us an entry and 14 us a batch for propose, ready, append, stable, ready and applied
  together.
* `step` refuses what no correct member sends (`InvalidMessage`) before anything changes. `InvariantBroken`
  means that what raft relies on is gone: stop the member.

Where to find what: `node` is the door, `step` the table of who handles what, `leader`, `follower` and
`election` the handlers, `replication` how a leader sends, `log` over `unstable` and `storage` the log,
`tracker` over `quorum`, `progress` and `inflights` what is known of the others, `confchange` and
`membership` how they become others, `reads` linearizable reads, `codec` the bytes, `describe` the texts.
"""

from pyetcd.raft.changes import (
    AnyConfChange,
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Transition,
)
from pyetcd.raft.config import Config, ReadOnlyOption
from pyetcd.raft.errors import (
    Compacted,
    InvalidConfChange,
    InvalidMessage,
    InvariantBroken,
    LocalMessage,
    PeerNotFound,
    ProposalDropped,
    RaftError,
    SnapshotOutOfDate,
    SnapshotTemporarilyUnavailable,
    Unavailable,
)
from pyetcd.raft.logger import Logger
from pyetcd.raft.node import Node, Status
from pyetcd.raft.progress import Progress, ProgressState
from pyetcd.raft.ready import Ready
from pyetcd.raft.storage import MemoryStorage, Storage
from pyetcd.raft.types import (
    NONE,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    ReadState,
    Role,
    Snapshot,
    SnapshotMetadata,
    SoftState,
)

__all__ = [
    "NONE",
    "AnyConfChange",
    "Compacted",
    "ConfChange",
    "ConfChangeSingle",
    "ConfChangeType",
    "ConfChangeV2",
    "ConfState",
    "Config",
    "Entry",
    "EntryType",
    "HardState",
    "InvalidConfChange",
    "InvalidMessage",
    "InvariantBroken",
    "LocalMessage",
    "Logger",
    "MemoryStorage",
    "Message",
    "MessageType",
    "Node",
    "PeerNotFound",
    "Progress",
    "ProgressState",
    "ProposalDropped",
    "RaftError",
    "ReadOnlyOption",
    "ReadState",
    "Ready",
    "Role",
    "Snapshot",
    "SnapshotMetadata",
    "SnapshotOutOfDate",
    "SnapshotTemporarilyUnavailable",
    "SoftState",
    "Status",
    "Storage",
    "Transition",
    "Unavailable",
]
