"""A database copied into a new file without a free page: bucket by bucket in key order, full pages one after
the other, buckets within buckets and their sequences as well, which etcd has not and bbolt's files may have.

Memory is a page for each level of each tree on the way down, however large the database is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from pyetcd.storage.bolt import meta as metas
from pyetcd.storage.bolt import page
from pyetcd.storage.bolt.database import PAGE_SIZE
from pyetcd.storage.bolt.meta import Meta
from pyetcd.storage.files import Files
from pyetcd.storage.inspection import BadPage, Inspection

FREELIST_AT: Final = 2  # behind the meta pages, and empty
WRITE_BYTES: Final = 1 << 20
NESTED_MAX: Final = 100  # buckets within buckets

Encoded: TypeAlias = Callable[[int, int], bytes]
"""A page's bytes by its number and its overflow."""


class TooDeep(Exception):
    """Buckets are nested deeper than anybody means them to be."""


def pack(files: Files, source: Inspection, path: str, *, sync: bool) -> int:
    """Returns the size of the new file in bytes; it is durable unless `sync` is off. `path` must be new or
    empty. BadPage, TooDeep, OSError: there is no such file."""
    source.walk(_raised, lambda visit: None)  # so that nothing is met twice, and all keys ascend
    fd = files.open(path, create=True)
    try:
        packing = _Packing(files, fd, source)
        size = packing.run(sync=sync)
    except BaseException:
        files.unlink(path)
        raise
    finally:
        files.close(fd)
    if sync:
        files.fsync_dir(path.rpartition("/")[0] or ".")
    return size


def _raised(problem: BadPage) -> None:
    raise problem


class _Packing:
    """Pages are written in the order of their numbers."""

    def __init__(self, files: Files, fd: int, source: Inspection) -> None:
        self._files = files
        self._fd = fd
        self._source = source
        self._next = FREELIST_AT
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._offset = FREELIST_AT * PAGE_SIZE

    def run(self, *, sync: bool) -> int:
        self.write(lambda number, overflow: page.header.pack(number, page.FREELIST, 0, 0))
        root = self._tree(self._source.meta.root, 0).written()
        self._flush()
        if sync:
            self._files.fsync(self._fd)
        first = Meta(PAGE_SIZE, root, 0, FREELIST_AT, self._next, 0)
        self._files.pwritev(self._fd, [metas.encode(first), metas.encode(replace(first, txid=1))], 0)
        if sync:
            self._files.fsync(self._fd)
        return self._next * PAGE_SIZE

    def _tree(self, root: int, depth: int) -> _Tree:
        """All that is below a root of the source, written but for the last page of each level."""
        if depth > NESTED_MAX:
            raise TooDeep(f"buckets are nested deeper than {NESTED_MAX}")
        tree = _Tree(self)
        for key, value, flag in self._source.rows(root):
            if flag & page.BUCKET:
                below, sequence = page.bucket_header.unpack_from(value)
                if below:
                    value = self._tree(below, depth + 1).bucket(sequence)
            tree.add(key, value, flag)
        return tree

    def write(self, encoded: Encoded) -> int:
        """A page, whose bytes its number and how many more it takes are part of. Returns the number."""
        number = self._next
        overflow = -(-len(encoded(number, 0)) // PAGE_SIZE) - 1
        data = encoded(number, overflow).ljust((overflow + 1) * PAGE_SIZE, b"\0")
        self._next += overflow + 1
        self._unwritten.append(data)
        self._unwritten_bytes += len(data)
        if self._unwritten_bytes >= WRITE_BYTES:
            self._flush()
        return number

    def _flush(self) -> None:
        self._files.pwritev(self._fd, self._unwritten, self._offset)
        self._offset += self._unwritten_bytes
        self._unwritten, self._unwritten_bytes = [], 0


class _Level:
    """The page of one level that is being filled."""

    __slots__ = ("keys", "size", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[int] = []
        self.size = page.HEADER_SIZE

    def add(self, key: bytes, child: int) -> None:
        self.keys.append(key)
        self.values.append(child)
        self.size += page.ELEMENT_SIZE + len(key)

    def split(self) -> _Level:
        """All but the last, which stays: so no branch is left with a single child."""
        full = _Level()
        full.keys, full.values = self.keys[:-1], self.values[:-1]
        key, child = self.keys[-1], self.values[-1]
        self.keys, self.values, self.size = [], [], page.HEADER_SIZE
        self.add(key, child)
        return full


class _Tree:
    """One bucket's, from its first key to its last."""

    def __init__(self, packing: _Packing) -> None:
        self._packing = packing
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._flags: list[int] = []
        self._size = page.HEADER_SIZE
        self._branches: list[_Level] = []  # the lowest first

    def add(self, key: bytes, value: bytes, flag: int) -> None:
        size = page.ELEMENT_SIZE + len(key) + len(value)
        if self._keys and (self._size + size > PAGE_SIZE or len(self._keys) == page.MAX_COUNT):
            self._write_leaf()
        self._keys.append(key)
        self._values.append(value)
        self._flags.append(flag)
        self._size += size

    def bucket(self, sequence: int) -> bytes:
        """The value that stands for it in the tree above; a quarter of a page at most lies inline."""
        if not self._branches and not any(self._flags) and self._size <= PAGE_SIZE // 4:
            return page.bucket_header.pack(0, sequence) + self._encode_leaf(0, 0)
        return page.bucket_header.pack(self.written(), sequence)

    def written(self) -> int:
        """Write what is left. Returns the root page."""
        if not self._branches and not self._keys:
            return self._packing.write(self._encode_leaf)
        self._write_leaf()
        level = 0
        while level < len(self._branches) - 1 or len(self._branches[level].keys) > 1:
            self._write_branch(level, self._branches[level])
            level += 1
        return self._branches[level].values[0]

    def _encode_leaf(self, number: int, overflow: int) -> bytes:
        return page.encode_leaf(number, self._keys, self._values, self._flags, overflow)

    def _write_leaf(self) -> None:
        number = self._packing.write(self._encode_leaf)
        self._put(0, self._keys[0], number)
        self._keys, self._values, self._flags = [], [], []
        self._size = page.HEADER_SIZE

    def _write_branch(self, level: int, branch: _Level) -> None:
        number = self._packing.write(
            lambda number, overflow: page.encode_branch(number, branch.keys, branch.values, overflow)
        )
        self._put(level + 1, branch.keys[0], number)

    def _put(self, level: int, key: bytes, child: int) -> None:
        if level == len(self._branches):
            self._branches.append(_Level())
        branch = self._branches[level]
        if len(branch.keys) > 2 and branch.size + page.ELEMENT_SIZE + len(key) > PAGE_SIZE:
            self._write_branch(level, branch.split())
        branch.add(key, child)
