"""The whole log: the stable part (`Storage`), the unstable end, and how far it is committed and applied.

    first ... applied ... applying ... committed ... last

`committed` is what a quorum holds, `applying` what has been handed out to be applied, `applied` what has
been. None of them ever goes back. Which part of the log answers a question is nobody else's business.

How much may be handed out without being applied is bounded in bytes (`max_applying`); the batch that
reaches the bound pauses handing out until enough of it has been applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyetcd.raft.errors import Compacted, InvariantBroken, StorageError, Unavailable
from pyetcd.raft.logger import Logger
from pyetcd.raft.storage import Storage
from pyetcd.raft.types import NO_LIMIT, Entry, Snapshot, encoded_size, limit_size
from pyetcd.raft.unstable import Unstable


class RaftLog:
    __slots__ = (
        "_applying_size",
        "_logger",
        "_paused",
        "applied",
        "applying",
        "committed",
        "max_applying_bytes",
        "storage",
        "unstable",
    )

    def __init__(self, storage: Storage, logger: Logger, max_applying: int = NO_LIMIT) -> None:
        self.storage = storage
        self.unstable = Unstable(storage.last_index() + 1, logger)
        self.committed = self.applying = self.applied = storage.first_index() - 1
        self._logger = logger
        self.max_applying_bytes = max_applying
        self._applying_size = 0  # bytes handed out and not yet applied
        self._paused = False

    def __str__(self) -> str:
        u = self.unstable
        return (
            f"committed={self.committed}, applied={self.applied}, applying={self.applying}, "
            f"unstable.offset={u.offset}, unstable.offsetInProgress={u.in_progress}, "
            f"len(unstable.Entries)={len(u.entries)}"
        )

    # Reading

    def first_index(self) -> int:
        if self.unstable.snapshot is not None:
            return self.unstable.snapshot.index + 1
        return self.storage.first_index()

    def last_index(self) -> int:
        unstable = self.unstable
        if unstable.entries:  # asked seven times a batch
            return unstable.offset + len(unstable.entries) - 1
        return unstable.snapshot.index if unstable.snapshot is not None else self.storage.last_index()

    def term(self, index: int) -> int:
        """The term of an entry from first_index() - 1 to last_index(). Raises Compacted or Unavailable."""
        found = self.unstable.term(index)
        if found is not None:
            return found
        if index + 1 < self.first_index():
            raise Compacted
        if index > self.last_index():
            raise Unavailable
        return self.storage.term(index)

    def term_or_zero(self, index: int) -> int:
        try:
            return self.term(index)
        except (Compacted, Unavailable):
            return 0

    def last_term(self) -> int:
        return self.term(self.last_index())

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at `index` is here and of `term`."""
        if index > self.last_index():  # what a leader brings is mostly new
            return False
        try:
            return self.term(index) == term
        except (Compacted, Unavailable):
            return False

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log ending in (index, term) has at least what ours has (Raft paper, section 5.4.1)."""
        ours = self.last_term()
        return term > ours or (term == ours and index >= self.last_index())

    def entries_from(self, index: int, max_bytes: int) -> list[Entry]:
        """Entries from `index` to the end, cut at `max_bytes`. Raises Compacted."""
        last = self.last_index()
        return [] if index > last else self.slice(index, last + 1, max_bytes)

    def slice(self, lo: int, hi: int, max_bytes: int = NO_LIMIT) -> list[Entry]:
        """Entries `lo` to `hi - 1`, cut at `max_bytes` but at least one. Raises Compacted."""
        self._check_bounds(lo, hi)
        if lo == hi:
            return []
        u = self.unstable
        if lo >= u.offset:
            return limit_size(u.slice(lo, hi), max_bytes)
        cut = min(hi, u.offset)
        try:
            found = self.storage.entries(lo, cut, max_bytes)
        except Unavailable:
            raise InvariantBroken(f"entries[{lo}:{cut}) is unavailable from storage") from None
        if hi <= u.offset or len(found) < cut - lo:
            return found
        return self._extend(found, hi, max_bytes)

    def _extend(self, stable: list[Entry], hi: int, max_bytes: int) -> list[Entry]:
        """`stable` runs up to the unstable end; go on there as far as the limit lets us."""
        room = max_bytes - encoded_size(stable)
        if room <= 0:
            return stable
        more = limit_size(self.unstable.slice(self.unstable.offset, hi), room)
        if len(more) == 1 and more[0].size > room:
            return stable  # "at least one" is for a whole answer, which has one already
        return stable + more

    def _check_bounds(self, lo: int, hi: int) -> None:
        if lo > hi:
            raise InvariantBroken(f"invalid slice {lo} > {hi}")
        if lo < self.first_index():
            raise Compacted
        if hi > self.last_index() + 1:
            raise InvariantBroken(f"slice[{lo},{hi}) out of bound [{self.first_index()},{self.last_index()}]")

    def scan(self, lo: int, hi: int, page_bytes: int) -> Iterator[Entry]:
        """Entries `lo` to `hi - 1`, read in pages, so that a long log is never in hand at once."""
        while lo < hi:
            page = self.slice(lo, hi, page_bytes)
            if not page:
                raise InvariantBroken(f"got 0 entries in [{lo}, {hi})")
            yield from page
            lo += len(page)

    def snapshot(self) -> Snapshot:
        """The latest snapshot. Raises SnapshotTemporarilyUnavailable."""
        return self.unstable.snapshot if self.unstable.snapshot is not None else self.storage.snapshot()

    # Writing

    def append(self, entries: list[Entry]) -> int:
        """Put entries at the end, in the place of whatever is there from the first of them on. Returns the
        last index.
        """
        if entries:
            after = entries[0].index - 1
            if after < self.committed:
                raise InvariantBroken(f"after({after}) is out of range [committed({self.committed})]")
            self.unstable.append(entries)
        return self.last_index()

    def append_after(
        self, prev_index: int, prev_term: int, entries: Sequence[Entry], commit: int
    ) -> int | None:
        """What a leader sent: append what is new of `entries` if we have the one before them, and note its
        commit index.

        Returns the index of the last of them, or None if the logs do not match at `prev_index`.
        """
        if not self.matches(prev_index, prev_term):
            return None
        last_new = prev_index + len(entries)
        conflict = self.find_conflict(entries)
        if conflict:
            if conflict <= self.committed:
                raise InvariantBroken(
                    f"entry {conflict} conflict with committed entry [committed({self.committed})]"
                )
            self.append(list(entries[conflict - prev_index - 1 :]))
        self.commit_to(min(commit, last_new))
        return last_new

    def find_conflict(self, entries: Sequence[Entry]) -> int:
        """Index of the first entry that we do not have, or have in another term; 0 if we have all."""
        for entry in entries:
            if not self.matches(entry.index, entry.term):
                if entry.index <= self.last_index():
                    self._logger.info(
                        f"found conflict at index {entry.index} [existing term: "
                        f"{self.term_or_zero(entry.index)}, "
                        f"conflicting term: {entry.term}]"
                    )
                return entry.index
        return 0

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """The best guess where we match a log of which only (index, term) of one entry is known.

        Terms never fall along a log, so no entry of ours above `term` can match: the guess is our last one,
        up to `index`, of at most that term. Returns it with our term there, 0 if that is unknown.
        """
        while index > 0:
            try:
                ours = self.term(index)
            except (Compacted, Unavailable):
                return index, 0
            if ours <= term:
                return index, ours
            index -= 1
        return 0, 0

    def commit_to(self, index: int) -> None:
        """Everything up to `index` is held by a quorum. Never goes back."""
        if index <= self.committed:
            return
        if index > self.last_index():
            raise InvariantBroken(
                f"tocommit({index}) is out of range [lastIndex({self.last_index()})]. "
                "Was the raft log corrupted, truncated, or lost?"
            )
        self.committed = index

    def maybe_commit(self, index: int, term: int) -> bool:
        """Commit up to `index` if that is news and its entry is of `term`; older ones follow along (section
        5.4.2).
        """
        if index > self.committed and term and self.matches(index, term):
            self.commit_to(index)
            return True
        return False

    def restore(self, snapshot: Snapshot) -> None:
        self._logger.info(
            f"log [{self}] starts to restore snapshot [index: {snapshot.index}, term: {snapshot.term}]"
        )
        self.committed = snapshot.index
        self.unstable.restore(snapshot)

    # Applying

    def max_appliable(self, allow_unstable: bool) -> int:
        """How far entries may be applied: what is committed, and on our own disk unless `allow_unstable`."""
        stable = self.unstable.offset - 1
        return self.committed if allow_unstable or self.committed < stable else stable

    def has_next_committed(self, allow_unstable: bool) -> bool:
        """A snapshot comes first, and nothing beside it."""
        return (
            not self._paused
            and self.unstable.snapshot is None
            and self.applying < self.max_appliable(allow_unstable)
        )

    def next_committed(self, allow_unstable: bool) -> list[Entry]:
        """Entries to apply now, as many as the bound on unapplied bytes allows."""
        last = self.max_appliable(allow_unstable)
        if self.applying >= last or self._paused or self.unstable.snapshot is not None:
            return []
        room = self.max_applying_bytes - self._applying_size
        try:
            return self.slice(self.applying + 1, last + 1, room)
        except StorageError as error:
            raise InvariantBroken(f"unexpected error when getting unapplied entries ({error})") from error

    def accept_applying(self, index: int, size: int, allow_unstable: bool) -> None:
        """Entries up to `index`, of `size` bytes, have been handed out."""
        if index > self.committed:
            raise InvariantBroken(
                f"applying({index}) is out of range [prevApplying({self.applying}), "
                f"committed({self.committed})]"
            )
        self.applying = index
        self._applying_size += size
        # Handing out less than there was means that the next entry did not fit.
        self._paused = self._applying_size >= self.max_applying_bytes or index < self.max_appliable(
            allow_unstable
        )

    def applied_to(self, index: int, size: int) -> None:
        """Entries up to `index` have been applied, of which `size` bytes had been handed out."""
        if not self.applied <= index <= self.committed:
            raise InvariantBroken(
                f"applied({index}) is out of range [prevApplied({self.applied}), committed({self.committed})]"
            )
        self.applied = index
        self.applying = max(self.applying, index)
        self._applying_size = max(self._applying_size - size, 0)
        self._paused = self._applying_size >= self.max_applying_bytes
