"""One write transaction at a time: puts and deletions under one main revision.

Rules that hold here:

* The caller has checked everything; nothing here fails half-way. Records are read before the index changes.
* The revision is visible when `end` has run, and only then are watchers told.
* Sub revisions count the changes of the transaction; `bound` is the state between two of its operations.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyetcd.mvcc.change import Change, OnBulk, OnChange, Span
from pyetcd.mvcc.deletion import Deletions
from pyetcd.mvcc.index import KeyIndex
from pyetcd.mvcc.key_list import Block
from pyetcd.mvcc.reader import Reader
from pyetcd.mvcc.record import deleted_kv, first_record, next_record, tombstone_record
from pyetcd.mvcc.revision import SHIFT, TOMBSTONE, bucket_key
from pyetcd.mvcc.seams import Backend, LeaseBook
from pyetcd.proto.splice import AscendingVarint

AT_ONCE_KEYS = 384  # deletions done on the spot: about 2 ms


class Writer:
    """The only one who changes a store's keys."""

    def __init__(
        self,
        index: KeyIndex,
        reader: Reader,
        deletions: Deletions,
        backend: Backend,
        leases: LeaseBook,
        revision: int,
    ) -> None:
        self.revision = revision  # the last finished main revision
        self.on_change: OnChange | None = None
        self.on_bulk: OnBulk | None = None
        self.puts = 0
        self.deletes = 0
        self.put_bytes = 0
        self._sub = 0
        self._changes: list[Change] = []
        self._spans: list[Span] = []
        self._varint = AscendingVarint()
        self._index = index
        self._reader = reader
        self._cache = reader.cache
        self._deletions = deletions
        self._backend = backend
        self._append = backend.append
        self._leases = leases

    def go_on_from(self, before: Writer) -> None:
        """Tell the same listeners, and count on."""
        self.on_change, self.on_bulk = before.on_change, before.on_bulk
        self.puts, self.deletes, self.put_bytes = before.puts, before.deletes, before.put_bytes

    @property
    def bound(self) -> int:
        """What a read sees now: all that is finished, and the operations of the transaction under way."""
        return ((self.revision + 1) << SHIFT | self._sub << 1) - 1

    @property
    def seen_revision(self) -> int:
        """The revision a read or write inside the transaction reports."""
        return self.revision + 1 if self._sub else self.revision

    def put(self, key: bytes, value: bytes, lease: int) -> None:
        """Write `key`. The lease exists, or is 0 (3 us)."""
        if self._deletions.pending:
            self._deletions.settle_key(key)
        main = self.revision + 1
        number = main << SHIFT | self._sub << 1
        old = self._index.live.get(key)
        if old is None:
            record = first_record(key, self._varint(main), value, lease)
            old = 0
            old_lease = 0
        else:
            cache = self._cache
            before = cache.young.get(old) or self._reader.record(old)
            record = next_record(before, key, self._varint(main), value, lease)
            old_lease = self._leases.lease_of(key)
        self._index.put(key, number)
        self._append(bucket_key(number), record)
        self._cache.put(number, record)
        if old_lease != lease:
            if old_lease:
                self._leases.detach(old_lease, key)
            if lease:
                self._leases.attach(lease, key)
        self._sub += 1
        self.puts += 1
        self.put_bytes += len(key) + len(value)
        if self.on_change is not None:
            self._changes.append(Change(main, False, key, record, old))

    def delete(self, key: bytes) -> int:
        """Delete one key if it exists; how many were deleted."""
        self.deletes += 1
        if self._deletions.pending:
            self._deletions.settle_key(key)
        if key not in self._index.live:
            return 0
        self._delete_live(key)
        return 1

    def delete_range(self, start: bytes, end: bytes | None) -> int:
        """Delete the keys of [start, end); how many there were. Many are settled later."""
        self.deletes += 1
        keys = self._index.keys
        count = keys.count(start, end)
        if count > AT_ONCE_KEYS:
            first = self._next_tombstone()
            self._settle_later(self._index.cut(start, end, first), first)
        elif count:
            for key in keys.slice(start, end, count):
                self._delete_live(key)
        return count

    def delete_keys(self, keys: Sequence[bytes]) -> int:
        """Delete those of `keys` that exist, in key order, as the revocation of a lease does; how many
        there were.
        """
        self.deletes += len(keys)
        if self._deletions.pending:
            for key in keys:
                self._deletions.settle_key(key)
        live = self._index.live
        found = sorted(key for key in set(keys) if key in live)
        if len(found) > AT_ONCE_KEYS:
            first = self._next_tombstone()
            self._settle_later(self._index.cut_keys(found, first), first)
        else:
            for key in found:
                self._delete_live(key)
        return len(found)

    def _next_tombstone(self) -> int:
        return (self.revision + 1) << SHIFT | self._sub << 1 | TOMBSTONE

    def _delete_live(self, key: bytes) -> None:
        tombstone = self._next_tombstone()
        old = self._index.delete(key, tombstone)
        record = tombstone_record(key)
        self._append(bucket_key(tombstone), record)
        lease = self._leases.lease_of(key)
        if lease:
            self._leases.detach(lease, key)
        self._sub += 1
        if self.on_change is not None:
            main = self.revision + 1
            self._changes.append(Change(main, True, key, deleted_kv(record, main), old))

    def _settle_later(self, block: Block, first: int) -> None:
        self._deletions.add(block, first)
        self._sub += block.length
        self._spans.append(Span(block.first, block.last))

    def end(self) -> None:
        """Finish the transaction. Without a change there is no new revision."""
        if not self._sub:
            return
        self.revision += 1
        self._sub = 0
        if self._spans:
            spans, self._spans = self._spans, []
            changes, self._changes = self._changes, []
            if self.on_bulk is not None:
                self.on_bulk(self.revision, [*spans, *(Span(change.key, change.key) for change in changes)])
        elif self._changes:
            changes, self._changes = self._changes, []
            if self.on_change is not None:
                self.on_change(self.revision, changes)
