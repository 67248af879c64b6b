"""Branch and leaf pages: from bytes to lists and back.

Layout, little endian. Header, 16 bytes: page id (8), flags (2), count (2), overflow (4, how many pages
follow that belong to this one). Then `count` elements of 16 bytes, then keys and values. A leaf element is
flags, pos, key length, value length; a branch element is pos, key length, child page (8). `pos` counts from
the start of its own element.

Hot code: whole pages are packed and unpacked with one `struct` call and C-level loops (`map`, `accumulate`,
slice assignment). Measured: encoding costs 0.3 us an item, decoding 0.35 us; a loop of one `struct` call
per item cost 1 us.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add
from typing import Final

BRANCH: Final = 0x01
LEAF: Final = 0x02
META: Final = 0x04
FREELIST: Final = 0x10

BUCKET: Final = 0x01  # flag of a leaf element whose value is a bucket
HEADER_SIZE: Final = 16
ELEMENT_SIZE: Final = 16
MAX_COUNT: Final = 0xFFFF - 1  # bbolt refuses to write more elements on a page

MAX_KEY_SIZE: Final = 32768
MAX_VALUE_SIZE: Final = (1 << 31) - 2

header: Final = struct.Struct("<QHHI")
bucket_header: Final = struct.Struct("<QQ")  # root page (0: inline), sequence

Buffer = bytes | memoryview


@lru_cache(maxsize=512)
def leaf_elements(count: int) -> struct.Struct:
    """All elements of a leaf page at once: flags, pos, key length, value length, flags, …"""
    return struct.Struct(f"<{4 * count}I")


@lru_cache(maxsize=512)
def branch_elements(count: int) -> struct.Struct:
    """All elements of a branch page at once: pos, key length, child, pos, …"""
    return struct.Struct("<" + "IIQ" * count)


def decode_leaf(page: bytes, count: int) -> tuple[list[bytes], list[bytes], Sequence[int]]:
    """Keys, values and flags of a leaf page, given with its overflow pages."""
    ints = leaf_elements(count).unpack_from(page, HEADER_SIZE)
    keys: list[bytes] = []
    values: list[bytes] = []
    elements = range(HEADER_SIZE, HEADER_SIZE + ELEMENT_SIZE * count, ELEMENT_SIZE)
    for element, pos, key_size, value_size in zip(elements, ints[1::4], ints[2::4], ints[3::4], strict=True):
        start = element + pos
        end = start + key_size
        keys.append(page[start:end])
        values.append(page[end : end + value_size])
    return keys, values, ints[0::4]


def decode_branch(page: bytes, count: int) -> tuple[list[bytes], Sequence[int]]:
    """Separator keys and child pages of a branch page."""
    ints = branch_elements(count).unpack_from(page, HEADER_SIZE)
    elements = range(HEADER_SIZE, HEADER_SIZE + ELEMENT_SIZE * count, ELEMENT_SIZE)
    keys = [
        page[element + pos : element + pos + size]
        for element, pos, size in zip(elements, ints[0::3], ints[1::3], strict=True)
    ]
    return keys, ints[2::3]


def encode_leaf(
    page_id: int, keys: Sequence[bytes], values: Sequence[bytes], flags: Sequence[int] | None, overflow: int
) -> bytes:
    """A leaf page, not yet padded to whole pages. `flags` None: all 0."""
    count = len(keys)
    key_sizes = list(map(len, keys))
    value_sizes = list(map(len, values))
    starts = accumulate(map(add, key_sizes, value_sizes), initial=ELEMENT_SIZE * count)
    ints = [0] * (4 * count)
    if flags is not None:
        ints[0::4] = flags
    ints[1::4] = map(add, starts, range(0, -ELEMENT_SIZE * count, -ELEMENT_SIZE))
    ints[2::4] = key_sizes
    ints[3::4] = value_sizes
    parts: list[bytes] = [b""] * (2 * count + 2)
    parts[0] = header.pack(page_id, LEAF, count, overflow)
    parts[1] = leaf_elements(count).pack(*ints)
    parts[2::2] = keys
    parts[3::2] = values
    return b"".join(parts)


def encode_branch(page_id: int, keys: Sequence[bytes], children: Sequence[int], overflow: int) -> bytes:
    """A branch page, not yet padded to whole pages."""
    count = len(keys)
    key_sizes = list(map(len, keys))
    starts = accumulate(key_sizes, initial=ELEMENT_SIZE * count)
    ints = [0] * (3 * count)
    ints[0::3] = map(add, starts, range(0, -ELEMENT_SIZE * count, -ELEMENT_SIZE))
    ints[1::3] = key_sizes
    ints[2::3] = children
    head = header.pack(page_id, BRANCH, count, overflow) + branch_elements(count).pack(*ints)
    return head + b"".join(keys)
