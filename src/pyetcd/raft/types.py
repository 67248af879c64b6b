"""What raft's messages and states are made of.

Field names and numbers are those of etcd's `raft.proto`; `codec` turns them into bytes and back. Rules here:

* Everything handed out is shared, never copied, and never changed afterwards. An `Entry` is made once, by
  the leader that proposes it or by the codec that decodes it, and the same object goes to the log, the
  messages, the WAL and the state machine. Lists of entries are fresh slices; their items are shared.
* IDs are unsigned 64-bit; 0 (`NONE`) means "nobody".
* Plain slotted classes with an `__init__`, not frozen dataclasses, for what is made on every request: a
  frozen dataclass costs 1.1 us an object here, a slotted class 0.3 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

NONE: Final = 0
NO_LIMIT: Final = 2**64 - 1

# Who acknowledges storage work: not members, but the two ends that finish it, appending and applying.
APPEND_THREAD: Final = 2**64 - 1
APPLY_THREAD: Final = 2**64 - 2


class EntryType(IntEnum):
    EntryNormal = 0
    EntryConfChange = 1
    EntryConfChangeV2 = 2


class MessageType(IntEnum):
    MsgHup = 0
    MsgBeat = 1
    MsgProp = 2
    MsgApp = 3
    MsgAppResp = 4
    MsgVote = 5
    MsgVoteResp = 6
    MsgSnap = 7
    MsgHeartbeat = 8
    MsgHeartbeatResp = 9
    MsgUnreachable = 10
    MsgSnapStatus = 11
    MsgCheckQuorum = 12
    MsgTransferLeader = 13
    MsgTimeoutNow = 14
    MsgReadIndex = 15
    MsgReadIndexResp = 16
    MsgPreVote = 17
    MsgPreVoteResp = 18
    MsgStorageAppend = 19
    MsgStorageAppendResp = 20
    MsgStorageApply = 21
    MsgStorageApplyResp = 22
    MsgForgetLeader = 23


class Role(IntEnum):
    """What a member is at the moment. Names are those etcd logs."""

    StateFollower = 0
    StateCandidate = 1
    StateLeader = 2
    StatePreCandidate = 3


def varint_size(value: int) -> int:
    """Bytes of `value` as a protobuf varint."""
    return (value.bit_length() + 6) // 7 or 1


class Entry:
    """One record of the log: `data` as proposed, at `index`, first appended by the leader of `term`.

    `size` is the length of the entry's protobuf encoding in bytes, which every limit of raft counts in. It
    is kept because three limits look at it; computing it each time cost 0.5 us an entry.
    """

    __slots__ = ("data", "index", "size", "term", "type")

    def __init__(self, term: int, index: int, type: int, data: bytes, size: int = -1) -> None:
        self.term = term
        self.index = index
        self.type = type
        self.data = data
        self.size = size if size >= 0 else entry_size(term, index, type, len(data))

    def __repr__(self) -> str:
        return f"Entry({self.term}/{self.index}, {EntryType(self.type).name}, {self.data!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self.term, self.index, self.type, self.data) == (
            other.term,
            other.index,
            other.type,
            other.data,
        )

    def __hash__(self) -> int:
        return hash((self.term, self.index))


def entry_size(term: int, index: int, type: int, data_bytes: int) -> int:
    """Length of an entry's encoding: term and index always, type and data only where they say something."""
    size = 2 + varint_size(term) + varint_size(index)
    if type:
        size += 2
    if data_bytes:
        size += 1 + varint_size(data_bytes) + data_bytes
    return size


def new_entries(term: int, after: int, payloads: Sequence[bytes]) -> list[Entry]:
    """Normal entries for `payloads`, numbered from `after + 1`. 0.3 us an entry, sizes included."""
    first, end = after + 1, after + 1 + len(payloads)
    fixed = 2 + varint_size(term) + varint_size(first)
    if varint_size(end) != varint_size(
        first
    ):  # a batch in which indexes grow by a digit: rare, so the plain way
        return [Entry(term, first + i, 0, data) for i, data in enumerate(payloads)]
    small, medium, empty = fixed + 2, fixed + 3, fixed
    return [
        Entry(
            term,
            index,
            0,
            data,
            (n + medium if n < 16384 else n + fixed + 1 + varint_size(n))
            if (n := len(data)) > 127
            else (n + small if n else empty),
        )
        for index, data in enumerate(payloads, first)
    ]


def payload_size(entries: Sequence[Entry]) -> int:
    """Bytes of data alone, as `max_uncommitted_size` counts."""
    return sum([len(e.data) for e in entries])


def encoded_size(entries: Sequence[Entry]) -> int:
    """Bytes of the entries' encodings, as all other limits count."""
    return sum([e.size for e in entries])


def limit_size(entries: list[Entry], max_bytes: int) -> list[Entry]:
    """The longest prefix of at most `max_bytes`, but always the first entry."""
    total = 0
    for i, entry in enumerate(entries):
        total += entry.size
        if total > max_bytes and i:
            return entries[:i]
    return entries


@dataclass(frozen=True, slots=True)
class ConfState:
    """Who votes and who only learns. `voters_outgoing` is set while a joint change is under way."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False

    def equivalent(self, other: ConfState) -> bool:
        """The same configuration, whatever the order of the IDs."""
        return self.auto_leave == other.auto_leave and all(
            sorted(a) == sorted(b)
            for a, b in (
                (self.voters, other.voters),
                (self.learners, other.learners),
                (self.voters_outgoing, other.voters_outgoing),
                (self.learners_next, other.learners_next),
            )
        )


@dataclass(frozen=True, slots=True)
class SnapshotMetadata:
    index: int = 0
    term: int = 0
    conf_state: ConfState = field(default_factory=ConfState)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state machine after applying `metadata.index`; index 0 means "no snapshot". `data` is the
    application's.
    """

    metadata: SnapshotMetadata = field(default_factory=SnapshotMetadata)
    data: bytes = b""

    @property
    def index(self) -> int:
        return self.metadata.index

    @property
    def term(self) -> int:
        return self.metadata.term


class HardState:
    """What must be on disk before anything that follows from it is said: term, vote, and (for speed only)
    commit.
    """

    __slots__ = ("commit", "term", "vote")

    def __init__(self, term: int = 0, vote: int = 0, commit: int = 0) -> None:
        self.term = term
        self.vote = vote
        self.commit = commit

    def __bool__(self) -> bool:
        """False for a state in which nothing has happened yet."""
        return bool(self.term or self.vote or self.commit)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HardState):
            return NotImplemented
        return self.term == other.term and self.vote == other.vote and self.commit == other.commit

    def __hash__(self) -> int:
        return hash((self.term, self.vote, self.commit))

    def __repr__(self) -> str:
        return f"HardState(term={self.term}, vote={self.vote:x}, commit={self.commit})"


@dataclass(frozen=True, slots=True)
class SoftState:
    """What may be forgotten in a crash: who leads, and what we are."""

    lead: int = NONE
    role: Role = Role.StateFollower


@dataclass(frozen=True, slots=True)
class ReadState:
    """A linearizable read with this `context` may be served once the state machine has applied `index`."""

    index: int
    context: bytes


_MESSAGE_FIELDS: Final = (
    "commit",
    "context",
    "entries",
    "from_",
    "index",
    "log_term",
    "reject",
    "reject_hint",
    "responses",
    "snapshot",
    "term",
    "to",
    "type",
    "vote",
)


class Message:
    """One message between members, or between a member and its storage. Unused fields are zero."""

    __slots__ = _MESSAGE_FIELDS

    def __init__(
        self,
        type: MessageType,
        to: int = NONE,
        from_: int = NONE,
        term: int = 0,
        log_term: int = 0,
        index: int = 0,
        entries: Sequence[Entry] = (),
        commit: int = 0,
        vote: int = 0,
        snapshot: Snapshot | None = None,
        reject: bool = False,
        reject_hint: int = 0,
        context: bytes = b"",
        responses: Sequence[Message] = (),
    ) -> None:
        self.type = type
        self.to = to
        self.from_ = from_
        self.term = term
        self.log_term = log_term
        self.index = index
        self.entries = entries
        self.commit = commit
        self.vote = vote
        self.snapshot = snapshot
        self.reject = reject
        self.reject_hint = reject_hint
        self.context = context
        self.responses = responses

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name in _MESSAGE_FIELDS if (value := getattr(self, name)))
        return f"Message({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return all(_same(getattr(self, name), getattr(other, name)) for name in _MESSAGE_FIELDS)

    __hash__ = None  # type: ignore[assignment]


def _same(left: object, right: object) -> bool:
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return list(left) == list(right)
    return left == right
