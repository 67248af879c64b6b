"""What stands in a JSON value, token by token, as Go's protojson reads it.

The value has passed `json_values`, so that the grammar needs no second look. What only protojson refuses is
found here: text that is no UTF-8, half a surrogate pair.
"""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Generator
from typing import Final

NULL: Final = 0
BOOL: Final = 1
NUMBER: Final = 2
STRING: Final = 3
OPEN_OBJECT: Final = 4
CLOSE_OBJECT: Final = 5
OPEN_LIST: Final = 6
CLOSE_LIST: Final = 7
END: Final = 8

PROTO: Final = "proto: "
_BETWEEN: Final = re.compile(rb"[ \t\r\n,:]*")
_QUOTE: Final = ord('"')
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.){0,2000}+"', re.DOTALL)
_NUMBER: Final = re.compile(rb"[-+.0-9eE]+")
_BRACKETS: Final = {
    ord("{"): OPEN_OBJECT,
    ord("}"): CLOSE_OBJECT,
    ord("["): OPEN_LIST,
    ord("]"): CLOSE_LIST,
}
_WORDS: Final = {ord("n"): (NULL, 4), ord("t"): (BOOL, 4), ord("f"): (BOOL, 5)}
# A string as far as its surrogates come in pairs; in runs of at most 128 KiB.
_PIECES: Final = rb"\\[^u]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|\\u[dD][89abAB]..\\u[dD][c-fC-F].."
_PAIRED: Final = re.compile(rb"(?:[^\\]++|" + _PIECES + rb")*+", re.DOTALL)
_PAIRED_RUN: Final = re.compile(rb"(?:[^\"\\]{1,64}+|" + _PIECES + rb"){0,2000}+", re.DOTALL)

_CONTROL: Final = {"\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r"}


class Refused(Exception):
    """The value does not fit the message; the text is protojson's."""


class Tokens:
    """Reads one value. `next` moves on; `kind`, `start`, `end` and `raw` are of the token it came to."""

    __slots__ = ("_prepared", "end", "is_unfinished", "kind", "start", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.kind = END
        self.start = self.end = 0
        self.is_unfinished = False
        self._prepared: str | None = None  # what the string stands for, if it had to be found out in slices

    def next(self) -> int:
        """The kind of the next token. `is_unfinished` then says that it is a string too long for one step, of
        which nothing is known before `finish` has run."""
        text = self.text
        self._prepared = None
        match = _BETWEEN.match(text, self.end)
        assert match is not None, "nothing is a match too"
        start = self.start = match.end()
        if start == len(text):
            self.end, self.kind = start, END
            return END
        byte = text[start]
        kind = _BRACKETS.get(byte)
        if kind is not None:
            self.end, self.kind = start + 1, kind
        elif byte == _QUOTE:
            self.kind = STRING
            self.end = _string_end(text, start)
            self.is_unfinished = self.end < 0
        elif byte in _WORDS:
            self.kind, length = _WORDS[byte]
            self.end = start + length
        else:
            match = _NUMBER.match(text, start)
            assert match is not None, "a value that has been looked at has nothing else in it"
            self.end, self.kind = match.end(), NUMBER
        return self.kind

    @property
    def raw(self) -> str:
        return self.text[self.start : self.end].decode("utf-8", "replace")

    def string(self) -> str:
        """What the string stands for. Every string must be read, also one that is not wanted. Refused: it is
        none to protojson."""
        if self._prepared is not None:
            return self._prepared
        raw = self.text[self.start : self.end]
        try:
            plain = raw.decode()
        except UnicodeDecodeError:
            raise self.syntax_error(self.start, "invalid UTF-8 in string") from None
        if "\\" not in plain:
            return plain[1:-1]
        match = _PAIRED.match(raw)
        assert match is not None, "nothing is a match too"
        if match.end() < len(raw):
            raise self._half_a_pair(self.start + match.end())
        text: str = json.loads(plain)
        return text

    def finish(self) -> Generator[None, None, None]:
        """Find out in slices what a long string stands for, and where it ends. Refused."""
        decoder = getincrementaldecoder("utf-8")()
        pieces: list[str] = []
        at = self.start + 1
        while True:
            match = _PAIRED_RUN.match(self.text, at)
            assert match is not None, "nothing is a match too"
            is_last = self.text[match.end()] == _QUOTE
            if match.end() == at and not is_last:
                raise self._half_a_pair(at)
            try:
                piece = decoder.decode(match[0], final=is_last)
            except UnicodeDecodeError:
                raise self.syntax_error(self.start, "invalid UTF-8 in string") from None
            pieces.append(json.loads(f'"{piece}"'))
            at = match.end()
            if is_last:
                break
            yield
        self._prepared = "".join(pieces)
        self.end = at + 1
        self.is_unfinished = False

    def _half_a_pair(self, at: int) -> Refused:
        """`at`: the escape of a surrogate that has not its other half behind it."""
        following = self.text[at + 6 : at + 12]
        if len(following) < 6:
            return Refused(PROTO + "unexpected EOF")
        return self.syntax_error(self.start, f"invalid escape code {_go_quoted(following)} in string")

    # What is wrong

    def error(self, at: int, text: str) -> Refused:
        return Refused(f"{PROTO}{self._position(at)}: {text}")

    def syntax_error(self, at: int, text: str) -> Refused:
        return Refused(f"{PROTO}syntax error {self._position(at)}: {text}")

    def unexpected(self) -> Refused:
        return self.syntax_error(self.start, f"unexpected token {self.raw}")

    def _position(self, at: int) -> str:
        before = self.text[:at]
        line = before.count(b"\n")
        column = before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")
        return f"(line {line + 1}:{len(column) + 1})"


def _string_end(text: bytes, start: int) -> int:
    """-1: it is too long to be known in one step."""
    end = text.find(b'"', start + 1)
    if text.find(b"\\", start, end) < 0:  # most, and then faster than any pattern
        return end + 1
    match = _STRING.match(text, start)
    return -1 if match is None else match.end()


def _go_quoted(text: bytes) -> str:
    """As Go's %q shows a short piece of JSON."""
    shown = []
    for char in text.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if char in '"\\':
            shown.append("\\" + char)
        elif 0xDC80 <= code <= 0xDCFF:
            shown.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x20 or code == 0x7F:
            shown.append(_CONTROL.get(char, f"\\x{code:02x}"))
        else:
            shown.append(char)
    return '"' + "".join(shown) + '"'
