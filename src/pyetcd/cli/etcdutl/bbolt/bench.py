"""`bench`: how fast our engine writes and reads a database of its own, with bbolt's patterns and lines.

Its buckets hold keys only, as etcd's: there are no `seq-nest` and `rnd-nest`.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError, Invocation
from pyetcd.cli.etcdutl.places import said
from pyetcd.storage.bolt import Database, DatabaseError, Pin
from pyetcd.storage.bolt.database import PAGE_SIZE
from pyetcd.storage.files import OsFiles

BUCKET: Final = b"bench"
READ_NS: Final = 1_000_000_000  # reads go on for so long
SECOND_NS: Final = 1_000_000_000
NUMBER_BYTES: Final = 4  # of a key that count


def bench(call: Invocation) -> None:
    count, batch, fill = _checked(call)
    path = call.text("path") or tempfile.mktemp(prefix="bolt-bench-")  # the engine makes the file
    if os.path.lexists(path):  # it would be removed at the end
        raise ArgumentError(f"{gotext.quote(path)} is there already, and would be overwritten")
    for flag in ("cpuprofile", "memprofile", "blockprofile"):
        if call.text(flag):
            _tell(f"--{flag} has no effect: it is for Go's profiles")
    if call.on("work"):
        _tell(f"work: {path}")
    try:
        _run(call, path, count, batch, fill)
    except DatabaseError as error:
        raise ArgumentError(str(error)) from None
    except OSError as error:
        raise ArgumentError(said("open", path, error)) from None
    finally:
        for made in (path, path + ".sum"):
            if not call.on("work") and os.path.exists(made):
                os.remove(made)


def _checked(call: Invocation) -> tuple[int, int, float]:
    """How many keys, how many a transaction, and how full pages become. ArgumentError."""
    count, batch = call.number("count"), call.number("batch-size")
    if batch > 0 and count % batch:
        raise ArgumentError("the number of iterations must be divisible by the batch size")
    modes = ("seq", "rnd", "seq-nest", "rnd-nest")
    if call.text("write-mode") not in modes:
        raise ArgumentError("the write mode should be one of seq, rnd, seq-nest, or rnd-nest")
    if call.text("write-mode") not in modes[:2]:
        raise ArgumentError("pyetcd's engine has no buckets within buckets: the write mode is seq or rnd")
    if call.text("read-mode") not in modes[:2]:
        raise ArgumentError(f"bench: read: invalid read mode: {call.text('read-mode')}")
    if call.number("page-size") != PAGE_SIZE:
        raise ArgumentError(f"pyetcd's engine makes pages of {PAGE_SIZE} bytes")
    if count < 1 or batch < 0 or call.number("key-size") < NUMBER_BYTES or call.number("value-size") < 0:
        raise ArgumentError(f"there must be something to write, with keys of {NUMBER_BYTES} bytes at least")
    written = call.text("fill-percent")
    try:
        fill = float(written)
    except ValueError:
        quoted = gotext.quote(written)
        why = f"strconv.ParseFloat: parsing {quoted}: invalid syntax"
        raise ArgumentError(f'invalid argument {quoted} for "--fill-percent" flag: {why}') from None
    return count, batch or count, min(max(fill, 0.1), 1.0)


def _run(call: Invocation, path: str, count: int, batch: int, fill: float) -> None:
    database = Database.open(OsFiles(), path, sync=not call.on("no-sync"))
    try:
        _tell("starting write benchmark.")
        began = time.monotonic_ns()
        keys: list[bytes] = []
        numbers = _numbers(call.text("write-mode"))
        progress = _Progress()
        for first in range(0, count, batch):
            _tell(f"Starting write iteration {first}")
            added = [
                next(numbers).to_bytes(NUMBER_BYTES, "big").ljust(call.number("key-size"), b"\0")
                for _ in range(batch)
            ]
            commit = database.begin()
            values: dict[bytes, bytes | None] = dict.fromkeys(sorted(added), bytes(call.number("value-size")))
            for _ in commit.apply(BUCKET, list(values), values, fill):
                pass
            _tell(f"Finished write iteration {first}")
            database.commit(commit)
            keys += added
            progress.reached(len(keys))
        wrote = time.monotonic_ns() - began
        _tell("starting read benchmark.")
        pin = database.pin()
        try:
            read, reading = _read(pin, keys, call.text("read-mode"))
        finally:
            pin.close()
    finally:
        database.close()
    show = _go_line if call.on("gobench-output") else _line
    sys.stdout.write(f"{show('Write', count, wrote)}\n{show('Read', read, reading)}\n\n")


def _numbers(mode: str) -> Iterator[int]:
    number = 0
    while True:
        number = number + 1 if mode == "seq" else random.getrandbits(8 * NUMBER_BYTES)
        yield number & 0xFFFF_FFFF


def _read(pin: Pin, keys: list[bytes], mode: str) -> tuple[int, int]:
    """All keys, again and again. How many have been read, and in how many nanoseconds."""
    random.shuffle(keys)
    began = time.monotonic_ns()
    read = 0
    progress = _Progress()
    while True:
        if mode == "rnd":
            for key in keys:
                if pin.get(BUCKET, key) is None:
                    raise ArgumentError("bench: read: invalid value")
            read += len(keys)
        else:
            read += sum(len(found) for found, _ in pin.leaves(BUCKET))
        progress.reached(read)
        took = time.monotonic_ns() - began
        if took >= READ_NS:
            return read, took


class _Progress:
    """A line a second."""

    def __init__(self) -> None:
        self._at = time.monotonic_ns()
        self._before = 0

    def reached(self, done: int) -> None:
        now = time.monotonic_ns()
        if now - self._at >= SECOND_NS:
            _tell(f"Completed {done} requests, {(done - self._before) * SECOND_NS // (now - self._at)}/s ")
            self._at, self._before = now, done


def _line(name: str, count: int, took: int) -> str:
    each = took // count
    rate = SECOND_NS // each if each else 0
    return f"# {name}\t{count}(ops)\t{gotext.duration(took)}\t({gotext.duration(each)}/op)\t({rate} op/sec)"


def _go_line(name: str, count: int, took: int) -> str:
    """As Go prints the result of a benchmark: four digits at least, in a column."""
    each = took / count
    digits = next((n for n, least in enumerate((999.95, 99.995, 9.9995, 0.99995)) if each >= least), 4)
    return f"{'Benchmark' + name:<14}\t{count:8d}\t{each:{10 + digits + (digits > 0)}.{digits}f} ns/op"


def _tell(words: str) -> None:
    sys.stderr.write(words + "\n")
