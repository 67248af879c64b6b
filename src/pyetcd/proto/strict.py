"""Go's protobuf parser and ours (upb) must agree on what is a message, since both read the same logs.

They do, but for two things. Go refuses a varint of ten bytes whose last is above 1, where upb drops what does
not fit: logged as a client sent it, such a request would end every Go member that applies it. And Go takes a
tag written in more bytes than it needs, where upb refuses more than five: an entry a Go member logged must be
applied here too.

So what goes into the log has either been compared with its own encoding, or it is read here by Go's rules and
encoded anew. Rules that hold here:

* `check` costs nothing for a short payload, one encoding (0.5 us for a put) for any other; only what then
  differs is looked at closely.
* Looking closely is bounded: `MAX_FIELDS` fields (about 10 ms), `MAX_DEPTH` messages within each other. What
  is beyond counts as malformed.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from pyetcd.proto.splice import BYTES, FIXED32, FIXED64, VARINT, field_bytes, varint

SHORTEST: Final = 11  # bytes of a tag and a varint that only Go refuses
MAX_FIELDS: Final = 20_000
MAX_DEPTH: Final = 600
MAX_FIELD_NUMBER: Final = (1 << 29) - 1
GROUP, END_GROUP = 3, 4

Parsed = TypeVar("Parsed", bound=Message)

_SUSPICIOUS: Final = re.compile(rb"[\x80-\xff]{9}[\x02-\xff]", re.DOTALL)
_ENUM, _BOOL, _MESSAGE = FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_MESSAGE
_IN_BYTES: Final = (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING, _MESSAGE)


def parse(kind: type[Parsed], payload: bytes) -> Parsed:
    """Parse a request as Go would. DecodeError where Go's parser refuses."""
    try:
        request = kind.FromString(payload)
    except DecodeError:
        return again(kind, payload)
    check(request, payload)
    return request


def parse_logged(kind: type[Parsed], payload: bytes) -> tuple[Parsed, bytes]:
    """`parse`, and what to log."""
    try:
        request = kind.FromString(payload)
    except DecodeError:
        payload = canonical(kind, payload)
        return kind.FromString(payload), payload
    return request, loggable(request, payload)


def again(kind: type[Parsed], payload: bytes) -> Parsed:
    """Parse by Go's rules what upb refuses."""
    return kind.FromString(canonical(kind, payload))


def check(request: Message, payload: bytes) -> None:
    """DecodeError when Go would refuse the payload `request` was parsed from. Drops its unknown fields."""
    if len(payload) < SHORTEST:
        return
    request.DiscardUnknownFields()
    if request.SerializeToString() != payload and _SUSPICIOUS.search(payload):
        canonical(type(request), payload)


def loggable(request: Message, payload: bytes) -> bytes:
    """`check`, and what to log: the payload, or the encoding of `request` if they differ."""
    if len(payload) < SHORTEST:
        return payload
    request.DiscardUnknownFields()
    encoded = request.SerializeToString()
    if encoded != payload and _SUSPICIOUS.search(payload):
        canonical(type(request), payload)
    return encoded


def canonical(kind: type[Message], data: bytes) -> bytes:
    """The known fields of a message in the order they came, each encoded as short as it goes. DecodeError
    where Go's parser refuses.
    """
    try:
        return _Reader(data).message(_known(kind.DESCRIPTOR), 0, len(data), 0)
    except IndexError:
        raise DecodeError("cut off") from None


class _Reader:
    """Reads one payload by the rules of Go's protobuf library."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._fields_left = MAX_FIELDS

    def message(self, kind: Descriptor, start: int, end: int, depth: int) -> bytes:
        if depth > MAX_DEPTH:
            raise DecodeError("messages too deep within each other")
        parts = []
        self._at = start
        while self._at < end:
            number, wire_type = self._tag()
            value = self._value(number, wire_type, end)
            field = kind.fields_by_number.get(number)
            if field is None:
                continue
            if wire_type == VARINT and field.type not in _IN_BYTES:
                parts.append(varint(number << 3) + varint(_fitting(field, value)))
            elif wire_type == BYTES:
                behind = self._at
                parts.append(self._in_bytes(field, behind - value, behind, depth))
                self._at = behind
        return b"".join(parts)

    def _in_bytes(self, field: FieldDescriptor, start: int, end: int, depth: int) -> bytes:
        """A field whose value lies in bytes: itself so, a message, or packed numbers."""
        if field.type == _MESSAGE:
            payload = self.message(_known(field.message_type), start, end, depth + 1)
        elif field.type in _IN_BYTES:
            payload = self._data[start:end]
        elif field.is_repeated:
            payload = self._packed(field, start, end)
        else:
            return b""  # of another type than ours: unknown
        return field_bytes(field.number, payload)

    def _packed(self, field: FieldDescriptor, start: int, end: int) -> bytes:
        parts = []
        self._at = start
        while self._at < end:
            parts.append(varint(_fitting(field, self._varint())))
        if self._at > end:
            raise DecodeError("cut off")
        return b"".join(parts)

    def _tag(self) -> tuple[int, int]:
        self._fields_left -= 1
        if not self._fields_left:
            raise DecodeError("too many fields")
        tag = self._varint()
        if not 1 <= tag >> 3 <= MAX_FIELD_NUMBER:
            raise DecodeError("field number out of range")
        return tag >> 3, tag & 7

    def _value(self, number: int, wire_type: int, end: int) -> int:
        """Read a value: the number of a varint, or the length of bytes, which then lie before `_at`."""
        value = 0
        if wire_type == VARINT:
            value = self._varint()
        elif wire_type == BYTES:
            value = self._varint()
            self._at += value
        elif wire_type == FIXED64:
            self._at += 8
        elif wire_type == FIXED32:
            self._at += 4
        elif wire_type == GROUP:
            self._group(number, end)
        else:
            raise DecodeError(f"wire type {wire_type}")
        if self._at > end:
            raise DecodeError("cut off")
        return value

    def _group(self, number: int, end: int) -> None:
        """Pass over a group and the groups within it."""
        open_groups = [number]
        while open_groups:
            if self._at >= end or len(open_groups) > MAX_DEPTH:
                raise DecodeError("a group without an end")
            inner, wire_type = self._tag()
            if wire_type == GROUP:
                open_groups.append(inner)
            elif wire_type == END_GROUP:
                if open_groups.pop() != inner:
                    raise DecodeError("the end of another group")
            else:
                self._value(inner, wire_type, end)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    raise DecodeError("a varint of more than 64 bits")
                return value
            shift += 7
            if shift > 63:
                raise DecodeError("a varint of more than ten bytes")


def _known(kind: object) -> Descriptor:
    assert isinstance(kind, Descriptor), "upb's descriptors count as such"
    return kind


def _fitting(field: FieldDescriptor, value: int) -> int:
    """As Go reads a number into the field: enums and int32 are the lower 32 bits, with their sign."""
    if field.type == _BOOL:
        return int(value != 0)
    if field.type in (_ENUM, FieldDescriptor.TYPE_INT32):
        value &= 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value
    if field.type == FieldDescriptor.TYPE_UINT32:
        return value & 0xFFFFFFFF
    return value
