"""Pages of a database file as bbolt's tools see them: found by what the first meta page says, valid or not,
and without a lock; nothing else is believed. What makes sense of whole databases is `inspection`.

The words of errors are those of bbolt's tools, which people search for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pyetcd.storage.bolt import meta as metas
from pyetcd.storage.bolt import page
from pyetcd.storage.files import Files

FIRST_BYTES: Final = 4096  # that must be there before a file is looked at
META_BYTES: Final = 1024  # read and written of a meta page: more than it holds, no more than a page
SMALLEST_PAGE: Final = page.HEADER_SIZE + 64
LARGEST_OFFSET: Final = (1 << 63) - 1
_MASK: Final = (1 << 64) - 1
_META: Final = struct.Struct("<IIIIQQQQQQ")
_META_END: Final = page.HEADER_SIZE + _META.size


class Unreadable(Exception):
    """There is no such page, or it cannot be what it says."""


@dataclass(slots=True)
class RawMeta:
    """Any meta page's fields. Sizes in bytes, the rest page numbers."""

    magic: int
    version: int
    page_size: int
    flags: int
    root: int
    sequence: int
    freelist: int
    high_water: int
    txid: int
    checksum: int

    @classmethod
    def of(cls, data: bytes | bytearray) -> RawMeta:
        """From the beginning of a meta page."""
        return cls(*_META.unpack_from(data, page.HEADER_SIZE))

    def put(self, data: bytearray) -> None:
        """Write it into the beginning of a meta page, with a checksum that fits. A seal, which ties the page
        to the checksums of other pages, holds no more and is taken away."""
        fields = (self.magic, self.version, self.page_size, self.flags, self.root, self.sequence)
        _META.pack_into(data, page.HEADER_SIZE, *fields, self.freelist, self.high_water, self.txid, 0)
        self.checksum = self.sum_of(data)
        data[_META_END - 8 : _META_END] = self.checksum.to_bytes(8, "little")
        unseal(data)

    @staticmethod
    def sum_of(data: bytes | bytearray) -> int:
        """The checksum that belongs to a page's fields."""
        return metas.fnv64a(bytes(data[page.HEADER_SIZE : _META_END - 8]))

    def problem(self, data: bytes | bytearray) -> str:
        """Why the page it was read from is not valid; empty: it is."""
        if self.magic != metas.MAGIC:
            return "invalid database"
        if self.version != metas.VERSION:
            return "version mismatch"
        return "" if self.checksum == self.sum_of(data) else "checksum error"


def unseal(data: bytearray) -> None:
    """Forget the checksums of pages that a meta page of ours is tied to; pages of Go's stay as they are."""
    found = metas.decode(bytes(data[: metas.SIZE]))
    if not isinstance(found, str) and found.seal is not None:
        data[_META_END : metas.SIZE] = bytes(metas.SIZE - _META_END)


class RawPages:
    """One open file. `close` it. OSError where the system refuses, Unreadable where the file does."""

    def __init__(self, files: Files, path: str, *, write: bool = False) -> None:
        self.path = path
        self._files = files
        self._fd = files.open(path, write=write)

    def close(self) -> None:
        self._files.close(self._fd)

    def sizes(self) -> tuple[int, int]:
        """Page size and high water mark, from the first meta page."""
        first = self._files.pread(self._fd, FIRST_BYTES, 0)
        if len(first) < FIRST_BYTES:
            raise Unreadable("unexpected EOF" if first else "EOF")
        found = RawMeta.of(first)
        if found.magic != metas.MAGIC:
            raise Unreadable("the Meta Page has wrong (unexpected) magic")
        if found.page_size < SMALLEST_PAGE:
            raise Unreadable(f"impossible page size {found.page_size}")
        return found.page_size, found.high_water

    def raw(self, page_id: int, page_size: int) -> bytearray:
        """The bytes of one page without what overflows."""
        return self._read(page_id * page_size & _MASK, page_size)

    def page(self, page_id: int) -> bytearray:
        """A page that calls itself so, overflow included."""
        try:
            page_size, high_water = self.sizes()
        except Unreadable as error:
            raise Unreadable(f"read Page size: {error}") from None
        data = self.raw(page_id, page_size)
        found, _, _, overflow = page.header.unpack_from(data)
        if found != page_id:
            raise Unreadable(f"error: invalid value due to unexpected Page id: {found} != {page_id}")
        if overflow >= (high_water - 3) & 0xFFFF_FFFF:  # two meta pages and the page itself
            raise Unreadable(
                f"error: invalid value, Page claims to have {overflow} overflow pages (>=hwm={high_water}). "
                "Interrupting to avoid risky OOM"
            )
        if overflow:
            self._check_end(page_id * page_size, (overflow + 1) * page_size)
            data = self._read(page_id * page_size, (overflow + 1) * page_size)
        return data

    def put(self, data: bytes | bytearray) -> None:
        """Write a page where it says that it belongs."""
        page_size, _ = self.sizes()
        page_id, _, _, overflow = page.header.unpack_from(data)
        expected = page_size * (overflow + 1)
        if len(data) != expected:
            raise Unreadable(f"WritePage: len(buf):{len(data)} != pageSize*(overflow+1):{expected}")
        self.write(data, page_id * page_size)

    def meta(self, number: int, page_size: int) -> bytearray:
        """The beginning of a meta page, of which nothing is believed."""
        return self._read(number * page_size, META_BYTES)

    def write(self, data: bytes | bytearray, offset: int) -> None:
        self._files.pwrite(self._fd, data, offset)

    def sync(self) -> None:
        self._files.fsync(self._fd)

    def _read(self, offset: int, length: int) -> bytearray:
        if offset > LARGEST_OFFSET:
            raise Unreadable(f"readat {self.path}: negative offset")
        self._check_end(offset, length)
        return bytearray(self._files.pread(self._fd, length, offset))

    def _check_end(self, offset: int, length: int) -> None:
        if offset + length > self._files.size(self._fd):
            raise Unreadable("EOF")
