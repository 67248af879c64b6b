"""Looking at a database file page by page, for tools: damage is reported and passed over, never raised.

The engine (`bolt`) refuses a database at the first thing that is wrong, as it must. Who wants to know what is
still good asks here: both meta pages, any page by its number, and a walk over everything the newer meta page
reaches that goes on behind a damaged page. The file is opened for reading under a shared lock, which a member
that runs does not give; it is read with `pread`, so a file that shrinks meanwhile kills nobody.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd._native import crc32c
from pyetcd.storage.bolt import meta as metas
from pyetcd.storage.bolt import page
from pyetcd.storage.bolt.errors import CHANGED, DatabaseLocked, NotADatabase
from pyetcd.storage.bolt.meta import NO_FREELIST, Meta
from pyetcd.storage.checksums import SumFile
from pyetcd.storage.files import Files

KINDS: Final = {page.BRANCH: "branch", page.LEAF: "leaf", page.META: "meta", page.FREELIST: "freelist"}
FREE: Final = "free"
COUNT_IN_FIRST: Final = 0xFFFF  # a freelist of so many pages or more says how many in its first place
NUMBER_BYTES: Final = 8


class BadPage(Exception):
    """A page that cannot be what it should be."""

    def __init__(self, page_id: int, reason: str) -> None:
        super().__init__(f"page {page_id}: {reason}")
        self.page = page_id
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PageView:
    """A page as it stands in the file, overflow included."""

    id: int
    kind: int
    count: int
    overflow: int
    data: bytes

    @property
    def kind_name(self) -> str:
        return KINDS.get(self.kind, f"unknown<{self.kind:02x}>")

    @property
    def used_bytes(self) -> int:
        """Header, elements, keys and values."""
        if self.kind == page.LEAF:
            sizes = page.leaf_elements(self.count).unpack_from(self.data, page.HEADER_SIZE)
            content: int = sum(sizes[2::4]) + sum(sizes[3::4])
        elif self.kind == page.BRANCH:
            content = sum(page.branch_elements(self.count).unpack_from(self.data, page.HEADER_SIZE)[1::3])
        else:
            return len(self.data)
        return page.HEADER_SIZE + page.ELEMENT_SIZE * self.count + content


@dataclass(frozen=True, slots=True)
class Visit:
    """A page met on a walk: `bucket` are the names on the way to it, `depth` counts from its root, 1."""

    view: PageView
    bucket: tuple[bytes, ...]
    depth: int
    keys: Sequence[bytes]
    values: Sequence[bytes]  # of leaves
    flags: Sequence[int]  # of leaves: 1 where the value is a bucket


@dataclass(slots=True)
class Walked:
    """What a walk found. `kinds` has one byte a page: 0 where nothing refers to it, else its kind."""

    kinds: bytearray
    roots: dict[tuple[bytes, ...], int]  # 0: the bucket lies inline
    free: frozenset[int]  # as the stored freelist says
    has_freelist: bool

    @property
    def used_count(self) -> int:
        return len(self.kinds) - self.kinds.count(0)


class Inspection:
    """One open file. `close` it."""

    def __init__(self, files: Files, path: str, fd: int) -> None:
        self.path = path
        self._files = files
        self._fd = fd
        self.file_size = files.size(fd)
        self.metas: tuple[Meta | str, Meta | str] = _both_metas(files, fd, self.file_size)
        valid = [each for each in self.metas if not isinstance(each, str)]
        if not valid:
            raise NotADatabase(path, str(self.metas[0]))
        self.meta = max(valid, key=lambda each: each.txid)
        self.page_size = self.meta.page_size
        self.sums: array[int] | None = SumFile(files, path + ".sum").load(self.meta)

    @classmethod
    def open(cls, files: Files, path: str) -> Inspection:
        """NotADatabase, DatabaseLocked, OSError."""
        fd = files.open(path)
        try:
            if not files.flock(fd, shared=True):
                raise DatabaseLocked(path)
            return cls(files, path, fd)
        except BaseException:
            files.close(fd)
            raise

    def close(self) -> None:
        self._files.funlock(self._fd)
        self._files.close(self._fd)

    def raw(self, page_id: int) -> bytes:
        """The bytes of one page without what overflows; fewer at the end of the file."""
        return self._files.pread(self._fd, self.page_size, page_id * self.page_size)

    def page(self, page_id: int) -> PageView:
        """BadPage where there is none, or it claims what cannot be."""
        if not 0 <= page_id < self.meta.high_water:
            raise BadPage(page_id, f"lies outside of the {self.meta.high_water} pages of the database")
        data = self.raw(page_id)
        if len(data) < self.page_size:
            raise BadPage(page_id, f"the file ends at byte {self.file_size}")
        found, kind, count, overflow = page.header.unpack_from(data)
        if found != page_id:
            raise BadPage(page_id, f"says that it is page {found} (of type {kind:#x})")
        if overflow and kind in (page.BRANCH, page.LEAF, page.FREELIST):
            if page_id + overflow >= self.meta.high_water:
                raise BadPage(page_id, f"its {overflow} overflow pages reach beyond the end of the database")
            length = (overflow + 1) * self.page_size
            data = self._files.pread(self._fd, length, page_id * self.page_size)
            if len(data) < length:
                raise BadPage(page_id, f"the file ends at byte {self.file_size}, amid its overflow pages")
        return PageView(page_id, kind, count, overflow, data)

    def freelist(self, page_id: int) -> list[int]:
        """The pages that a freelist page calls free. BadPage where it is none."""
        view = self.page(page_id)
        if view.kind != page.FREELIST:
            raise BadPage(page_id, f"a freelist should be here, not a page of type {view.kind:#x}")
        return freelist_of(view)

    def rows(self, root: int) -> Iterator[tuple[bytes, bytes, int]]:
        """Keys, values and flags of one tree, in order, from a database that a walk has found to be sound (in
        others it may have no end)."""
        pending = [root]
        while pending:
            view = self.page(pending.pop())
            if view.kind == page.BRANCH:
                pending += reversed(branch_of(view)[1])
            else:
                yield from zip(*leaf_of(view), strict=True)

    def walk(
        self,
        on_problem: Callable[[BadPage], None],
        on_page: Callable[[Visit], None],
        start: int | None = None,
    ) -> Walked:
        """Visit everything the meta page reaches, or all that the page `start` does. What lies below a page
        that is bad is not seen."""
        return _Walk(self, on_problem, on_page).run(start)


class _Walk:
    def __init__(
        self, inspected: Inspection, on_problem: Callable[[BadPage], None], on_page: Callable[[Visit], None]
    ) -> None:
        self._from = inspected
        self._on_problem = on_problem
        self._on_page = on_page
        self._kinds = bytearray(inspected.meta.high_water)
        self._kinds[0:2] = bytes((page.META, page.META))
        self._roots: dict[tuple[bytes, ...], int] = {}

    def run(self, start: int | None) -> Walked:
        meta = self._from.meta
        trees: list[tuple[tuple[bytes, ...], int]] = [((), meta.root) if start is None else ((b"",), start)]
        while trees:
            bucket, root = trees.pop()
            trees += self._tree(bucket, root)
        free: list[int] = []
        if meta.freelist != NO_FREELIST:
            free = self._freelist(meta.freelist)
        return Walked(self._kinds, self._roots, frozenset(free), meta.freelist != NO_FREELIST)

    def _tree(self, bucket: tuple[bytes, ...], root: int) -> list[tuple[tuple[bytes, ...], int]]:
        """One tree; returns the buckets in it, with their roots."""
        nested: list[tuple[tuple[bytes, ...], int]] = []
        pending: list[tuple[int, int, bytes, bytes | None]] = [(root, 1, b"", None)]
        while pending:
            page_id, depth, low, high = pending.pop()
            try:
                view = self._take(page_id)
                if view.kind == page.BRANCH:
                    keys, children = branch_of(view)
                    check_order(view.id, keys, low, high)
                    self._on_page(Visit(view, bucket, depth, keys, (), ()))
                    bounds: list[bytes | None] = [*keys[1:], high]
                    below = list(zip(children, keys, bounds, strict=True))
                    pending += [(child, depth + 1, key, bound) for child, key, bound in reversed(below)]
                else:
                    keys, values, flags = leaf_of(view)
                    check_order(view.id, keys, low, high)
                    self._on_page(Visit(view, bucket, depth, keys, values, flags))
                    for key, value, flag in zip(keys, values, flags, strict=True):
                        if flag & page.BUCKET:
                            self._try_bucket(view, (*bucket, key), value, nested)
                        elif not bucket:
                            raise BadPage(view.id, f"{key!r} in the tree of buckets is no bucket")
            except BadPage as problem:
                self._on_problem(problem)
        return nested

    def _try_bucket(
        self,
        above: PageView,
        name: tuple[bytes, ...],
        value: bytes,
        nested: list[tuple[tuple[bytes, ...], int]],
    ) -> None:
        """A bad one keeps nobody from those beside it."""
        try:
            self._bucket(above, name, value, nested)
        except BadPage as problem:
            self._on_problem(problem)

    def _bucket(
        self,
        above: PageView,
        name: tuple[bytes, ...],
        value: bytes,
        nested: list[tuple[tuple[bytes, ...], int]],
    ) -> None:
        if len(value) < page.bucket_header.size:
            raise BadPage(above.id, f"the header of bucket {name[-1]!r} is cut short")
        root, _ = page.bucket_header.unpack_from(value)
        self._roots[name] = root
        if root:
            nested.append((name, root))
            return
        view = inline_page(above.id, value)
        keys, values, flags = leaf_of(view)
        check_order(above.id, keys, b"", None)
        self._on_page(Visit(view, name, 1, keys, values, flags))

    def _take(self, page_id: int) -> PageView:
        """A branch or leaf page met for the first time."""
        if page_id < 2:
            raise BadPage(page_id, "a meta page is referred to as if it held keys")
        view = self._from.page(page_id)
        if any(self._kinds[page_id : page_id + view.overflow + 1]):
            raise BadPage(page_id, "is referred to twice")
        self._kinds[page_id : page_id + view.overflow + 1] = bytes((view.kind & 0xFF or 0xFF,)) * (
            view.overflow + 1
        )
        self._prove(view)
        if view.kind not in (page.BRANCH, page.LEAF):
            raise BadPage(page_id, f"a branch or leaf should be here, not a page of type {view.kind:#x}")
        return view

    def _prove(self, view: PageView) -> None:
        sums, size = self._from.sums, self._from.page_size
        if sums is None:
            return
        for at in range(view.overflow + 1):
            if crc32c(view.data[at * size : (at + 1) * size]) != sums[view.id + at]:
                raise BadPage(view.id + at, CHANGED)

    def _freelist(self, page_id: int) -> list[int]:
        try:
            free = self._from.freelist(page_id)
            overflow = self._from.page(page_id).overflow
        except BadPage as problem:
            self._on_problem(problem)
            return []
        for at in range(page_id, page_id + overflow + 1):
            if self._kinds[at]:
                self._on_problem(BadPage(at, "is both in use and part of the freelist"))
            self._kinds[at] = page.FREELIST
        return free


def _both_metas(files: Files, fd: int, file_size: int) -> tuple[Meta | str, Meta | str]:
    """The meta pages, or why each is none. Where the second lies is known only from the first, or by
    trying."""
    first = metas.decode(files.pread(fd, metas.SIZE, 0))
    if not isinstance(first, str):
        second = metas.decode(files.pread(fd, metas.SIZE, first.page_size))
        return first, second
    for size in (1 << power for power in range(10, 25)):
        if size >= file_size:
            break
        found = metas.decode(files.pread(fd, metas.SIZE, size))
        if not isinstance(found, str) and found.page_size == size:
            return first, found
    return first, first


def leaf_of(view: PageView) -> tuple[list[bytes], list[bytes], Sequence[int]]:
    """Keys, values and flags of a leaf. BadPage where they cannot lie on it."""
    if page.HEADER_SIZE + page.ELEMENT_SIZE * view.count > len(view.data):
        raise BadPage(view.id, f"{view.count} elements do not fit on it")
    keys, values, flags = page.decode_leaf(view.data, view.count)
    sizes = page.leaf_elements(view.count).unpack_from(view.data, page.HEADER_SIZE)
    key_sizes = list(map(len, keys))
    if key_sizes != list(sizes[2::4]) or list(map(len, values)) != list(sizes[3::4]) or 0 in key_sizes:
        raise BadPage(view.id, "a key or value reaches beyond it, or a key is empty")
    return keys, values, flags


def branch_of(view: PageView) -> tuple[list[bytes], Sequence[int]]:
    """Separators and children of a branch. BadPage where they cannot lie on it."""
    if page.HEADER_SIZE + page.ELEMENT_SIZE * view.count > len(view.data):
        raise BadPage(view.id, f"{view.count} elements do not fit on it")
    if not view.count:
        raise BadPage(view.id, "a branch without children")
    keys, children = page.decode_branch(view.data, view.count)
    sizes = page.branch_elements(view.count).unpack_from(view.data, page.HEADER_SIZE)[1::3]
    if list(map(len, keys)) != list(sizes) or 0 in sizes:
        raise BadPage(view.id, "a key reaches beyond it or is empty")
    return keys, children


def freelist_of(view: PageView) -> list[int]:
    """The numbers on a freelist. BadPage where they cannot lie on it."""
    at, count = page.HEADER_SIZE, view.count
    if count == COUNT_IN_FIRST:
        count = int.from_bytes(view.data[at : at + NUMBER_BYTES], "little")
        at += NUMBER_BYTES
    if at + NUMBER_BYTES * count > len(view.data):
        raise BadPage(view.id, f"{count} page numbers do not fit on the freelist")
    numbers = array("Q", view.data[at : at + NUMBER_BYTES * count])
    return numbers.tolist()


def inline_page(parent: int, value: bytes) -> PageView:
    """The page that a bucket's value holds behind its header. BadPage, of the parent, where it is none."""
    content = value[page.bucket_header.size :]
    if len(content) < page.HEADER_SIZE:
        raise BadPage(parent, "the page of an inline bucket is cut short")
    _, kind, count, _ = page.header.unpack_from(content)
    if kind != page.LEAF:
        raise BadPage(parent, "the page of an inline bucket is no leaf")
    return PageView(0, kind, count, 0, content)


def check_order(page_id: int, keys: Sequence[bytes], low: bytes, high: bytes | None) -> None:
    """BadPage unless the keys ascend within the range that the branch above gives."""
    if not keys:
        return
    if keys[0] < low or (high is not None and keys[-1] >= high):
        raise BadPage(page_id, "a key lies outside of the range that the branch above gives")
    if any(map(bytes.__ge__, keys, keys[1:])):
        raise BadPage(page_id, "the keys are not in ascending order")
