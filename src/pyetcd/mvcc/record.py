"""Stored `mvccpb.KeyValue` records, read and written as bytes.

A record is key (1), create_revision (2), mod_revision (3), version (4), value (5), lease (6), in this
order, zero values left out: so the record that follows another of the same key begins with the same bytes
up to mod_revision, and what belongs to the index (create revision, version) is read from the bytes behind
the key instead of being kept in memory. What was written in another shape (no etcd does) is read the slow
way by `splice.view`.
"""

from __future__ import annotations

from typing import Final

from pyetcd.proto.splice import View, key_value, varint, view

JOINED_BYTES: Final = 256 << 10
COUNT_ONE: Final = b"\x20\x01"  # RangeResponse.count = 1
MORE: Final = b"\x18\x01"  # RangeResponse.more = true


class Heads:
    """Tag and length of a KeyValue within a response, by length: 0.05 us instead of 0.2. Bounded by the
    lengths kept.
    """

    __slots__ = ("_tag", "table")

    def __init__(self, tag: bytes) -> None:
        self._tag = tag
        self.table = [tag + varint(length) for length in range(4096)]

    def __call__(self, length: int) -> bytes:
        return self.table[length] if length < 4096 else self._tag + varint(length)

    def pack(self, records: list[bytes]) -> list[bytes]:
        """Heads and records. Small ones are joined: fewer parts for the wire, nothing kept of the records
        (0.15 us each).
        """
        table = self.table
        parts: list[bytes] = []
        for record in records:
            length = len(record)
            parts.append(table[length] if length < 4096 else self._tag + varint(length))
            parts.append(record)
        if len(parts) > 2 and sum(map(len, parts)) <= JOINED_BYTES:
            return [b"".join(parts)]
        return parts


KVS: Final = Heads(b"\x12")  # RangeResponse.kvs
PREV_KVS: Final = Heads(b"\x1a")  # DeleteRangeResponse.prev_kvs
PREV_KV: Final = Heads(b"\x12")  # PutResponse.prev_kv


def tail(value: bytes, lease: int) -> bytes:
    """Fields 5 and 6."""
    if value:
        if lease:
            return b"".join((b"\x2a", varint(len(value)), value, b"\x30", varint(lease)))
        return b"".join((b"\x2a", varint(len(value)), value))
    return b"\x30" + varint(lease) if lease else b""


def first_record(key: bytes, main: bytes, value: bytes, lease: int) -> bytes:
    """The record of a key that did not exist; `main` is the varint of the revision (0.6 us)."""
    if lease:
        value_part = tail(value, lease)
        return b"".join(
            (b"\x0a", varint(len(key)), key, b"\x10", main, b"\x18", main, b"\x20\x01", value_part)
        )
    if value:
        return b"".join(
            (
                b"\x0a",
                varint(len(key)),
                key,
                b"\x10",
                main,
                b"\x18",
                main,
                b"\x20\x01\x2a",
                varint(len(value)),
                value,
            )
        )
    return b"".join((b"\x0a", varint(len(key)), key, b"\x10", main, b"\x18", main, b"\x20\x01"))


def key_end(key: bytes) -> int:
    """Where the fields behind the key begin."""
    length = len(key)
    if length < 0x80:
        return length + 2 if length else 0
    return length + 1 + len(varint(length))


def next_record(old: bytes, key: bytes, main: bytes, value: bytes, lease: int) -> bytes:
    """The record that follows `old` of the same key (1.2 us)."""
    at = key_end(key)
    if old[at] != 0x10:
        return _next_slowly(old, main, value, lease)
    at += 1
    while old[at] > 0x7F:
        at += 1
    head_end = at + 2
    at += 1
    if old[at] != 0x18:
        return _next_slowly(old, main, value, lease)
    at += 1
    while old[at] > 0x7F:
        at += 1
    if old[at + 1] != 0x20:
        return _next_slowly(old, main, value, lease)
    at += 2
    n = old[at]
    if n > 0x7F:
        n &= 0x7F
        shift = 7
        while True:
            at += 1
            byte = old[at]
            n |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
    if lease or not value:
        return b"".join((old[:head_end], main, b"\x20", varint(n + 1), tail(value, lease)))
    return b"".join((old[:head_end], main, b"\x20", varint(n + 1), b"\x2a", varint(len(value)), value))


def _next_slowly(old: bytes, main: bytes, value: bytes, lease: int) -> bytes:
    seen = view(old)
    key = old[seen.key_start : seen.key_end]
    shift = number = 0
    for byte in main:
        number |= (byte & 0x7F) << shift
        shift += 7
    return key_value(key, seen.create_revision, number, seen.version + 1, value, lease)


def tombstone_record(key: bytes) -> bytes:
    """What is stored for a deletion: a KeyValue with nothing but the key."""
    return b"\x0a" + varint(len(key)) + key if key else b""


def deleted_kv(tombstone: bytes, main: int) -> bytes:
    """A deletion as watchers see it: key and mod_revision."""
    return tombstone + b"\x18" + varint(main)


def value_of(record: bytes) -> bytes:
    seen = view(record)
    return record[seen.value_start : seen.value_end]


def without_value(record: bytes, keep_lease: bool) -> bytes:
    """A record for keys_only. Etcd answers most such requests from its index, which knows no lease; then it
    is left out.
    """
    seen = view(record)
    key = record[seen.key_start : seen.key_end]
    lease = seen.lease if keep_lease else 0
    return key_value(key, seen.create_revision, seen.mod_revision, seen.version, b"", lease)


def key_of(record: bytes) -> bytes:
    """The key of a stored record (0.2 us)."""
    if record and record[0] == 0x0A:
        length = record[1]
        if length < 0x80:
            return record[2 : 2 + length]
    seen = view(record)
    return record[seen.key_start : seen.key_end]


__all__ = [
    "COUNT_ONE",
    "KVS",
    "MORE",
    "PREV_KV",
    "PREV_KVS",
    "View",
    "deleted_kv",
    "first_record",
    "key_end",
    "key_of",
    "next_record",
    "tail",
    "tombstone_record",
    "value_of",
    "view",
    "without_value",
]
