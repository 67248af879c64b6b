"""Deletions of many keys in one revision, without holding up what comes behind them.

Two hundred thousand deletions are half a second of work: history, tombstone records, leases. Later entries
of the log must not wait for that. So the keys leave the live order at once (whole chunks move, a
millisecond), the revision counts as written, and the rest is *settled* in slices in the background.

Rules that hold here:

* A single key that anybody wants to look up or write is settled first, alone.
* A reader at a revision before an unsettled deletion settles it first, slice by slice (it does the work
  instead of waiting for it). Reads at or after it need nothing: its keys are gone from the live order.
* Sub revisions are given in key order, as etcd does, whatever order the keys are settled in.
* The backend is held as long as anything is unsettled: no commit splits a revision.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator

from pyetcd.mvcc.index import KeyIndex
from pyetcd.mvcc.key_list import Block
from pyetcd.mvcc.record import tombstone_record
from pyetcd.mvcc.revision import SHIFT, bucket_key
from pyetcd.mvcc.seams import Backend, Background, LeaseBook
from pyetcd.storage import schema

SLICE_KEYS = 256  # about 1 ms


class PendingDeletion:
    """One block of deleted keys; those before `done` and those in `alone` are settled."""

    __slots__ = ("alone", "block", "done", "first")

    def __init__(self, block: Block, first: int) -> None:
        self.block = block
        self.first = first  # number of the first tombstone, marked
        self.done = 0
        self.alone: set[bytes] = set()

    @property
    def main(self) -> int:
        return self.first >> SHIFT

    def tombstone_of(self, key: bytes) -> int:
        """The tombstone `key` still has to get; 0 when it is none of ours or has it."""
        place = self.block.find(key)
        if place < self.done or key in self.alone:
            return 0
        return self.first + 2 * place


class Deletions:
    """All unsettled deletions, the oldest first."""

    def __init__(self, index: KeyIndex, backend: Backend, leases: LeaseBook, background: Background) -> None:
        self._background = background
        self._index = index
        self._backend = backend
        self._leases = leases
        self.pending: list[PendingDeletion] = []

    def add(self, block: Block, first: int) -> None:
        """The keys of `block` have just left the live order; their tombstones are `first`, `first + 2`, …"""
        self.pending.append(PendingDeletion(block, first))
        if len(self.pending) == 1:
            self._backend.hold()
            self._background(self._settle_all())

    def _settle_all(self) -> Generator[None, None, None]:
        while self.pending:
            self.settle_slice()
            yield

    def settle_key(self, key: bytes) -> None:
        """Make `live` and `history` tell the truth about `key`."""
        for pending in self.pending:
            tombstone = pending.tombstone_of(key)
            if tombstone:
                pending.alone.add(key)
                self._index.bury_one(key, tombstone)
                self._record(key, tombstone)
                return

    def _record(self, key: bytes, tombstone: int) -> None:
        self._backend.put(schema.KEY, bucket_key(tombstone), tombstone_record(key))
        lease = self._leases.lease_of(key)
        if lease:
            self._leases.detach(lease, key)

    def settle_slice(self) -> None:
        """Settle up to `SLICE_KEYS` keys of the oldest deletion."""
        pending = self.pending[0]
        block = pending.block
        at = bisect_right(block.offsets, pending.done) - 1
        inside = pending.done - block.offsets[at]
        keys = block.chunks[at][inside : inside + SLICE_KEYS]
        first = pending.first + 2 * pending.done
        tombstones = range(first, first + 2 * len(keys), 2)
        alone = pending.alone
        if alone.isdisjoint(keys):
            self._settle(keys, tombstones)
        else:
            for key, tombstone in zip(keys, tombstones, strict=True):
                if key not in alone:
                    self._settle([key], range(tombstone, tombstone + 2, 2))
        pending.done += len(keys)
        if pending.done == block.length:
            del self.pending[0]
            if not self.pending:
                self._backend.release()

    def _settle(self, keys: list[bytes], tombstones: range) -> None:
        self._index.bury_cut(keys, tombstones)
        record = self._record
        for key, tombstone in zip(keys, tombstones, strict=True):
            record(key, tombstone)

    def settle_upto(self, main: int) -> Generator[None, None, None]:
        """Settle all deletions of revisions up to `main`."""
        while self.pending and self.pending[0].main <= main:
            self.settle_slice()
            yield

    def settle_after(self, bound: int) -> Generator[None, None, None]:
        """Settle until a reader at `bound` sees the truth: every deletion after it."""
        while self.pending and self.pending[-1].first > bound:
            self.settle_slice()
            yield
