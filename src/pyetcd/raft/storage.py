"""The stable log, as raft reads it; and `MemoryStorage`, the one that is used.

`Storage` is what raft needs to read. Writing is the caller's: it appends what a `Ready` names before it
acknowledges that `Ready`. etcd keeps recent entries in memory and the WAL only for restarts, and so do we:
`MemoryStorage` is that cache. It is bounded by its owner, who compacts by index, and who can ask how many
bytes are held (`size_bytes`) and from which index on the log would fit into a budget
(`first_index_within`).

Entries are shared, so a list handed out here is a fresh slice and may be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyetcd.raft.errors import Compacted, InvariantBroken, SnapshotOutOfDate, Unavailable
from pyetcd.raft.types import (
    NO_LIMIT,
    ConfState,
    Entry,
    HardState,
    Snapshot,
    SnapshotMetadata,
    encoded_size,
    limit_size,
)


class Storage(Protocol):
    """Everything raft asks of the stable log. Any error but those named makes the node unusable."""

    def initial_state(self) -> tuple[HardState, ConfState]: ...

    def entries(self, lo: int, hi: int, max_bytes: int = NO_LIMIT) -> list[Entry]:
        """Entries `lo` to `hi - 1`, cut at `max_bytes` but at least one. Raises Compacted or Unavailable."""
        ...

    def term(self, index: int) -> int:
        """The term at `first_index() - 1` to `last_index()`. Compacted or Unavailable otherwise."""
        ...

    def first_index(self) -> int: ...

    def last_index(self) -> int: ...

    def snapshot(self) -> Snapshot:
        """The latest snapshot. Raises SnapshotTemporarilyUnavailable to be asked again later."""
        ...


class MemoryStorage:
    """A log in memory. `_entries[i]` has index `_offset + 1 + i`; `_offset_term` is the term just before
    them.
    """

    __slots__ = ("_entries", "_hard_state", "_offset", "_offset_term", "_snapshot", "size_bytes")

    def __init__(self) -> None:
        self._hard_state = HardState()
        self._snapshot = Snapshot()
        self._entries: list[Entry] = []
        self._offset = 0
        self._offset_term = 0
        self.size_bytes = 0

    # What raft reads

    def initial_state(self) -> tuple[HardState, ConfState]:
        return self._hard_state, self._snapshot.metadata.conf_state

    def entries(self, lo: int, hi: int, max_bytes: int = NO_LIMIT) -> list[Entry]:
        offset = self._offset
        if lo <= offset:
            raise Compacted
        if hi > offset + len(self._entries) + 1:
            raise InvariantBroken(f"entries' hi({hi}) is out of bound lastindex({self.last_index()})")
        if not self._entries:
            raise Unavailable
        found = self._entries[lo - offset - 1 : hi - offset - 1]
        return found if max_bytes >= NO_LIMIT else limit_size(found, max_bytes)

    def term(self, index: int) -> int:
        position = index - self._offset - 1
        if position < 0:
            if position == -1:
                return self._offset_term
            raise Compacted
        try:
            return self._entries[position].term
        except IndexError:
            raise Unavailable from None

    def first_index(self) -> int:
        return self._offset + 1

    def last_index(self) -> int:
        return self._offset + len(self._entries)

    def snapshot(self) -> Snapshot:
        return self._snapshot

    # What its owner writes

    def set_hard_state(self, state: HardState) -> None:
        self._hard_state = state

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries, in the place of whatever was there from the first of them on."""
        if not entries:
            return
        offset = self._offset
        if entries[0].index <= offset:  # older than what is kept: the compacted part is dropped
            entries = entries[offset + 1 - entries[0].index :]
            if not entries:
                return
        position = entries[0].index - offset - 1
        held = self._entries
        if position > len(held):
            raise InvariantBroken(
                f"missing log entry [last: {self.last_index()}, append at: {entries[0].index}]"
            )
        if position < len(held):
            self.size_bytes -= encoded_size(held[position:])
            del held[position:]
        held.extend(entries)
        self.size_bytes += encoded_size(entries)

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Forget the log and start over after `snapshot`. Raises SnapshotOutOfDate for an older one than
        ours.
        """
        if self._snapshot.index and self._snapshot.index >= snapshot.index:
            raise SnapshotOutOfDate
        self._snapshot = snapshot
        self._entries = []
        self._offset = snapshot.index
        self._offset_term = snapshot.term
        self.size_bytes = 0

    def create_snapshot(self, index: int, conf_state: ConfState | None, data: bytes) -> Snapshot:
        """Note a snapshot of the state machine at `index`, with what `apply_conf_change` returned last, if
        anything.
        """
        if index <= self._snapshot.index:
            raise SnapshotOutOfDate
        if index > self.last_index():
            raise InvariantBroken(f"snapshot {index} is out of bound lastindex({self.last_index()})")
        members = conf_state if conf_state is not None else self._snapshot.metadata.conf_state
        self._snapshot = Snapshot(SnapshotMetadata(index, self.term(index), members), data)
        return self._snapshot

    def compact(self, index: int) -> None:
        """Forget entries up to and including `index`, which must be applied already. Raises Compacted if
        gone.
        """
        if index <= self._offset:
            raise Compacted
        if index > self.last_index():
            raise InvariantBroken(f"compact {index} is out of bound lastindex({self.last_index()})")
        count = index - self._offset
        gone = self._entries[:count]
        self._offset_term = gone[-1].term
        self._offset = index
        self.size_bytes -= encoded_size(gone)
        del self._entries[:count]

    def first_index_within(self, max_bytes: int) -> int:
        """The lowest index from which on the log holds at most `max_bytes`: compact up to just below it."""
        index, size = self.first_index(), self.size_bytes
        for entry in self._entries:
            if size <= max_bytes:
                break
            size -= entry.size
            index += 1
        return index
