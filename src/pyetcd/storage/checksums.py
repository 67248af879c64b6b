"""`db.sum`, the sidecar beside the database: one CRC-32C a page, so that a page whose bytes changed on disk
is refused.

Layout, little endian. Two **slots** at offsets 0 and 512, written in turn, say which state of the database
the sums are of: magic (8), page size (4), reserved (4), transaction id (8), high water mark (8), seal (8),
CRC-32C of all that (4). From offset 4096 on come the **sums** in the order of pages, 4 bytes each, 127 of
them a sector, closed by the CRC-32C of these, begun with the sector's number. Sums of pages not in use mean
nothing.

Why a crash never makes a good database be refused, and neither a stale nor a damaged file accuses a good
page:

* A commit writes the sums of its new pages and its slot, syncs them, and only then writes the meta page. So
  when a meta page is durable, its sums are. The other slot, of the state before, is not touched.
* The pages a commit writes are not reachable from the state before it, so that state's sums stay as they
  are, whether or not the commit comes to its end. Sums are written in whole sectors, which disks do not
  tear; neighbours are rewritten with the bytes they had.
* The meta page carries the slot's seal behind its own checksum. Go's bbolt zeroes that place. So sums count
  only for the very meta page they were written for: after Go has written, or a file was copied or restored,
  they are gathered anew, and tied by our next commit, which then writes all of them.
* A sidecar that is damaged itself counts as none: that is logged, and it is written anew as well.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd import logs
from pyetcd._native import crc32c
from pyetcd.storage.bolt.meta import Meta
from pyetcd.storage.files import Files, named

_MAGIC: Final = b"pyetcdC2"
_slot: Final = struct.Struct("<8sIIQQQ")
_check: Final = struct.Struct("<I")
_SECTOR: Final = 512
_SUMS_AT: Final = 4096
_PER_SECTOR: Final = _SECTOR // 4 - 1

_log = logs.get("storage")


@dataclass(frozen=True, slots=True)
class SumWrites:
    """What has to be in the file, and synced, before the meta page with this seal is written."""

    sectors: list[tuple[int, bytes]]  # offset, bytes
    slot: tuple[int, bytes]
    seal: int


class SumFile:
    """The sums of one database. All calls but `write` come from the loop."""

    def __init__(self, files: Files, path: str) -> None:
        self.path = path
        self.sums: array[int] = array("I")  # by page; grows, and stays the same object from `start` on
        self._files = files
        self._fd: int | None = None
        self._dirty: set[int] = set()
        self._sectors = 0  # how many there are in the file

    def load(self, meta: Meta) -> array[int] | None:
        """The sums written for exactly this meta page; None when there are none."""
        if meta.seal is None or not self._files.exists(self.path):
            return None
        data = self._files.read(self.path)
        found = self._read(data, meta)
        if isinstance(found, str):
            _log.warn(
                "checksums cannot be used; gathered anew from the database as it is",
                {"path": self.path, "error": found},
            )
            return None
        return found

    def _read(self, data: bytes, meta: Meta) -> array[int] | str:
        if not any(_slot_fits(data, at, meta) for at in (0, _SECTOR)):
            return "not written for this state of the database"
        count = _sectors_of(meta.high_water)
        if len(data) < _SUMS_AT + count * _SECTOR:
            return f"the file ends at byte {len(data)}"
        parts: list[bytes] = []
        for number in range(count):
            at = _SUMS_AT + number * _SECTOR
            body = data[at : at + _SECTOR - _check.size]
            if _check.unpack_from(data, at + len(body))[0] != crc32c(body, number):
                return f"checksum mismatch at offset {at}"
            parts.append(body)
        sums = array("I", b"".join(parts))
        if sys.byteorder == "big":
            sums.byteswap()
        del sums[meta.high_water :]
        return sums

    def start(self, sums: array[int], known: bool) -> None:
        """Begin with the sums found at opening; `known` when they came from the file and need not be
        written."""
        self.sums = sums
        self._sectors = _sectors_of(len(sums)) if known else 0
        self._extend(len(sums))

    def set(self, page_id: int, sums: Sequence[int]) -> None:
        """Note the sums of pages that are going to be written."""
        end = page_id + len(sums)
        if end > len(self.sums):
            self._extend(end)
        if len(sums) == 1:
            self.sums[page_id] = sums[0]
            self._dirty.add(page_id // _PER_SECTOR)
        else:
            self.sums[page_id:end] = array("I", sums)
            self._dirty.update(range(page_id // _PER_SECTOR, (end - 1) // _PER_SECTOR + 1))

    def _extend(self, count: int) -> None:
        """By at least a page of sums at a time."""
        missing = _sectors_of(count) * _PER_SECTOR - len(self.sums)
        self.sums.frombytes(bytes(4 * max(missing, 0)))

    def commit(self, meta: Meta) -> SumWrites:
        """Take what has changed since the last commit. `meta` is the one to be sealed."""
        count = _sectors_of(meta.high_water)
        self._extend(meta.high_water)
        self._dirty.update(range(self._sectors, count))  # every sector up to the high water mark is there
        self._sectors = max(self._sectors, count)
        sectors: list[tuple[int, bytes]] = []
        check = crc32c(struct.pack("<QQQ", meta.txid, meta.root, meta.high_water))
        for number in sorted(self._dirty):
            values = self.sums[number * _PER_SECTOR : (number + 1) * _PER_SECTOR]
            if sys.byteorder == "big":
                values.byteswap()
            body = values.tobytes()
            own = crc32c(body, number)
            check = crc32c(_check.pack(own), check)
            sectors.append((_SUMS_AT + number * _SECTOR, body + _check.pack(own)))
        self._dirty.clear()
        seal = check << 32 | crc32c(struct.pack("<Q", meta.txid), check ^ 0xFFFF_FFFF)
        body = _slot.pack(_MAGIC, meta.page_size, 0, meta.txid, meta.high_water, seal)
        at = meta.txid % 2 * _SECTOR
        return SumWrites(sectors, (at, body + _check.pack(crc32c(body))), seal)

    def write(self, writes: SumWrites, sync: bool) -> None:
        """Write and sync; called from the thread that writes the pages."""
        try:
            self._write(writes, sync)
        except OSError as error:
            raise named(error, self.path) from None

    def _write(self, writes: SumWrites, sync: bool) -> None:
        files = self._files
        fd = self._fd
        created = False
        if fd is None:
            created = not files.exists(self.path)
            fd = self._fd = files.open(self.path, create=True)
        group: list[bytes] = []
        start = end = 0
        for offset, data in writes.sectors:
            if offset != end and group:
                files.pwritev(fd, group, start)
                group = []
            if not group:
                start = offset
            group.append(data)
            end = offset + len(data)
        if group:
            files.pwritev(fd, group, start)
        files.pwrite(fd, writes.slot[1], writes.slot[0])
        if sync:
            files.fdatasync(fd)
            if created:
                files.fsync_dir(self.path.rpartition("/")[0] or ".")

    def close(self) -> None:
        if self._fd is not None:
            self._files.close(self._fd)
            self._fd = None


def _sectors_of(pages: int) -> int:
    return -(-pages // _PER_SECTOR)


def _slot_fits(data: bytes, at: int, meta: Meta) -> bool:
    body = data[at : at + _slot.size]
    if len(data) < at + _slot.size + _check.size:
        return False
    wanted = (_MAGIC, meta.page_size, 0, meta.txid, meta.high_water, meta.seal)
    return _check.unpack_from(data, at + _slot.size)[0] == crc32c(body) and _slot.unpack(body) == wanted
