"""Reading one B+tree through the memory map: point lookups and ordered scans.

Branch pages are kept decoded in a bounded cache, leaf pages are read where they lie: the map is the page
cache of the operating system and costs no memory of ours. Pages are proved by `walk` at opening or written
by us since, so nothing is checked here but what keeps a damaged page from doing harm: depth is bounded and
a page must be branch or leaf.

Measured on 1,000,000 revisions of 256 bytes (2.6 GHz virtual core): 1.9 us a random lookup in `get_many`,
0.8 us when the next key lies in the same leaf, 0.45 us an item in `scan`.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyetcd.storage.bolt import page
from pyetcd.storage.bolt.errors import DatabaseCorrupt

MAX_DEPTH = 64  # a tree of two children a branch and 2**64 pages is not deeper
BRANCH_CACHE_PAGES = 2048  # decoded, about 8 KB each at 17-byte keys

_SORT_FROM = 8  # keys of one call that are worth sorting first
_HEADER_SIZE = page.HEADER_SIZE
_header = page.header.unpack_from
_probe = struct.Struct(
    "<III"
).unpack_from  # of a leaf element behind its flags: pos, key length, value length


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


EMPTY_BUCKET = Bucket(0, 0, Leaf((), ()))


class Pages:
    """A memory map of the file, with decoded branch pages: separators without the first, and children."""

    __slots__ = ("_branches", "map", "page_size", "path")

    def __init__(self, path: str, page_size: int, view: mmap.mmap) -> None:
        self.path = path
        self.page_size = page_size
        self.map = view
        self._branches: dict[int, tuple[list[bytes], Sequence[int]]] = {}

    def forget(self, page_id: int) -> None:
        """The page is about to be written anew."""
        self._branches.pop(page_id, None)

    def read(self, page_id: int) -> tuple[int, int, bytes, int]:
        """Kind, count, bytes and overflow of a branch or leaf page."""
        size = self.page_size
        offset = page_id * size
        _, kind, count, overflow = self._header_at(page_id)
        data = self.map[offset : offset + (overflow + 1) * size]
        return kind, count, data, overflow

    def _header_at(self, page_id: int) -> tuple[int, int, int, int]:
        offset = page_id * self.page_size
        if not 0 <= offset <= len(self.map) - page.HEADER_SIZE:
            raise DatabaseCorrupt(self.path, page_id, self.page_size, "the page lies outside of the file")
        head: tuple[int, int, int, int] = _header(self.map, offset)
        if head[0] != page_id or head[1] not in (page.BRANCH, page.LEAF):
            reason = f"expected a branch or leaf page, found page {head[0]} of type {head[1]:#x}"
            raise DatabaseCorrupt(self.path, page_id, self.page_size, reason)
        return head

    def branch(self, page_id: int) -> tuple[list[bytes], Sequence[int]] | None:
        """Separators (without the first) and children; None when the page is a leaf."""
        known = self._branches.get(page_id)
        if known is not None:
            return known
        if self._header_at(page_id)[1] != page.BRANCH:
            return None
        _, count, data, _ = self.read(page_id)
        if count == 0:
            raise DatabaseCorrupt(self.path, page_id, self.page_size, "a branch page without children")
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
            raise DatabaseCorrupt(
                self.path, page_id, self.page_size, "expected a leaf page, found a branch page"
            )
        return page.decode_leaf(data, count)

    # -- lookups ---------------------------------------------------------------------------------------------

    def get(self, bucket: Bucket, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        if bucket.inline is not None:
            return _inline_get(bucket.inline, key)
        return self._get_ascending(bucket.root, (key,))[0]

    def get_many(self, bucket: Bucket, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, None where there is none."""
        if bucket.inline is not None:
            return [_inline_get(bucket.inline, key) for key in keys]
        if len(keys) < _SORT_FROM:
            return self._get_ascending(bucket.root, keys)
        # In order, neighbours share a leaf, and the caches of the processor are used well: half the time.
        ascending = sorted(keys)
        found = dict(zip(ascending, self._get_ascending(bucket.root, ascending), strict=True))
        return [found[key] for key in keys]

    def _get_ascending(self, root: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Any order is right, ascending is fast."""
        view = self.map
        probe = _probe
        values: list[bytes | None] = []
        low, high = b"\xff", b""  # the leaf at hand holds the keys in [low, high); high None: no upper bound
        unbounded = False
        elements = count = at = 0
        for key in keys:
            if key < low or (key >= high and not unbounded):
                offset, low, upper = self._descend(root, key)
                unbounded = upper is None
                high = upper or b""
                count = _header(view, offset)[2]
                elements = offset + _HEADER_SIZE
                at = -1
            # The element behind the last hit is tried first: a range asks for neighbours.
            first, last = 0, count
            middle = at + 1 if at + 1 < count else count >> 1
            value = None
            while first < last:
                element = elements + 16 * middle
                pos, key_size, value_size = probe(view, element + 4)
                start = element + pos
                end = start + key_size
                other = view[start:end]
                if other == key:
                    value = view[end : end + value_size]
                    at = middle
                    break
                if other < key:
                    first = middle + 1
                else:
                    last = middle
                middle = (first + last) >> 1
            values.append(value)
        return values

    def _descend(self, root: int, key: bytes) -> tuple[int, bytes, bytes | None]:
        """Offset of the leaf that would hold `key`, and the bounds of its keys: [low, high), high None: no
        bound."""
        branches = self._branches
        low = b""
        high: bytes | None = None
        page_id = root
        for _ in range(MAX_DEPTH):
            branch = branches.get(page_id) or self.branch(page_id)
            if branch is None:
                return page_id * self.page_size, low, high
            separators, children = branch
            at = bisect_right(separators, key)
            if at:
                low = separators[at - 1]
            if at < len(separators):
                high = separators[at]
            page_id = children[at]
        raise DatabaseCorrupt(self.path, root, self.page_size, "no leaf is found below this page")

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
                    raise DatabaseCorrupt(
                        self.path, bucket.root, self.page_size, "no leaf is found below this page"
                    )
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
        raise DatabaseCorrupt(self.path, bucket.root, self.page_size, "no leaf is found below this page")


def _inline_get(leaf: Leaf, key: bytes) -> bytes | None:
    at = bisect_left(leaf.keys, key)
    if at < len(leaf.keys) and leaf.keys[at] == key:
        return leaf.values[at]
    return None
