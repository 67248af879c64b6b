"""Keys and values as bbolt's tools print and read them."""

from __future__ import annotations

import hashlib
import sys

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError


def formatted(data: bytes, how: str) -> str:
    """ArgumentError where there is no such format."""
    if how == "ascii-encoded":
        return gotext.quote(data)
    if how == "hex":
        return data.hex()
    if how == "bytes":
        return text(data)
    if how == "auto":
        return text(data) if is_printable(data) else data.hex()
    if how == "redacted":
        return f"<redacted len:{len(data)} sha256:{hashlib.sha256(data).hexdigest()}>"
    raise ArgumentError(f"formatBytes: unsupported format: {how}")


def parsed(written: str, how: str) -> bytes:
    """ArgumentError where there is no such format, or it is not written so."""
    if how == "ascii-encoded":
        return given(written)
    if how == "hex":
        try:
            return bytes.fromhex(written)
        except ValueError:
            raise ArgumentError("encoding/hex: invalid byte or odd length hex string") from None
    raise ArgumentError(f"parseBytes: unsupported format: {how}")


def number(word: str) -> int:
    """A page's or an item's number. ArgumentError where it is none."""
    try:
        return gotext.parse_uint(word, 10)
    except gotext.GoValueError as error:
        raise ArgumentError(str(error)) from None


def is_printable(data: bytes) -> bool:
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def given(argument: str) -> bytes:
    """The bytes of an argument of the command line."""
    return argument.encode("utf-8", "surrogateescape")


def line(words: str) -> None:
    write(words + "\n")


def write(words: str) -> None:
    """Keys are bytes, and stay what they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(given(words))
    sys.stdout.buffer.flush()
