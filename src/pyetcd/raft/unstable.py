"""The end of the log that is not known to be on disk yet.

New entries, and a snapshot received from the leader, wait here until the caller says they are stable.
`in_progress` is how far they have been handed out to be written:

    offset              in_progress             offset + len(entries)
      |  being written      |  to be handed out      |

An overwritten tail moves both marks back. Invariant: offset <= in_progress <= offset + len(entries).
"""

from __future__ import annotations

from pyetcd.raft.errors import InvariantBroken
from pyetcd.raft.logger import Logger
from pyetcd.raft.types import Entry, Snapshot


class Unstable:
    __slots__ = ("_logger", "entries", "in_progress", "offset", "snapshot", "snapshot_in_progress")

    def __init__(self, offset: int, logger: Logger) -> None:
        self.offset = offset  # index of entries[0]
        self.in_progress = offset  # everything below has been handed out
        self.entries: list[Entry] = []
        self.snapshot: Snapshot | None = None
        self.snapshot_in_progress = False
        self._logger = logger

    # What is here

    def term(self, index: int) -> int | None:
        """The term at `index`, or None if it is not here."""
        position = index - self.offset
        if 0 <= position < len(self.entries):
            return self.entries[position].term
        if self.snapshot is not None and self.snapshot.index == index:
            return self.snapshot.term
        return None

    def slice(self, lo: int, hi: int) -> list[Entry]:
        """Entries `lo` to `hi - 1`, all of which must be here."""
        if not self.offset <= lo <= hi <= self.offset + len(self.entries):
            upper = self.offset + len(self.entries)
            raise InvariantBroken(f"unstable.slice[{lo},{hi}) out of bound [{self.offset},{upper}]")
        return self.entries[lo - self.offset : hi - self.offset]

    # Handing out

    def next_entries(self) -> list[Entry]:
        return self.entries[self.in_progress - self.offset :]

    def has_next_entries(self) -> bool:
        return self.in_progress < self.offset + len(self.entries)

    def next_snapshot(self) -> Snapshot | None:
        return None if self.snapshot_in_progress else self.snapshot

    def accept(self) -> None:
        """Everything here has been handed out to be written."""
        self.in_progress = self.offset + len(self.entries)
        self.snapshot_in_progress = self.snapshot is not None

    # What comes back

    def stable_to(self, index: int, term: int) -> None:
        """Entries up to `index` are on disk, and no write under way can overwrite them; ignored if they
        have changed.
        """
        found = self.term(index)
        if found is None:
            self._logger.info(f"entry at index {index} missing from unstable log; ignoring")
        elif index < self.offset:
            self._logger.info(f"entry at index {index} matched unstable snapshot; ignoring")
        elif found != term:
            self._logger.info(
                f"entry at (index,term)=({index},{term}) mismatched with entry at "
                f"({index},{found}) in unstable log; ignoring"
            )
        else:
            del self.entries[: index + 1 - self.offset]
            self.offset = index + 1
            self.in_progress = max(self.in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        if self.snapshot is not None and self.snapshot.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    # What comes in

    def restore(self, snapshot: Snapshot) -> None:
        """Start over behind `snapshot`."""
        self.offset = self.in_progress = snapshot.index + 1
        self.entries = []
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def append(self, entries: list[Entry]) -> None:
        """Add entries, in the place of whatever is here from the first of them on."""
        first = entries[0].index
        if first == self.offset + len(self.entries):
            self.entries += entries
        elif first <= self.offset:
            self._logger.info(f"replace the unstable entries from index {first}")
            self.entries = list(entries)
            self.offset = self.in_progress = first
        else:
            self._logger.info(f"truncate the unstable entries before index {first}")
            self.entries = self.entries[: first - self.offset] + entries
            self.in_progress = min(self.in_progress, first)
