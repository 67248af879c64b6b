"""Log entries to and from bytes, fast: the hot path of replication, once per entry and follower.

What is written is what `raft.codec` writes, head and data. What is read is what `raft.codec.decode_entry`
reads: the short reader here knows the forms etcd writes and leaves everything else to that one. Measured for
300-byte entries: writing 0.5 us (codec 1.2), reading 1.2 us (codec 1.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyetcd.proto.splice import varint
from pyetcd.raft import Entry
from pyetcd.raft.codec import decode_entry

_LENGTH_BYTES: Final = 8
_CONTINUED: Final = [bytes((low | 0x80,)) for low in range(128)]
_SHORT_TYPES: Final = 2  # entry types that etcd knows; others are left to protobuf


def add_framed(parts: list[bytes], entries: Sequence[Entry]) -> None:
    """Append each entry's length (8 bytes, big-endian) and encoding to `parts`, its data as it is."""
    term = high = -1
    before = after = b""
    for entry in entries:
        if entry.term != term:
            term = entry.term
            before = b"\x10" + varint(term) + b"\x18"
        index, data = entry.index, entry.data
        if index < 128:
            number = varint(index)
        else:
            if index >> 7 != high:
                high = index >> 7
                after = varint(high)
            number = _CONTINUED[index & 127] + after
        if entry.type or not data:
            kind = b"\x08" + varint(entry.type) if entry.type else b""
            head = kind + before + number + (b"\x22" + varint(len(data)) if data else b"")
        else:
            head = before + number + b"\x22" + varint(len(data))
        parts += (entry.size.to_bytes(_LENGTH_BYTES, "big") + head, data)


def read_entry(data: bytes, start: int, end: int) -> Entry:
    """The entry whose encoding is `data[start:end]`. Raises InvalidMessage."""
    try:
        entry = _read_short(data, start, end)
    except IndexError:
        entry = None
    return decode_entry(data[start:end]) if entry is None else entry


def _read_short(data: bytes, start: int, end: int) -> Entry | None:
    """None: it is not of the usual form. A number written longer than need be is not, since an entry's size
    is that of our own encoding of it."""
    size = end - start
    position = start
    kind = 0
    if data[position] == 0x08:
        kind = data[position + 1]
        if kind > _SHORT_TYPES:
            return None
        if kind == 0:
            size -= 2
        position += 2
    if data[position] != 0x10:
        return None
    byte = term = data[position + 1]
    position += 2
    if byte > 127:
        term &= 127
        shift = 7
        while byte > 127:
            byte = data[position]
            position += 1
            term |= (byte & 127) << shift
            shift += 7
        if byte == 0 or shift > 63:
            return None
    if data[position] != 0x18:
        return None
    byte = index = data[position + 1]
    position += 2
    if byte > 127:
        index &= 127
        shift = 7
        while byte > 127:
            byte = data[position]
            position += 1
            index |= (byte & 127) << shift
            shift += 7
        if byte == 0 or shift > 63:
            return None
    if position == end:
        return Entry(term, index, kind, b"", size)
    if data[position] != 0x22:
        return None
    byte = length = data[position + 1]
    position += 2
    if byte > 127:
        length &= 127
        shift = 7
        while byte > 127:
            byte = data[position]
            position += 1
            length |= (byte & 127) << shift
            shift += 7
        if byte == 0:
            return None
    if length == 0 or position + length != end:
        return None
    return Entry(term, index, kind, data[position:end], size)
