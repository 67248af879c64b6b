"""Puts as most clients write them, read without protobuf: key, value and lease, nothing else.

Reading one takes a compiled build a quarter of what upb and its attributes take, and every put is read on
every member. Whoever gets None reads the message in the ordinary way: what is out of order, comes twice, is
longer than it needs to be, carries a flag, an unknown field or a negative lease, or is no message at all. So
what is read here is what Go's parser and ours read alike (see `strict`).
"""

from __future__ import annotations

from typing import Final, TypeAlias

from google.protobuf.message import Message

from pyetcd.proto.rpc_pb2 import PutRequest
from pyetcd.proto.splice import varint_end, varint_of

_KEY: Final = 0x0A  # field 1, bytes
_VALUE: Final = 0x12  # field 2, bytes
_LEASE: Final = 0x18  # field 3, varint
_PUT: Final = 0x22  # InternalRaftRequest.put, field 4
_HEADER: Final = b"\xa2\x06"  # InternalRaftRequest.header, field 100
_ID: Final = 0x08  # RequestHeader.ID, field 1
_USERNAME: Final = 0x12  # RequestHeader.username, field 2
_AUTH_REVISION: Final = 0x18  # RequestHeader.auth_revision, field 3
_NONE: Final = -1


class PlainPut:
    """A PutRequest with nothing but these."""

    __slots__ = ("key", "lease", "value")

    def __init__(self, key: bytes, value: bytes, lease: int) -> None:
        self.key = key
        self.value = value
        self.lease = lease

    def message(self) -> PutRequest:
        return PutRequest(key=self.key, value=self.value, lease=self.lease)


Request: TypeAlias = Message | PlainPut
"""What goes through the log, read."""


def plain_put(data: bytes, at: int, end: int) -> PlainPut | None:
    """The PutRequest in `data[at:end]`, if it is a plain one."""
    key = value = b""
    lease = 0
    if at < end and data[at] == _KEY:
        behind = _shortest_end(data, at + 1, end)
        if behind < 0:
            return None
        at = behind + varint_of(data, at + 1, behind)
        if at > end:
            return None
        key = data[behind:at]
    if at < end and data[at] == _VALUE:
        behind = _shortest_end(data, at + 1, end)
        if behind < 0:
            return None
        at = behind + varint_of(data, at + 1, behind)
        if at > end:
            return None
        value = data[behind:at]
    if at < end and data[at] == _LEASE:
        behind = _shortest_end(data, at + 1, end)
        if behind < 0:
            return None
        lease = varint_of(data, at + 1, behind)
        at = behind
    return PlainPut(key, value, lease) if at == end else None


def plain_put_of_entry(data: bytes) -> PlainPut | None:
    """The put in an InternalRaftRequest that has nothing else but a header with an ID and perhaps a caller:
    of ours, whose header comes first, or of Go's, where it comes last."""
    end = len(data)
    at = 0
    if data[:2] == _HEADER:
        at = _header_end(data, 0, end)
    elif end > 2 and data[0] == _PUT:
        behind = _shortest_end(data, 1, end)
        if behind < 0:
            return None
        at = behind + varint_of(data, 1, behind)
        if _header_end(data, at, end) != end:
            return None
        return plain_put(data, behind, at)
    if not 0 < at < end or data[at] != _PUT:
        return None
    behind = _shortest_end(data, at + 1, end)
    if behind < 0 or behind + varint_of(data, at + 1, behind) != end:
        return None
    return plain_put(data, behind, end)


def _header_end(data: bytes, at: int, end: int) -> int:
    """Behind the header at `at`; negative if there is none, or one out of the ordinary."""
    start = at + 3
    if start > end or data[at : at + 2] != _HEADER or data[at + 2] >= 0x80:
        return _NONE
    stop = start + data[at + 2]
    if stop == start:
        return stop
    if stop > end or data[start] != _ID:
        return _NONE
    at = start + 1
    while at < stop and data[at] >= 0x80:
        at += 1
    at += 1
    if at > stop or at - start > 11:
        return _NONE
    return stop if at == stop else _caller_end(data, at, stop)


def _caller_end(data: bytes, at: int, stop: int) -> int:
    """`stop`, where a header's caller ends that begins at `at`; negative if something else is there."""
    if data[at] == _USERNAME:
        behind = _shortest_end(data, at + 1, stop)
        if behind < 0:
            return _NONE
        at = behind + varint_of(data, at + 1, behind)
        if at > stop or not data[behind:at].isascii():
            return _NONE
    if at < stop and data[at] == _AUTH_REVISION:
        at = _shortest_end(data, at + 1, stop)
    return stop if at == stop else _NONE


def _shortest_end(data: bytes, at: int, end: int) -> int:
    """`varint_end`, negative also if the varint is longer than it needs to be."""
    behind = varint_end(data, at, end)
    return behind if behind > 0 and (behind == at + 1 or data[behind - 1]) else _NONE
