"""From JSON to the bytes of a message, by the rules and with the errors of Go's protojson.

Fields go by either of their names, and unknown ones are passed over; 64-bit integers are numbers or strings,
enums names or numbers, bytes of either base64 alphabet, padded or not. The bytes are those Go would marshal:
fields in ascending order, zero values left out.

No recursion: transactions nest as deep as encoding/json allows. The generator yields after about
`SLICE` tokens.
"""

from __future__ import annotations

import binascii
from collections.abc import Generator
from typing import Final

from pyetcd.api.gateway import json_tokens as tokens_of
from pyetcd.api.gateway.fields import BOOL, ENUM, INT, MESSAGE, RAW, STRING, UINT, Field, Table
from pyetcd.api.gateway.json_tokens import PROTO, Refused, Tokens
from pyetcd.api.gateway.json_values import DEPTH_MAX, SLICE
from pyetcd.api.gateway.numbers import integer, integer_in
from pyetcd.proto.splice import varint

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_STANDARD: Final = _LETTERS + b"+/"
_URL: Final = _LETTERS + b"-_"
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_TOO_DEEP: Final = PROTO + "exceeded max recursion depth"


class _Run:
    """The encoded values of a repeated field, joined as they come: a list may have a million."""

    __slots__ = ("_joined", "_last")

    def __init__(self) -> None:
        self._joined: list[bytes] = []
        self._last: list[bytes] = []

    def append(self, value: bytes) -> None:
        self._last.append(value)
        if len(self._last) == SLICE:
            self._joined.append(b"".join(self._last))
            self._last.clear()

    def value(self) -> bytes:
        return b"".join((*self._joined, *self._last))


class _Open:
    """A message being read."""

    __slots__ = ("fields", "in_list", "oneofs", "seen", "table", "within")

    def __init__(self, table: Table, within: Field | None, in_list: bool) -> None:
        self.table = table
        self.within = within  # the field of the outer message that it belongs to
        self.in_list = in_list
        self.fields: dict[int, bytes | _Run] = {}  # encoded, by number
        self.seen: set[int] = set()
        self.oneofs: set[str] = set()

    def encoded(self) -> bytes:
        fields = (self.fields[number] for number in sorted(self.fields))
        return b"".join([field if isinstance(field, bytes) else field.value() for field in fields])

    def add(self, field: Field, encoded: bytes) -> None:
        if field.is_repeated:
            self.run(field).append(encoded)
        else:
            self.fields[field.number] = encoded

    def run(self, field: Field) -> _Run:
        found = self.fields.setdefault(field.number, _Run())
        assert isinstance(found, _Run), "a repeated field is a run"
        return found


def message(table: Table, text: bytes) -> Generator[None, None, bytes]:
    """The bytes of the message that the JSON value `text` describes. Refused."""
    tokens = Tokens(text)
    if tokens.next() != tokens_of.OPEN_OBJECT:
        if tokens.is_unfinished:
            yield from tokens.finish()
        _check(tokens)
        raise tokens.unexpected()
    stack = [_Open(table, None, False)]
    steps = 0
    while True:
        steps += 1
        if steps >= SLICE:
            steps = 0
            yield
        opened = stack[-1]
        if tokens.next() == tokens_of.CLOSE_OBJECT:
            stack.pop()
            if not stack:
                return opened.encoded()
            body = opened.encoded()
            within = opened.within
            assert within is not None, "only the outermost is within nothing"
            stack[-1].add(within, within.tag + varint(len(body)) + body)
            if opened.in_list:
                yield from _next_of_list(tokens, stack, within)
            continue
        if tokens.is_unfinished:
            yield from tokens.finish()
        name = tokens.string()
        field = opened.table.by_name.get(name)
        if field is None:
            yield from _pass_over(tokens)
            continue
        if field.number in opened.seen:
            raise tokens.error(tokens.start, f"duplicate field {tokens.raw}")
        opened.seen.add(field.number)
        named, shown = tokens.start, tokens.raw
        kind = tokens.next()
        if kind == tokens_of.NULL:
            continue
        if tokens.is_unfinished:
            yield from tokens.finish()
        if field.is_repeated:
            if kind != tokens_of.OPEN_LIST:
                _check(tokens)
                raise tokens.unexpected()
            if field.kind == MESSAGE:
                yield from _next_of_list(tokens, stack, field)
            else:
                yield from _scalars(tokens, opened, field)
            continue
        if field.oneof:
            if field.oneof in opened.oneofs:
                raise tokens.error(named, f"error parsing {shown}, oneof {field.oneof} is already set")
            opened.oneofs.add(field.oneof)
        if field.kind == MESSAGE:
            _open(tokens, stack, field, False)
        else:
            encoded = _scalar(tokens, field, omits_zero=not field.has_presence)
            if encoded is not None:
                opened.add(field, field.tag + encoded)


def _open(tokens: Tokens, stack: list[_Open], field: Field, in_list: bool) -> None:
    """Begin a message whose first token has been read."""
    if len(stack) >= DEPTH_MAX:
        raise Refused(_TOO_DEEP)
    if tokens.kind != tokens_of.OPEN_OBJECT:
        _check(tokens)
        raise tokens.unexpected()
    assert field.message is not None, "a message field has its table"
    stack.append(_Open(field.message, field, in_list))


def _next_of_list(tokens: Tokens, stack: list[_Open], field: Field) -> Generator[None, None, None]:
    """Begin the next message of a list, or end the list."""
    if tokens.next() != tokens_of.CLOSE_LIST:
        if tokens.is_unfinished:
            yield from tokens.finish()
        _open(tokens, stack, field, True)


def _scalars(tokens: Tokens, opened: _Open, field: Field) -> Generator[None, None, None]:
    """A list of scalars; numbers are packed."""
    values = _Run()
    steps = 0
    while tokens.next() != tokens_of.CLOSE_LIST:
        if tokens.is_unfinished:
            yield from tokens.finish()
        encoded = _scalar(tokens, field, omits_zero=False)
        if encoded is not None:
            values.append(encoded if field.is_packed else field.tag + encoded)
        steps += 1
        if steps >= SLICE:
            steps = 0
            yield
    if field.is_packed:
        packed = values.value()
        if packed:
            opened.add(field, field.tag + varint(len(packed)) + packed)
    else:
        opened.fields[field.number] = values


def _pass_over(tokens: Tokens) -> Generator[None, None, None]:
    """The value of a field that the message does not have."""
    depth = steps = 0
    while True:
        kind = tokens.next()
        if kind == tokens_of.STRING:
            if tokens.is_unfinished:
                yield from tokens.finish()
            tokens.string()
        elif kind in (tokens_of.OPEN_OBJECT, tokens_of.OPEN_LIST):
            depth += 1
        elif kind in (tokens_of.CLOSE_OBJECT, tokens_of.CLOSE_LIST):
            depth -= 1
        if not depth:
            return
        steps += 1
        if steps >= SLICE:
            steps = 0
            yield


def _check(tokens: Tokens) -> None:
    """A string in the wrong place is first of all to be one."""
    if tokens.kind == tokens_of.STRING:
        tokens.string()


def _scalar(tokens: Tokens, field: Field, *, omits_zero: bool) -> bytes | None:
    """The value of the token, encoded without a tag; None when it is not to be set. Refused."""
    kind = tokens.kind
    text = tokens.string() if kind == tokens_of.STRING else ""
    number: int | None = None
    if field.kind == RAW or field.kind == STRING:
        if kind == tokens_of.STRING:
            value = base64_of(text) if field.kind == RAW else text.encode()
            if value is not None:
                return None if omits_zero and not value else varint(len(value)) + value
    elif field.kind == INT or field.kind == UINT:
        if kind == tokens_of.NUMBER:
            number = integer(tokens.raw, field.bits, signed=field.kind == INT)
        elif kind == tokens_of.STRING:
            number = integer_in(text, field.bits, signed=field.kind == INT)
    elif field.kind == BOOL:
        if kind == tokens_of.BOOL:
            number = tokens.raw == "true"
    else:
        assert field.kind == ENUM, "there are no others"
        if kind == tokens_of.STRING:
            if text not in field.numbers:
                return None
            number = field.numbers[text]
        elif kind == tokens_of.NUMBER:
            number = integer(tokens.raw, 32, signed=True)
    if number is None:
        what = f"invalid value for {field.type_name} field {field.json_name}: {tokens.raw}"
        raise tokens.error(tokens.start, what)
    return None if omits_zero and not number else varint(number)


def base64_of(text: str) -> bytes | None:
    """What base64 stands for, None for what is none. As with Go, line ends do not count, nor do bits left
    over."""
    if not text.isascii():
        return None
    data = text.encode()
    is_url = b"-" in data or b"_" in data
    is_padded = len(data) % 4 == 0
    if b"\n" in data or b"\r" in data:
        data = data.translate(None, b"\r\n")
    others = data.translate(None, _URL if is_url else _STANDARD)
    if others.strip(b"=") or not data.endswith(others) or len(others) > (2 if is_padded else 0):
        return None
    if is_padded:
        if len(data) % 4:
            return None
    elif len(data) % 4 == 1:
        return None
    else:
        data += b"=" * (-len(data) % 4)
    return binascii.a2b_base64(data.translate(_TO_STANDARD) if is_url else data)
