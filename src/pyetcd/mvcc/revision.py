"""Revisions as numbers, and as keys of the `key` bucket.

A revision is (main, sub): the transaction and the change within it. In memory it is one int, so that a live
key costs one int and comparing is one operation:

    main << 27  |  sub << 1  |  1 for a tombstone

up to main 2**33 such an int takes 32 bytes; beyond it only grows. Sub revisions end at 2**26 (67 million
changes in one transaction). A *bound* is a number of the same scale, used for "up to and including":
`bound_of(main)` covers all of `main`.

In the bucket a revision is 17 bytes, big-endian main, `_`, big-endian sub, with a `t` behind it for a
tombstone (etcd server/storage/mvcc/revision.go).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

SHIFT: Final = 27
SUB_MASK: Final = (1 << SHIFT) - 1
MAX_SUB: Final = SUB_MASK >> 1
TOMBSTONE: Final = 1

REVISION_BYTES: Final = 17
_BUCKET_KEY: Final = Struct(">QBQ")
_pack: Final = _BUCKET_KEY.pack
_unpack_from: Final = _BUCKET_KEY.unpack_from
_UNDERSCORE: Final = 0x5F


class MalformedRevision(ValueError):
    """A key of the `key` bucket is no revision."""


def revision_of(main: int, sub: int = 0) -> int:
    """The number of a put's revision."""
    return main << SHIFT | sub << 1


def main_of(revision: int) -> int:
    return revision >> SHIFT


def bound_of(main: int) -> int:
    """The highest number within main revision `main`."""
    return (main << SHIFT) | SUB_MASK


def whole_main(bound: int) -> int:
    """The last main revision that lies wholly at or before `bound`: what a reader at this bound needs
    uncompacted.
    """
    return ((bound + 1) >> SHIFT) - 1


def bucket_key(revision: int) -> bytes:
    """The key of this revision in the `key` bucket (0.3 us)."""
    key = _pack(revision >> SHIFT, _UNDERSCORE, (revision & SUB_MASK) >> 1)
    return key + b"t" if revision & TOMBSTONE else key


def bucket_keys(revisions: list[int]) -> list[bytes]:
    """The keys of many puts (none may be a tombstone), 0.2 us each."""
    return [_pack(r >> SHIFT, _UNDERSCORE, (r & SUB_MASK) >> 1) for r in revisions]


def parse_bucket_key(key: bytes) -> int:
    """The number of the revision a bucket key stands for. MalformedRevision when it is none."""
    length = len(key)
    if length == REVISION_BYTES + 1 and key[REVISION_BYTES] == 0x74:
        mark = TOMBSTONE
    elif length == REVISION_BYTES:
        mark = 0
    else:
        raise MalformedRevision(f"a revision key of {length} bytes: {key.hex()}")
    main, separator, sub = _unpack_from(key)
    if separator != _UNDERSCORE:
        raise MalformedRevision(f"no separator in revision key {key.hex()}")
    if main >> 63 or sub > MAX_SUB:
        raise MalformedRevision(f"revision out of range: main={main} sub={sub}")
    return int(main << SHIFT | sub << 1 | mark)
