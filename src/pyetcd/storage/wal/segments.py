"""The files of a write-ahead log: their names, their order, their locks.

A segment is named `<sequence>-<index>.wal`, both as 16 hexadecimal digits: sequence numbers rise by one,
and `index` is that of the first raft entry that may be in it. A directory may also hold `ready-*.tmp`,
segments made ready before they are needed, and `.broken` copies of segments whose torn end was cut off.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pyetcd import logs
from pyetcd.storage.files import Files, named
from pyetcd.storage.wal.errors import WalCorrupt, WalError, WalLocked, WalMissing

_log = logs.get("storage")

SEGMENT_BYTES = 64 * 1000 * 1000
# Files made ready under other names than etcd's 0.tmp and 1.tmp: it would take one up without emptying it,
# and an unfinished cut of ours may have left records in there.
READY_NAMES = ("ready-0.tmp", "ready-1.tmp")
LEFTOVER_NAMES = (*READY_NAMES, "0.tmp", "1.tmp")
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")


@dataclass(slots=True)
class Segment:
    """One file of the log, and the descriptor by which we hold its lock (-1: not open)."""

    path: str
    sequence: int
    index: int
    fd: int = -1


def segment_name(sequence: int, index: int) -> str:
    return f"{sequence:016x}-{index:016x}.wal"


def list_segments(files: Files, directory: str) -> list[Segment]:
    """All segments, oldest first. WalMissing where there is none."""
    try:
        names = files.listdir(directory)
    except FileNotFoundError:
        raise WalMissing(f"wal: {directory} does not exist") from None
    except NotADirectoryError:
        raise WalError(f"wal: {directory} is not a directory") from None
    found = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match is not None:
            found.append(Segment(f"{directory}/{name}", int(match[1], 16), int(match[2], 16)))
        elif not name.endswith((".tmp", ".broken")):
            _log.warn("ignored file in WAL directory", {"path": name})
    if not found:
        raise WalMissing(f"wal: file not found: no segments in {directory}")
    return found


def exists(files: Files, directory: str) -> bool:
    """Whether the directory holds a log."""
    if not files.is_dir(directory):
        return False
    return any(_NAME.fullmatch(name) for name in files.listdir(directory))


def check_order(before: Segment, after: Segment) -> None:
    """Sequence numbers rise by one and indexes do not fall, or WalCorrupt names the gap."""
    if after.sequence != before.sequence + 1:
        why = f"file sequence numbers do not increase continuously: {after.sequence - 1:016x} is missing"
        raise WalCorrupt(after.path, None, why)
    if after.index < before.index:
        raise WalCorrupt(after.path, None, f"its first index is below that of {before.path}")


def open_locked(files: Files, segment: Segment) -> None:
    """Open a segment for writing and take its lock. WalLocked where another process has it."""
    fd = files.open(segment.path, write=True)
    if not files.lock(fd):
        files.close(fd)
        raise WalLocked(f"wal: {segment.path}: fileutil: file already locked")
    segment.fd = fd


def make_segment_file(files: Files, path: str, length: int) -> int:
    """A new file of zeros with its space reserved, locked. OSError, and no file left, where the disk is
    full.
    """
    fd = files.open(path, create=True, truncate=True)
    try:
        if not files.lock(fd):
            raise WalLocked(f"wal: {path}: fileutil: file already locked")
        files.preallocate(fd, length)
    except OSError as error:
        files.close(fd)
        files.unlink(path)
        raise named(error, path) from None
    except WalLocked:
        files.close(fd)
        raise
    return fd


def close(files: Files, segment: Segment) -> None:
    """Close a segment, which gives its lock back."""
    if segment.fd >= 0:
        files.close(segment.fd)
        segment.fd = -1


def locker(files: Files) -> Callable[[Segment], int]:
    """Opens a segment for writing, once, and hands out its descriptor."""

    def descriptor(segment: Segment) -> int:
        if segment.fd < 0:
            open_locked(files, segment)
        return segment.fd

    return descriptor


def check_leftovers(files: Files, directory: str) -> None:
    """WalError unless a directory without a log is missing, or has nothing in it but what a creation that did
    not finish left there.
    """
    if not files.exists(directory):
        return
    if not files.is_dir(directory):
        raise WalError(f"wal: {directory} is not a directory")
    for name in files.listdir(directory):
        if not directory.endswith(".tmp") and not name.endswith(".tmp"):
            raise WalError(f"wal: {directory} holds no log, but {name}: not overwritten")


def remove_leftovers(files: Files, directory: str) -> None:
    """Remove what a creation that did not finish left in a directory, and the directory. WalError, with
    nothing removed, where there is anything else.
    """
    check_leftovers(files, directory)
    if not files.exists(directory):
        return
    for name in files.listdir(directory):
        files.unlink(f"{directory}/{name}")
    files.rmdir(directory)
