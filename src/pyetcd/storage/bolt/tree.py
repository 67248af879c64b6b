"""Reading one B+tree through the memory map: point lookups and ordered scans.

Branch pages are kept decoded in a bounded cache, leaf pages are copied from the map each time: it is the
page cache of the operating system and costs no memory of ours. What is copied is compared to its checksum
before anything is made of it, so bytes that changed on disk are never served, nor written into a new page
whose checksum would then be right. That the tree makes sense was proved by `walk` at opening, or we wrote
it; without checksums only what keeps a damaged page from doing harm is checked: depth is bounded and a page
must be branch or leaf.

Lookups are native (`find_many`), since ranges of many keys are little else; in Python they are only made once
more to say what is wrong with a page. Measured on revisions of 256 bytes: 1.4 us a random lookup in
`get_many` (6.5 us in Python on the same machine), 0.45 us an item in `scan`.
"""

from __future__ import annotations

import mmap
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd._native import crc32c, find_many
from pyetcd.storage.bolt import page
from pyetcd.storage.bolt.errors import CHANGED, DatabaseCorrupt

NO_LEAF: Final = "no leaf is found below this page"
MAX_DEPTH: Final = 64  # a tree of two children a branch and 2**64 pages is not deeper
BRANCH_CACHE_PAGES: Final = 2048  # decoded, about 8 KB each at 17-byte keys

_KIND_AT: Final = 8  # offset of the low byte of a page's type
_BRANCH_BYTE: Final = bytes((page.BRANCH,))
_header: Final = page.header.unpack_from


@dataclass(frozen=True, slots=True)
class Leaf:
    """The content of a bucket small enough to lie in its parent's leaf."""

    keys: Sequence[bytes]
    values: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of one state. `root` 0: all of it is in `inline`."""

    root: int
    sequence: int
    inline: Leaf | None = None


EMPTY_BUCKET: Final = Bucket(0, 0, Leaf((), ()))


class Pages:
    """A memory map of the file, with decoded branch pages: separators without the first, and children.
    `sums` has the CRC-32C of every page in use; None: they are not known."""

    __slots__ = ("_branches", "map", "page_size", "path", "sums")

    def __init__(self, path: str, page_size: int, view: mmap.mmap) -> None:
        self.path = path
        self.page_size = page_size
        self.map = view
        self.sums: array[int] | None = None
        self._branches: dict[int, tuple[list[bytes], Sequence[int]]] = {}

    def forget(self, page_id: int) -> None:
        """The page is about to be written anew."""
        self._branches.pop(page_id, None)

    def read(self, page_id: int) -> tuple[int, int, bytes, int]:
        """Kind, count, bytes and overflow of a branch or leaf page. DatabaseCorrupt when it has changed."""
        size = self.page_size
        offset = page_id * size
        data = self.map[offset : offset + size]
        self.prove(page_id, data)
        found, kind, count, overflow = _header(data)
        if found != page_id or kind not in (page.BRANCH, page.LEAF):
            raise self.corrupt(
                page_id, f"expected a branch or leaf page, found page {found} of type {kind:#x}"
            )
        if overflow:
            end = offset + (overflow + 1) * size
            if end > len(self.map):
                raise self.corrupt(page_id, "its overflow pages reach beyond the end of the file")
            rest = self.map[offset + size : end]
            for at in range(overflow):
                self.prove(page_id + 1 + at, rest[at * size : (at + 1) * size])
            data += rest
        return kind, count, data, overflow

    def prove(self, page_id: int, data: bytes) -> None:
        """DatabaseCorrupt unless `data` is what was written on this page."""
        if len(data) < self.page_size or page_id < 0:
            raise self.corrupt(page_id, "the page lies outside of the file")
        if self.sums is not None and self.sums[page_id] != crc32c(data):
            raise self.corrupt(page_id, CHANGED)

    def corrupt(self, page_id: int, reason: str) -> DatabaseCorrupt:
        return DatabaseCorrupt(self.path, page_id, self.page_size, reason)

    def _is_branch(self, page_id: int) -> bool:
        """Nothing but a glance: `read` will tell whether it is true."""
        at = page_id * self.page_size + _KIND_AT
        return self.map[at : at + 1] == _BRANCH_BYTE

    def branch(self, page_id: int) -> tuple[list[bytes], Sequence[int]] | None:
        """Separators (without the first) and children; None when the page is a leaf."""
        known = self._branches.get(page_id)
        if known is not None:
            return known
        if not self._is_branch(page_id):
            return None
        _, count, data, _ = self.read(page_id)
        if count == 0:
            raise self.corrupt(page_id, "a branch page without children")
        keys, children = page.decode_branch(data, count)
        branches = self._branches
        if len(branches) >= BRANCH_CACHE_PAGES:
            # The oldest goes; which one hardly matters, since branch pages are few and cheap to decode (10
            # us).
            del branches[next(iter(branches))]
        branches[page_id] = decoded = (keys[1:], children)
        return decoded

    def leaf(self, page_id: int) -> tuple[list[bytes], list[bytes], Sequence[int]]:
        """Keys, values, flags of a leaf page."""
        kind, count, data, _ = self.read(page_id)
        if kind != page.LEAF:
            raise self.corrupt(page_id, "expected a leaf page, found a branch page")
        return page.decode_leaf(data, count)

    # -- lookups ---------------------------------------------------------------------------------------------

    def get(self, bucket: Bucket, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        if bucket.inline is not None:
            return _inline_get(bucket.inline, key)
        return self._find(bucket.root, (key,))[0]

    def get_many(self, bucket: Bucket, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, None where there is none."""
        if bucket.inline is not None:
            return [_inline_get(bucket.inline, key) for key in keys]
        return self._find(bucket.root, keys)

    def _find(self, root: int, keys: Sequence[bytes]) -> list[bytes | None]:
        found = find_many(self.map, self.page_size, root, keys, self.sums)
        # None: some page is not what it should be. Looking once more, the slow way, tells which.
        return found if found is not None else [self._look_up(root, key) for key in keys]

    def _look_up(self, root: int, key: bytes) -> bytes | None:
        page_id = root
        for _ in range(MAX_DEPTH):
            branch = self.branch(page_id)
            if branch is None:
                keys, values, _ = self.leaf(page_id)
                return _inline_get(Leaf(keys, values), key)
            separators, children = branch
            page_id = children[bisect_right(separators, key)]
        raise self.corrupt(root, NO_LEAF)

    # -- scans -----------------------------------------------------------------------------------------------

    def scan(self, bucket: Bucket, start: bytes, end: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """Keys and values in [start, end) in order; `end` None: no upper bound; `limit` 0: all."""
        found: list[tuple[bytes, bytes]] = []
        for keys, values in self.leaves(bucket, start):
            first = bisect_left(keys, start) if keys and keys[0] < start else 0
            last = len(keys)
            done = end is not None and last > 0 and keys[-1] >= end
            if done:
                assert end is not None
                last = bisect_left(keys, end)
            found += zip(keys[first:last], values[first:last], strict=True)
            if limit and len(found) >= limit:
                del found[limit:]
                break
            if done:
                break
        return found

    def leaves(self, bucket: Bucket, start: bytes = b"") -> Iterator[tuple[Sequence[bytes], Sequence[bytes]]]:
        """Keys and values leaf by leaf, from the leaf on that would hold `start`."""
        if bucket.inline is not None:
            yield bucket.inline.keys, bucket.inline.values
            return
        path: list[tuple[Sequence[int], int]] = []  # children and the next one to visit
        page_id = bucket.root
        while True:
            branch = self.branch(page_id)
            if branch is not None:
                separators, children = branch
                at = bisect_right(separators, start)
                path.append((children, at + 1))
                if len(path) > MAX_DEPTH:
                    raise self.corrupt(bucket.root, NO_LEAF)
                page_id = children[at]
                continue
            keys, values, _ = self.leaf(page_id)
            yield keys, values
            start = b""  # every later page is taken from its beginning
            while path:
                children, at = path.pop()
                if at < len(children):
                    path.append((children, at + 1))
                    page_id = children[at]
                    break
            else:
                return

    def last_key(self, bucket: Bucket) -> bytes | None:
        """The greatest key of a bucket."""
        if bucket.inline is not None:
            return bucket.inline.keys[-1] if bucket.inline.keys else None
        page_id = bucket.root
        for _ in range(MAX_DEPTH):
            branch = self.branch(page_id)
            if branch is None:
                keys = self.leaf(page_id)[0]
                return keys[-1] if keys else None
            page_id = branch[1][-1]
        raise self.corrupt(bucket.root, NO_LEAF)


def _inline_get(leaf: Leaf, key: bytes) -> bytes | None:
    at = bisect_left(leaf.keys, key)
    if at < len(leaf.keys) and leaf.keys[at] == key:
        return leaf.values[at]
    return None
