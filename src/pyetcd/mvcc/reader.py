"""Reading at a fixed revision: records, counts and walks, in slices.

Rules that hold here:

* A reader has a bound (see `revision`). What it sees never changes, however many writes come between two of
  its slices: it resumes by key, and the index knows what each key was at the bound.
* As long as a reader runs, its main revision is pinned, and a compaction above it waits before it removes
  anything.
* An unsettled deletion after the bound is settled by the reader itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyetcd.mvcc.answer import Job
from pyetcd.mvcc.deletion import Deletions
from pyetcd.mvcc.index import KeyIndex
from pyetcd.mvcc.record_cache import RecordCache
from pyetcd.mvcc.revision import bucket_key, bucket_keys, main_of
from pyetcd.mvcc.seams import Backend
from pyetcd.storage import schema

SLICE_KEYS = 256  # keys whose records are read in one slice: about 1 ms
COUNT_KEYS = 2048  # keys that are only counted in one slice
COUNTS_KEPT = 1024
MAX_ROWS = 1 << 63


class MissingRecord(Exception):
    """The backend lacks a record that the index knows: the database is damaged."""


class Pins:
    """Main revisions that readers need whole."""

    __slots__ = ("_pins",)

    def __init__(self) -> None:
        self._pins: dict[int, int] = {}

    def add(self, main: int) -> None:
        self._pins[main] = self._pins.get(main, 0) + 1

    def remove(self, main: int) -> None:
        left = self._pins[main] - 1
        if left:
            self._pins[main] = left
        else:
            del self._pins[main]

    def below(self, main: int) -> bool:
        """Is any revision before `main` pinned?"""
        return any(pin < main for pin in self._pins)


class Reader:
    """Reads of one store."""

    def __init__(
        self,
        index: KeyIndex,
        deletions: Deletions,
        backend: Backend,
        cache: RecordCache,
        compact_revision: int,
    ) -> None:
        self.index = index
        self.deletions = deletions
        self.backend = backend
        self.cache = cache
        self.compact_revision = compact_revision  # nothing before it can be read; -1: never compacted
        self.pins = Pins()
        self._counts: dict[tuple[int, bytes, bytes | None], int] = {}

    # Single keys

    def revision_of(self, key: bytes, bound: int) -> int:
        """The revision number of `key` at `bound`, 0 when it did not exist."""
        if self.deletions.pending:
            self.deletions.settle_key(key)
        return self.index.at(key, bound)

    def record(self, revision: int) -> bytes:
        """The stored record of a put, from the cache or the backend (0.2 us or about 2.5 us)."""
        cache = self.cache
        record = cache.young.get(revision) or cache.old.get(revision)
        if record is None:
            record = self.backend.get(schema.KEY, bucket_key(revision))
            if record is None:
                raise MissingRecord(f"no record of revision {main_of(revision)}")
            cache.put(revision, record)
        return record

    def record_at(self, key: bytes, bound: int) -> bytes | None:
        """The record of `key` at `bound`, or None when it did not exist."""
        revision = self.revision_of(key, bound)
        return self.record(revision) if revision else None

    # Many keys

    def records(self, revisions: list[int]) -> list[bytes]:
        """The records of many puts, in the same order. What is read from the backend here does not enter
        the cache.
        """
        young, old = self.cache.young, self.cache.old
        found: list[bytes | None] = [young.get(r) or old.get(r) for r in revisions]
        if None not in found:
            return found  # type: ignore[return-value]
        missing = [at for at, record in enumerate(found) if record is None]
        read = self.backend.get_many(schema.KEY, bucket_keys([revisions[at] for at in missing]))
        for at, record in zip(missing, read, strict=True):
            if record is None:
                raise MissingRecord(f"no record of revision {main_of(revisions[at])}")
            found[at] = record
        return found  # type: ignore[return-value]

    def known_count(self, start: bytes, end: bytes | None, bound: int) -> int | None:
        """The count of keys in [start, end) at `bound` if it can be told without a walk."""
        if bound >= self.index.top:
            return self.index.count(start, end, bound)
        count = self._counts.get((bound, start, end))
        if count is None:
            count = self.index.count(start, end, bound)
            if count is not None:
                self.keep_count(start, end, bound, count)
        return count

    def keep_count(self, start: bytes, end: bytes | None, bound: int, count: int) -> None:
        """Remember a count at a bound: it never changes. This is what makes the next page of a listing
        cheap.
        """
        counts = self._counts
        if len(counts) >= COUNTS_KEPT:
            for old in list(counts)[: COUNTS_KEPT // 2]:
                del counts[old]
        counts[(bound, start, end)] = count

    def forget_counts(self) -> None:
        """Counts at compacted revisions are of no use any more."""
        self._counts.clear()

    def count(self, start: bytes, end: bytes | None, bound: int) -> Job[int]:
        """The count, by a walk when there is no other way."""
        count = self.known_count(start, end, bound)
        if count is not None:
            return count
        count = 0
        at: bytes | None = start
        while at is not None:
            yield from self.deletions.settle_after(bound)
            keys, _, at = self.index.walk(at, end, bound, COUNT_KEYS)
            count += len(keys)
            yield
        self.keep_count(start, end, bound, count)
        return count

    def rows(
        self, start: bytes, end: bytes | None, bound: int, limit: int = MAX_ROWS
    ) -> Iterator[tuple[list[bytes], list[int]]]:
        """The first `limit` keys of [start, end) at `bound` with their revision numbers, slice by slice
        (some may be empty).

        The consumer may let others write between two slices.
        """
        index, deletions = self.index, self.deletions
        at: bytes | None = start
        while at is not None and limit > 0:
            if deletions.pending and deletions.pending[-1].first > bound:
                deletions.settle_slice()
                yield [], []
                continue
            keys, revisions, at = index.walk(
                at, end, bound, min(SLICE_KEYS, limit) if bound >= index.top else SLICE_KEYS
            )
            if len(keys) > limit:
                del keys[limit:], revisions[limit:]
            limit -= len(keys)
            yield keys, revisions
