"""From the bytes of a message to JSON, as Go's protojson writes it with etcd's options.

Names as declared, in the order of declaration; zero values left out; 64-bit integers as strings, bytes in
base64, enums by name. Go puts a space here and there, by the build; this is the form without.

No recursion, and the generator yields after about `SLICE` fields: an answer may hold a million keys.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Generator
from typing import Final

from pyetcd.api.gateway.fields import BOOL, ENUM, INT, MESSAGE, RAW, STRING, Field, Table
from pyetcd.proto.splice import BYTES, FIXED32, FIXED64, VARINT

SLICE: Final = 1_000  # fields, about 1 ms
BIG_BYTES: Final = 1 << 16  # a value like this is a slice of its own
_JOINED_PIECES: Final = 64  # the JSON of a message up to so many pieces becomes one
_SIGN: Final = 1 << 63
_SPECIAL: Final = re.compile(rb'[\x00-\x1f"\\]')
_HTML: Final = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
_SHORT: Final = {
    ord('"'): b'\\"',
    ord("\\"): b"\\\\",
    8: b"\\b",
    9: b"\\t",
    10: b"\\n",
    12: b"\\f",
    13: b"\\r",
}


class _Open:
    """A message being written."""

    __slots__ = ("end", "pieces", "table", "within")

    def __init__(self, table: Table, within: Field | None, end: int) -> None:
        self.table = table
        self.within = within
        self.end = end
        self.pieces: dict[int, list[bytes]] = {}  # of each field, by index; values of a list with commas

    def json(self) -> list[bytes]:
        whole = [b"{"]
        separator = b""
        fields = self.table.by_index
        for index in sorted(self.pieces):
            pieces = self.pieces[index]
            field = fields[index]
            whole.append(separator + field.head + b"[" if field.is_repeated else separator + field.head)
            whole += pieces
            if field.is_repeated:
                whole.append(b"]")
            separator = b","
        whole.append(b"}")
        return whole

    def put(self, field: Field, value: bytes) -> None:
        if not field.is_repeated:
            self.pieces[field.index] = [value]
            return
        pieces = self.pieces.setdefault(field.index, [])
        pieces.append(b"," + value if pieces else value)

    def put_all(self, field: Field, value: list[bytes]) -> None:
        """A message in pieces."""
        if not field.is_repeated:
            self.pieces[field.index] = value
            return
        pieces = self.pieces.setdefault(field.index, [])
        if pieces:
            pieces.append(b",")
        pieces += value


def json_of(table: Table, data: bytes, *, html: bool = False) -> Generator[None, None, list[bytes]]:
    """The JSON of a message in pieces. `html`: as Go's encoding/json passes it on, `<`, `>`, `&` escaped."""
    opened = _Open(table, None, len(data))
    stack = [opened]
    at = steps = 0
    while True:
        steps += 1
        if steps >= SLICE:
            steps = 0
            yield
        if at >= opened.end:
            assert at == opened.end, "a message ends where its last field does"
            stack.pop()
            pieces = opened.json()
            if not stack:
                return pieces
            within = opened.within
            assert within is not None, "only the outermost is within nothing"
            opened = stack[-1]
            if len(pieces) <= _JOINED_PIECES:
                opened.put(within, b"".join(pieces))
            else:
                opened.put_all(within, pieces)
            continue
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(data, at - 1)
        field = opened.table.by_number.get(tag >> 3)
        wire = tag & 7
        if wire == BYTES:
            length = data[at]
            at += 1
            if length > 0x7F:
                length, at = _varint(data, at - 1)
            if field is None:
                at += length
            elif field.kind == MESSAGE:
                assert field.message is not None, "a message field has its table"
                opened = _Open(field.message, field, at + length)
                stack.append(opened)
            elif field.kind == RAW or field.kind == STRING:
                value = data[at : at + length]
                at += length
                if length > BIG_BYTES:
                    steps = SLICE
                if value or field.has_presence or field.is_repeated:
                    opened.put(field, string(value, html) if field.kind == STRING else _base64(value))
                else:
                    opened.pieces.pop(field.index, None)
            else:
                end = at + length
                while at < end:
                    number, at = _varint(data, at)
                    opened.put(field, _number(field, number))
        elif wire == VARINT:
            number, at = _varint(data, at)
            if field is not None:
                if number or field.has_presence or field.is_repeated:
                    opened.put(field, _number(field, number))
                else:
                    opened.pieces.pop(field.index, None)
        else:
            assert wire in (FIXED32, FIXED64), "our own answers have no groups"
            at += 4 if wire == FIXED32 else 8


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number = byte & 0x7F
    shift = 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at + 1
        shift += 7


def _number(field: Field, number: int) -> bytes:
    kind = field.kind
    if kind == BOOL:
        return b"true" if number else b"false"
    if (kind in (INT, ENUM)) and number >= _SIGN:
        number -= _SIGN << 1
    if kind == ENUM:
        return field.names.get(number) or b"%d" % number
    return b'"%d"' % number if field.bits == 64 else b"%d" % number


def _base64(value: bytes) -> bytes:
    return b'"' + binascii.b2a_base64(value, newline=False) + b'"'


def string(value: bytes, html: bool) -> bytes:
    """A text in UTF-8 as JSON. `html`: as for `json_of`."""
    if _SPECIAL.search(value):
        value = _SPECIAL.sub(_escape, value)
    if html and _HTML.search(value):
        value = _HTML.sub(_escape_html, value)
    return b'"' + value + b'"'


def _escape(match: re.Match[bytes]) -> bytes:
    byte = match[0][0]
    return _SHORT.get(byte) or b"\\u%04x" % byte


def _escape_html(match: re.Match[bytes]) -> bytes:
    found: bytes = match[0]
    return b"\\u%04x" % (found[0] if len(found) == 1 else ord(found.decode()))
