"""`bbolt`: what is in a database file, page by page and key by key, as in etcdutl 3.8, from bbolt's tool.

Only what reads is here: `check`, `buckets`, `keys`, `get`, `page`, `pages`, `info`, `dump`. What writes
(`surgery`, `compact`) or measures (`bench`) is not: `etcdutl defrag` and restored snapshots are safer.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError, Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.places import patiently, reason
from pyetcd.storage.bolt import DatabaseError
from pyetcd.storage.bolt import page as pages_of
from pyetcd.storage.files import OsFiles
from pyetcd.storage.inspection import BadPage, Inspection, PageView, Visit, branch_of, leaf_of

SEPARATOR: Final = "=" * 47
LINE_BYTES: Final = 16
_META: Final = struct.Struct("<IIIIQQQQQQ")


@contextmanager
def _opened(call: Invocation) -> Iterator[Inspection]:
    """The file that is the first argument. ArgumentError where it cannot be looked at, as cobra ends then."""
    path, files = call.args[0], OsFiles()
    log_setup.to_nowhere()
    try:
        inspected = patiently(lambda: Inspection.open(files, path), call.number("timeout"))
    except FileNotFoundError:
        raise ArgumentError(f"source database file {gotext.quote(path)} doesn't exist") from None
    except (DatabaseError, OSError) as error:
        raise ArgumentError(reason(error)) from None
    try:
        yield inspected
    except BadPage as error:
        raise ArgumentError(str(error)) from None
    finally:
        inspected.close()


def check(call: Invocation) -> None:
    with _opened(call) as inspected:
        problems: list[str] = []
        walked = inspected.walk(lambda problem: problems.append(str(problem)), _nothing)
        for number in sorted(walked.free):
            if number >= len(walked.kinds):
                problems.append(f"page {number}: out of bounds: {len(walked.kinds)}")
            elif walked.kinds[number]:
                problems.append(f"page {number}: reachable freed")
        if walked.has_freelist and not problems:
            problems += [
                f"page {number}: unreachable unfreed"
                for number, kind in enumerate(walked.kinds)
                if not kind and number not in walked.free
            ]
        for problem in problems:
            _line(problem)
        if problems:
            _line(f"{len(problems)} errors found")
            raise ArgumentError("invalid value")
        _line("OK")


def buckets(call: Invocation) -> None:
    with _opened(call) as inspected:
        for name in sorted(_walk(inspected, _nothing)):
            if len(name) == 1:
                _line(_text(name[0]))


def keys(call: Invocation) -> None:
    with _opened(call) as inspected:
        for key, _, _ in _rows(inspected, call.args[1:]):
            _line(formatted(key, call.text("format")))


def get(call: Invocation) -> None:
    *names, text = call.args[1:]
    key = _parsed(text, call.text("parse-format"))
    if not key:
        raise ArgumentError("key is required: key required")
    with _opened(call) as inspected:
        for found, value, flag in _rows(inspected, names):
            if found == key and not flag:
                _line(formatted(value, call.text("format")))
                return
    raise ArgumentError(f'Error key not found for key: {gotext.quote(key)} hex: "{key.hex()}"')


def info(call: Invocation) -> None:
    with _opened(call) as inspected:
        _line(f"Page Size: {inspected.page_size}")


def pages(call: Invocation) -> None:
    with _opened(call) as inspected:
        walked = inspected.walk(_raised, _nothing)
        _line("ID       TYPE       ITEMS  OVRFLW")
        _line("======== ========== ====== ======")
        number = 0
        while number < len(walked.kinds):
            if walked.kinds[number]:
                view = inspected.page(number)
                overflow = str(view.overflow) if view.overflow else ""
                _line(f"{number:<8} {view.kind_name:<10} {view.count:<6} {overflow:<6}")
                number += view.overflow
            else:
                _line(f"{number:<8} {'free':<10} {'':<6} {'':<6}")
            number += 1


def page(call: Invocation) -> None:
    numbers = _numbers(call.args[1:])
    if call.on("all") and numbers:
        raise ArgumentError("invalid args: either use '--all' or 'pageid...'")
    if not call.on("all") and not numbers:
        raise ArgumentError("page id required")
    with _opened(call) as inspected:
        pending = list(range(inspected.meta.high_water))[::-1] if call.on("all") else numbers[::-1]
        is_first = True
        while pending:
            number = pending.pop()
            if not is_first:
                _line(SEPARATOR)
            is_first = False
            try:
                view = inspected.page(number)
                text = page_text(view, call.text("format-value"))
            except BadPage as error:
                _line(f"Printing page {number} failed: {error.reason}. Continuing...")
                continue
            _write(text)
            if call.on("all") and view.overflow:
                del pending[-view.overflow :]


def dump(call: Invocation) -> None:
    numbers = _numbers(call.args[1:])
    with _opened(call) as inspected:
        for at, number in enumerate(numbers):
            if at:
                _line(SEPARATOR)
            data = inspected.raw(number)
            if len(data) < inspected.page_size:
                raise ArgumentError("unexpected EOF" if data else "EOF")
            _write(dump_text(data, number * inspected.page_size))


def page_text(view: PageView, value_format: str) -> str:
    """One page for people. BadPage where its elements cannot be read."""
    lines = [
        f"Page ID:    {view.id}",
        f"Page Type:  {view.kind_name}",
        f"Total Size: {len(view.data)} bytes",
        f"Overflow pages: {view.overflow}",
    ]
    if view.kind == pages_of.META:
        _, version, size, flags, root, _, freelist, high_water, txid, checksum = _META.unpack_from(
            view.data, pages_of.HEADER_SIZE
        )
        lines += [
            f"Version:    {version}",
            f"Page Size:  {size} bytes",
            f"Flags:      {flags:08x}",
            f"Root:       <pgid={root}>",
            f"Freelist:   <pgid={freelist}>",
            f"HWM:        <pgid={high_water}>",
            f"Txn ID:     {txid}",
            f"Checksum:   {checksum:016x}",
            "",
        ]
    elif view.kind == pages_of.LEAF:
        lines += [f"Item Count: {view.count}", ""]
        for key, value, flag in zip(*leaf_of(view), strict=True):
            lines.append(f"{_key(key)}: {_bucket(value) if flag else formatted(value, value_format)}")
        lines.append("")
    elif view.kind == pages_of.BRANCH:
        lines += [f"Item Count: {view.count}", ""]
        lines += [f"{_key(key)}: <pgid={child}>" for key, child in zip(*branch_of(view), strict=True)]
        lines.append("")
    elif view.kind == pages_of.FREELIST:
        lines += [f"Item Count: {view.count}", f"Overflow: {view.overflow}", ""]
        content = view.data[pages_of.HEADER_SIZE : pages_of.HEADER_SIZE + 8 * view.count]
        lines += [str(number) for (number,) in struct.iter_unpack("<Q", content)]
        lines.append("")
    return "\n".join(lines) + "\n"


def dump_text(data: bytes, address: int) -> str:
    """Hexadecimal, 16 bytes a line; lines equal to the one before are a star, but for the last."""
    lines: list[str] = []
    before = b""
    is_skipping = False
    for at in range(0, len(data), LINE_BYTES):
        line = data[at : at + LINE_BYTES]
        if line == before and at != len(data) - LINE_BYTES:
            if not is_skipping:
                lines.append(f"{address + at:07x} *")
            is_skipping = True
        else:
            lines.append(f"{address + at:07x} {line.hex(' ', -2)}")
            is_skipping = False
        before = line
    return "\n".join(lines) + "\n\n"


def formatted(data: bytes, how: str) -> str:
    if how == "ascii-encoded":
        return gotext.quote(data)
    if how == "hex":
        return data.hex()
    if how == "bytes":
        return _text(data)
    if how == "auto":
        return _text(data) if _is_printable(data) else data.hex()
    if how == "redacted":
        return f"<redacted len:{len(data)} sha256:{hashlib.sha256(data).hexdigest()}>"
    raise ArgumentError(f"formatBytes: unsupported format: {how}")


def _parsed(text: str, how: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if how == "ascii-encoded":
        return data
    if how == "hex":
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise ArgumentError("encoding/hex: invalid byte or odd length hex string") from None
    raise ArgumentError(f"parseBytes: unsupported format: {how}")


def _numbers(words: Sequence[str]) -> list[int]:
    try:
        return [gotext.parse_uint(word, 10) for word in words if word]
    except gotext.GoValueError as error:
        raise ArgumentError(str(error)) from None


def _rows(inspected: Inspection, names: Sequence[str]) -> list[tuple[bytes, bytes, int]]:
    """What a bucket holds, in order. ArgumentError where there is no such bucket."""
    wanted = tuple(name.encode("utf-8", "surrogateescape") for name in names)
    found: list[tuple[bytes, bytes, int]] = []

    def note(visit: Visit) -> None:
        if visit.bucket == wanted and visit.view.kind == pages_of.LEAF:
            found.extend(zip(visit.keys, visit.values, visit.flags, strict=True))

    if wanted not in _walk(inspected, note):
        raise ArgumentError("bucket not found")
    return found


def _walk(inspected: Inspection, note: Callable[[Visit], None]) -> dict[tuple[bytes, ...], int]:
    return inspected.walk(_raised, note).roots


def _raised(problem: BadPage) -> None:
    raise problem


def _nothing(visit: Visit) -> None:
    return


def _key(key: bytes) -> str:
    return gotext.quote(key) if _is_printable(key) else key.hex()


def _bucket(value: bytes) -> str:
    root, sequence = pages_of.bucket_header.unpack_from(value)
    return f"<pgid={root},seq={sequence}>"


def _is_printable(data: bytes) -> bool:
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _line(text: str) -> None:
    _write(text + "\n")


def _write(text: str) -> None:
    """Keys are bytes, and stay what they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()
