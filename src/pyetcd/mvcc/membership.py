"""Which keys came to life and died, in revision order: what turns a count of now into a count of then.

A count at an older revision is the count of now, minus the keys of the range born since, plus those that
died since; so paging at one old revision while others write costs O(changes since), not O(keys). Only the
last `KEEP` entries are kept; for older revisions `net_since` returns None and the range is walked. A
deletion of many keys is one entry here: its block of keys.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice

from pyetcd.mvcc.key_list import Block
from pyetcd.mvcc.revision import TOMBSTONE

KEEP = 65_536  # entries; scanning all takes about 5 ms
KEEP_BLOCKS = 64


class Membership:
    """Births and deaths since revision number `floor`."""

    __slots__ = ("_blocks", "_keys", "_revisions", "floor")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._revisions: list[int] = []
        self._keys: list[bytes] = []
        self._blocks: list[tuple[int, Block]] = []

    def add(self, revision: int, key: bytes) -> None:
        """A birth, or a death when `revision` is marked as a tombstone (0.15 us)."""
        self._revisions.append(revision)
        self._keys.append(key)
        if len(self._revisions) >= 2 * KEEP:
            self._raise_floor(self._revisions[KEEP - 1])

    def add_block(self, revision: int, block: Block) -> None:
        """The deaths of all keys of `block`, the first at `revision`."""
        self._blocks.append((revision, block))
        if len(self._blocks) > KEEP_BLOCKS:
            self._raise_floor(self._blocks[0][0])

    def _raise_floor(self, revision: int) -> None:
        self.floor = max(self.floor, revision)
        at = bisect_right(self._revisions, self.floor)
        del self._revisions[:at]
        del self._keys[:at]
        self._blocks = [(first, block) for first, block in self._blocks if first > self.floor]

    def forget(self, bound: int) -> None:
        """Nobody will ask for revisions before `bound` any more (they are compacted)."""
        if bound > self.floor:
            self._raise_floor(bound)

    def net_since(self, bound: int, start: bytes, end: bytes | None) -> int | None:
        """Births minus deaths in [start, end) after `bound`; None when that was too long ago to know.

        `bound` must not lie within a block: it is the end of a main revision, or a point of a transaction
        under way between two operations.
        """
        if bound < self.floor:
            return None
        net = 0
        at = bisect_right(self._revisions, bound)
        for revision, key in zip(
            islice(self._revisions, at, None), islice(self._keys, at, None), strict=True
        ):
            if key >= start and (end is None or key < end):
                net += -1 if revision & TOMBSTONE else 1
        for first, block in self._blocks:
            if first > bound:
                net -= block.count(start, end)
        return net
