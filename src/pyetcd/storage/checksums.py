"""`db.sum`, the sidecar beside the database: one CRC-32C a page, so that a page whose bytes changed on disk
is refused.

Layout, little endian. Two **slots** at offsets 0 and 512, written in turn, say which state of the database
the sums are of: magic (8), page size (4), reserved (4), transaction id (8), high water mark (8), seal (8),
CRC-32C of all that (4). From offset 4096 on, 4 bytes for each page, in the order of pages; sums of pages
not in use mean nothing.

Why a crash never makes a good database be refused, and a stale file never accuses a good page:

* A commit writes the sums of its new pages and its slot, syncs them, and only then writes the meta page. So
  when a meta page is durable, its sums are. The other slot, of the state before, is not touched.
* The pages a commit writes are not reachable from the state before it, so that state's sums stay as they
  are, whether or not the commit comes to its end. Sums are written in whole blocks; neighbours are
  rewritten with the bytes they had.
* The meta page carries the slot's seal behind its own checksum. Go's bbolt zeroes that place. So sums count
  only for the very meta page they were written for: after Go has written, or a file was copied or restored,
  they are gathered anew, and tied by our next commit, which then writes all of them.

What it cannot tell is which of the two files is damaged; the message names both.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from pyetcd._native import crc32c
from pyetcd.storage.bolt.meta import Meta
from pyetcd.storage.files import Files

_MAGIC = b"pyetcdCS"
_slot = struct.Struct("<8sIIQQQ")
_SLOT_SPACING = 512  # a sector each, so that a torn write of one leaves the other
_SUMS_AT = 4096
_BLOCK = 1024  # sums a block


@dataclass(frozen=True, slots=True)
class SumWrites:
    """What has to be in the file, and synced, before the meta page with this seal is written."""

    blocks: list[tuple[int, bytes]]  # offset, bytes
    slot: tuple[int, bytes]
    seal: int


class SumFile:
    """The sums of one database. All calls but `write` come from the loop."""

    def __init__(self, files: Files, path: str) -> None:
        self.path = path
        self._files = files
        self._fd: int | None = None
        self._sums = array("I")
        self._dirty: set[int] = set()

    def load(self, meta: Meta) -> Sequence[int] | None:
        """The sums written for exactly this meta page; None when there are none."""
        if meta.seal is None or not self._files.exists(self.path):
            return None
        data = self._files.read(self.path)
        end = _SUMS_AT + 4 * meta.high_water
        if len(data) < end or not any(self._slot_fits(data, at, meta) for at in (0, _SLOT_SPACING)):
            return None
        sums = array("I", data[_SUMS_AT:end])
        if sys.byteorder == "big":
            sums.byteswap()
        return sums

    @staticmethod
    def _slot_fits(data: bytes, at: int, meta: Meta) -> bool:
        body = data[at : at + _slot.size]
        (check,) = struct.unpack_from("<I", data, at + _slot.size)
        wanted = (_MAGIC, meta.page_size, 0, meta.txid, meta.high_water, meta.seal)
        return check == crc32c(body) and _slot.unpack(body) == wanted

    def start(self, sums: array[int], known: bool) -> None:
        """Begin with the sums found at opening; `known` when they came from the file and need not be
        written."""
        self._sums = sums
        self._extend(len(sums))
        self._dirty = set() if known else set(range(len(self._sums) // _BLOCK))

    def set(self, page_id: int, sums: Sequence[int]) -> None:
        """Note the sums of pages that are going to be written."""
        end = page_id + len(sums)
        if end > len(self._sums):
            self._extend(end)
        if len(sums) == 1:
            self._sums[page_id] = sums[0]
            self._dirty.add(page_id // _BLOCK)
        else:
            self._sums[page_id:end] = array("I", sums)
            self._dirty.update(range(page_id // _BLOCK, (end - 1) // _BLOCK + 1))

    def _extend(self, count: int) -> None:
        missing = -(-count // _BLOCK) * _BLOCK - len(self._sums)
        self._sums.frombytes(bytes(4 * missing))

    def commit(self, meta: Meta) -> SumWrites:
        """Take what has changed since the last commit. `meta` is the one to be sealed."""
        blocks: list[tuple[int, bytes]] = []
        check = crc32c(struct.pack("<QQQ", meta.txid, meta.root, meta.high_water))
        for block in sorted(self._dirty):
            values = self._sums[block * _BLOCK : (block + 1) * _BLOCK]
            if sys.byteorder == "big":
                values.byteswap()
            data = values.tobytes()
            check = crc32c(data, check)
            blocks.append((_SUMS_AT + block * _BLOCK * 4, data))
        self._dirty.clear()
        seal = check << 32 | crc32c(struct.pack("<Q", meta.txid), check ^ 0xFFFF_FFFF)
        body = _slot.pack(_MAGIC, meta.page_size, 0, meta.txid, meta.high_water, seal)
        at = meta.txid % 2 * _SLOT_SPACING
        return SumWrites(blocks, (at, body + struct.pack("<I", crc32c(body))), seal)

    def write(self, writes: SumWrites, sync: bool) -> None:
        """Write and sync; called from the thread that writes the pages."""
        files = self._files
        fd = self._fd
        created = False
        if fd is None:
            created = not files.exists(self.path)
            fd = self._fd = files.open(self.path, create=True)
        group: list[bytes] = []
        start = end = 0
        for offset, data in writes.blocks:
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
