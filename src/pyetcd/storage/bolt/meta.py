"""The two meta pages: where the tree begins, how many pages there are, and which transaction wrote it.

After the page header: magic, version, page size, flags (4 bytes each), root page and sequence of the root
bucket, freelist page, high water mark, transaction id and an FNV-64a checksum of all that (8 bytes each).

bbolt zeroes the rest of the page whenever it writes one. We use that: behind the checksum we leave a
**seal**, so that at opening we know whether this very meta page is ours or Go's, and which state of the
checksum file belongs to it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyetcd._native import crc32c
from pyetcd.storage.bolt import page

MAGIC = 0xED0CDAED
VERSION = 2
NO_FREELIST = (
    0xFFFF_FFFF_FFFF_FFFF  # the freelist is not stored (etcd's way); it is found again by walking the tree
)
MIN_PAGE_SIZE = 1024
MAX_PAGE_SIZE = 1 << 24  # bbolt looks for a second meta page up to here

_fields = struct.Struct("<IIIIQQQQQ")
_checksum = struct.Struct("<Q")
_seal = struct.Struct("<8sQ")
_SEAL_MAGIC = b"pyetcdS1"
_META_AT = page.HEADER_SIZE
_SEAL_AT = _META_AT + _fields.size + _checksum.size
_SEAL_END = _SEAL_AT + _seal.size + 4
SIZE = _SEAL_END  # bytes of the page that mean something


@dataclass(frozen=True, slots=True)
class Meta:
    """`seal` ties the page to the checksum file; None: written by Go's bbolt, or by us without checksums."""

    page_size: int
    root: int
    sequence: int
    freelist: int
    high_water: int  # pages from here on have never been used; the size of the database in pages
    txid: int
    flags: int = 0
    seal: int | None = None


def fnv64a(data: bytes) -> int:
    """FNV-1a, 64 bits: 5 us for the 56 bytes of a meta page."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFF_FFFF_FFFF_FFFF
    return value


def encode(meta: Meta, page_id: int | None = None) -> bytes:
    """The whole meta page; its id is the parity of the transaction id unless given."""
    body = _fields.pack(
        MAGIC,
        VERSION,
        meta.page_size,
        meta.flags,
        meta.root,
        meta.sequence,
        meta.freelist,
        meta.high_water,
        meta.txid,
    )
    body += _checksum.pack(fnv64a(body))
    if meta.seal is not None:
        body += _seal.pack(_SEAL_MAGIC, meta.seal)
        body += struct.pack("<I", crc32c(body))
    head = page.header.pack(meta.txid % 2 if page_id is None else page_id, page.META, 0, 0)
    return (head + body).ljust(meta.page_size, b"\0")


def decode(data: bytes) -> Meta | str:
    """The meta page in `data` (at least `SIZE` bytes are wanted), or why it is none."""
    if len(data) < _SEAL_AT:
        return "the file is too short"
    magic, version, page_size, flags, root, sequence, freelist, high_water, txid = _fields.unpack_from(
        data, _META_AT
    )
    if magic != MAGIC:
        return "wrong magic number"
    if version != VERSION:
        return f"file format version {version}, only {VERSION} is known"
    (checksum,) = _checksum.unpack_from(data, _SEAL_AT - _checksum.size)
    if checksum != fnv64a(data[_META_AT : _SEAL_AT - _checksum.size]):
        return "checksum mismatch of the meta page"
    if not MIN_PAGE_SIZE <= page_size <= MAX_PAGE_SIZE or page_size & (page_size - 1):
        return f"impossible page size {page_size}"
    return Meta(page_size, root, sequence, freelist, high_water, txid, flags, _decode_seal(data))


def _decode_seal(data: bytes) -> int | None:
    if len(data) < _SEAL_END:
        return None
    magic, seal = _seal.unpack_from(data, _SEAL_AT)
    (check,) = struct.unpack_from("<I", data, _SEAL_END - 4)
    if magic != _SEAL_MAGIC or check != crc32c(data[_META_AT : _SEAL_END - 4]):
        return None
    assert isinstance(seal, int)
    return seal
