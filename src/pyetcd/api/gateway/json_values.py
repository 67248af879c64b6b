"""Where the next JSON value of a text ends, by the rules and with the errors of Go's encoding/json.

grpc-gateway lets that package cut the value out of a body before protojson reads it, so whatever is no JSON
is told of in its words, and what follows the first value does not matter.

Work is bounded: the generator yields after about `SLICE` steps, however the text is made; nesting is
bounded as in Go.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

DEPTH_MAX: Final = 10_000
SLICE: Final = 500  # tokens, about 1 ms
RUN: Final = 1 << 16  # bytes of a string looked at in one step
UNEXPECTED_EOF: Final = "unexpected EOF"

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"[^"\\\x00-\x1f]{0,4096}"')  # most: short and without escapes
_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f]{0,%d}' % RUN)
_NUMBER: Final = re.compile(rb"(-?(?:0|[1-9][0-9]*+))(\.[0-9]++)?([eE][-+]?[0-9]++)?")
_HEX: Final = b"0123456789abcdefABCDEF"
_ESCAPED: Final = b'bfnrt\\/"'
_LITERALS: Final = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_QUOTE, _BACKSLASH, _COLON, _COMMA = b'"\\:,'
_OPEN_OBJECT, _OPEN_LIST = b"{["
_MINUS, _ZERO, _NINE = b"-09"
_SHOWN: Final = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
_SHOWN.update({ord("'"): "\\'", ord("\\"): "\\\\", ord('"'): '"'})


class BadJson(Exception):
    """The text is no JSON; the message is Go's."""


def value_end(text: bytes, at: int) -> Generator[None, None, int]:
    """The end of the value that begins at or behind `at`; -1 when nothing but space is left. BadJson."""
    at = _skip_space(text, at)
    if at == len(text):
        return -1
    nested = bytearray()  # what is open, outermost first
    steps = 0
    while True:
        at = _skip(text, at)
        byte = text[at]
        if byte in (_OPEN_OBJECT, _OPEN_LIST):
            nested.append(byte)
            if len(nested) > DEPTH_MAX:
                raise _bad(byte, "exceeded max depth")
            at = _skip(text, at + 1)
            if text[at] != byte + 2:  # both closing brackets are two behind their opening ones
                if byte == _OPEN_OBJECT:
                    at = yield from _name(text, at)
                continue
            nested.pop()
            at += 1
        else:
            at = yield from _scalar(text, at)
        while nested:  # a value has ended before `at`, and perhaps what it lies in
            at = _skip(text, at)
            byte = text[at]
            at += 1
            in_object = nested[-1] == _OPEN_OBJECT
            if byte == _COMMA:
                if in_object:
                    at = yield from _name(text, _skip(text, at))
                break
            if byte != nested.pop() + 2:
                raise _bad(byte, "after object key:value pair" if in_object else "after array element")
        else:
            return at
        steps += 1
        if steps >= SLICE:
            steps = 0
            yield


def _skip_space(text: bytes, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None, "no space is a match too"
    return match.end()


def _skip(text: bytes, at: int) -> int:
    """Behind the space; something must come."""
    at = _skip_space(text, at)
    if at == len(text):
        raise BadJson(UNEXPECTED_EOF)
    return at


def _name(text: bytes, at: int) -> Generator[None, None, int]:
    """Behind the name of a field and its colon."""
    if text[at] != _QUOTE:
        raise _bad(text[at], "looking for beginning of object key string")
    at = _skip(text, (yield from _string(text, at)))
    if text[at] != _COLON:
        raise _bad(text[at], "after object key")
    return at + 1


def _scalar(text: bytes, at: int) -> Generator[None, None, int]:
    byte = text[at]
    if byte == _QUOTE:
        return (yield from _string(text, at))
    literal = _LITERALS.get(byte)
    if literal is not None:
        return _literal(text, at, literal)
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        return _number(text, at)
    raise _bad(byte, "looking for beginning of value")


def _string(text: bytes, at: int) -> Generator[None, None, int]:
    match = _STRING.match(text, at)
    if match is not None:
        return match.end()
    at += 1
    steps = 0
    while True:
        match = _PLAIN.match(text, at)
        assert match is not None, "nothing is a match too"
        steps += 1 + (match.end() - at) // 256
        at = match.end()
        if at == len(text):
            raise BadJson(UNEXPECTED_EOF)
        byte = text[at]
        if byte == _QUOTE:
            return at + 1
        if byte == _BACKSLASH:
            at = _escape(text, at + 1)
        elif byte < 0x20:
            raise _bad(byte, "in string literal")
        if steps >= SLICE:
            steps = 0
            yield


def _escape(text: bytes, at: int) -> int:
    """Behind an escape sequence whose backslash stands before `at`."""
    if at == len(text):
        raise BadJson(UNEXPECTED_EOF)
    if text[at] in _ESCAPED:
        return at + 1
    if text[at] != ord("u"):
        raise _bad(text[at], "in string escape code")
    for place in range(at + 1, at + 5):
        if place == len(text):
            raise BadJson(UNEXPECTED_EOF)
        if text[place] not in _HEX:
            raise _bad(text[place], "in \\u hexadecimal character escape")
    return at + 5


def _literal(text: bytes, at: int, literal: bytes) -> int:
    for place, wanted in enumerate(literal):
        if at + place == len(text):
            raise BadJson(UNEXPECTED_EOF)
        if text[at + place] != wanted:
            name, expected = literal.decode(), chr(wanted)
            raise _bad(text[at + place], f"in literal {name} (expecting '{expected}')")
    return at + len(literal)


def _number(text: bytes, at: int) -> int:
    match = _NUMBER.match(text, at)
    if match is None:
        raise _bad_at(text, at + 1, "in numeric literal")
    at = match.end()
    following = text[at : at + 1]
    if following in (b"e", b"E") and match[3] is None:
        signed = text[at + 1 : at + 2] in (b"+", b"-")
        raise _bad_at(text, at + 1 + signed, "in exponent of numeric literal")
    if following == b"." and match[2] is None and match[3] is None:
        raise _bad_at(text, at + 1, "after decimal point in numeric literal")
    return at


def _bad_at(text: bytes, at: int, where: str) -> BadJson:
    return BadJson(UNEXPECTED_EOF) if at >= len(text) else _bad(text[at], where)


def _bad(byte: int, where: str) -> BadJson:
    return BadJson(f"invalid character '{_shown(byte)}' {where}")


def _shown(byte: int) -> str:
    """A byte in quotes, as Go's strconv has it: the character of that number."""
    if byte in _SHOWN:
        return _SHOWN[byte]
    if byte < 0x20 or byte == 0x7F:
        return f"\\x{byte:02x}"
    if 0x80 <= byte <= 0xA0 or byte == 0xAD:
        return f"\\u{byte:04x}"
    return chr(byte)
