"""The change history, read in revision order from the backend: for watchers that are behind.

An `EventReader` gives every change from a start revision on, in slices the caller asks for. It stops before
a revision whose deletions are not settled yet and goes on there later; it notices a compaction that has
overtaken it.
"""

from __future__ import annotations

from pyetcd.mvcc.change import UNKNOWN, Change
from pyetcd.mvcc.deletion import Deletions
from pyetcd.mvcc.record import deleted_kv, key_of
from pyetcd.mvcc.revision import SHIFT, TOMBSTONE, bucket_key, main_of, parse_bucket_key, revision_of
from pyetcd.mvcc.seams import Backend
from pyetcd.storage import schema


class EventReader:
    """Changes of revisions `next_revision` and later, in order."""

    __slots__ = ("_backend", "_deletions", "_next", "next_revision")

    def __init__(self, backend: Backend, deletions: Deletions, start_revision: int) -> None:
        self._backend = backend
        self._deletions = deletions
        self._next = revision_of(start_revision)
        self.next_revision = start_revision
        """Every change of the revisions before this one has been returned."""

    def read(self, current: int, limit: int) -> list[Change]:
        """Up to `limit` changes of revisions up to `current` (0.9 us each); empty when there is none for now.

        The last revision may be cut: then `next_revision` is that revision, and its other changes come with
        the next call.
        """
        pending = self._deletions.pending
        last = min(current, pending[0].main - 1) if pending else current
        if self.next_revision > last:
            return []
        end = revision_of(last + 1)
        rows = self._backend.scan(schema.KEY, bucket_key(self._next), bucket_key(end), limit)
        changes: list[Change] = []
        number = 0
        for bucket, record in rows:
            number = parse_bucket_key(bucket)
            main = main_of(number)
            if number & TOMBSTONE:
                changes.append(Change(main, True, key_of(record), deleted_kv(record, main), UNKNOWN))
            else:
                changes.append(Change(main, False, key_of(record), record, UNKNOWN))
        if len(rows) < limit:
            self._next = end
            self.next_revision = last + 1
        else:
            self._next = (number & ~TOMBSTONE) + 2
            self.next_revision = number >> SHIFT
        return changes
