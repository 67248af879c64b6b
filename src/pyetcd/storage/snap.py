"""`.snap` files: raft snapshots as etcd 3.7 still writes them, one file each, in `member/snap` beside the
database.

A file is named `<term>-<index>.snap` (16 hexadecimal digits each) and holds a `snappb.Snapshot`: a checksum
and an encoded `raftpb.Snapshot`, whose data is the membership as v2 store text. A start needs none of them
(it goes by the log's snapshot markers), but older members and tools read them. A file appears whole or not
at all; one that cannot be read is renamed to `.broken` and passed over.

All calls block for the disk, so a server makes them through its executor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pyetcd import logs
from pyetcd._native import crc32c
from pyetcd.proto.splice import Malformed, fields
from pyetcd.storage.files import Files, named
from pyetcd.storage.wal.frames import varint

_log = logs.get("storage")

_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.snap")
_DATABASE = re.compile(r"([0-9a-f]{16})\.snap\.db")
_UNFINISHED = "tmp-"  # etcd, too, removes what begins with `tmp` when it starts


class SnapError(Exception):
    """A snapshot file that cannot be read. The message says why, in etcd's words."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """raftpb.Snapshot. `conf_state` is an encoded raftpb.ConfState."""

    index: int
    term: int
    conf_state: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Saved:
    """A snapshot file that was written, and what that took."""

    path: str
    encode_seconds: float
    sync_seconds: float
    total_seconds: float


def encode(snapshot: Snapshot) -> bytes:
    """A snappb.Snapshot with all it holds, as the file has it."""
    metadata = b"\x0a%b%b\x10%b\x18%b" % (
        varint(len(snapshot.conf_state)),
        snapshot.conf_state,
        varint(snapshot.index),
        varint(snapshot.term),
    )
    raft = b"\x0a%b%b\x12%b%b" % (varint(len(snapshot.data)), snapshot.data, varint(len(metadata)), metadata)
    return b"\x08%b\x12%b%b" % (varint(crc32c(raft)), varint(len(raft)), raft)


def decode(content: bytes) -> Snapshot:
    """SnapError if the content is not that of a `.snap` file."""
    if not content:
        raise SnapError("snap: empty snapshot")
    try:
        frame = _read(content)
        raft, crc = frame.get(2, b""), frame.get(1, 0)
        if not isinstance(raft, bytes) or not raft or not isinstance(crc, int) or crc == 0:
            raise SnapError("snap: empty snapshot")
        if crc32c(raft) != crc:
            raise SnapError("snap: crc mismatch")
        found = _read(raft)
        metadata = _read(_bytes(found, 2))
        return Snapshot(_number(metadata, 2), _number(metadata, 3), _bytes(metadata, 1), _bytes(found, 1))
    except Malformed as error:
        raise SnapError(f"snap: {error}") from None


def _read(message: bytes) -> dict[int, int | bytes]:
    return {number: a if kind == 0 else message[a:b] for number, kind, a, b in fields(message)}


def _bytes(found: dict[int, int | bytes], number: int) -> bytes:
    value = found.get(number, b"")
    if not isinstance(value, bytes):
        raise Malformed(f"field {number} is not bytes")
    return value


def _number(found: dict[int, int | bytes], number: int) -> int:
    value = found.get(number, 0)
    if not isinstance(value, int):
        raise Malformed(f"field {number} is not a number")
    return value


class Snapshots:
    """The `.snap` files of one member."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._directory = directory

    def save(self, snapshot: Snapshot, clock: Callable[[], float] = lambda: 0.0) -> Saved:
        """Write a snapshot; it is durable when this returns."""
        started = clock()
        content = encode(snapshot)
        encoded = clock()
        name = f"{snapshot.term:016x}-{snapshot.index:016x}.snap"
        files, path = self._files, f"{self._directory}/{name}"
        unfinished = f"{self._directory}/{_UNFINISHED}{name}"
        try:
            fd = files.open(unfinished, create=True, truncate=True)
            try:
                files.pwrite(fd, content, 0)
                writing = clock()
                files.fsync(fd)
                synced = clock()
            finally:
                files.close(fd)
            files.rename(unfinished, path)
            files.fsync_dir(self._directory)
        except OSError as error:
            _log.warn("failed to write a snap file", {"path": path, "error": error})
            if files.exists(unfinished):
                files.unlink(unfinished)
            raise named(error, path) from None
        return Saved(path, encoded - started, synced - writing, clock() - started)

    def names(self) -> list[str]:
        """The names of all snapshot files, newest first."""
        return [name for name in reversed(self._files.listdir(self._directory)) if _NAME.fullmatch(name)]

    def load(self, wanted: Collection[tuple[int, int]] | None = None) -> Snapshot | None:
        """The newest snapshot that can be read and is `wanted` (index, term): None for any. None if there
        is none.
        """
        for name in self.names():
            path = f"{self._directory}/{name}"
            try:
                snapshot = decode(self._files.read(path))
            except SnapError as error:
                _log.warn("failed to read a snap file", {"path": path, "error": error})
                broken = path + ".broken"
                self._files.rename(path, broken)
                _log.warn("renamed to a broken snap file", {"path": path, "broken-path": broken})
                continue
            if wanted is None or (snapshot.index, snapshot.term) in wanted:
                return snapshot
        return None

    def tidy(self) -> None:
        """At start: remove what an interrupted write or defragmentation left behind."""
        for name in self._files.listdir(self._directory):
            if name.startswith("db.tmp"):
                path = f"{self._directory}/{name}"
                _log.info("found orphaned defragmentation file; deleting", {"path": path})
                self._files.unlink(path)
            elif name.startswith("tmp"):
                self._files.unlink(f"{self._directory}/{name}")

    def release_databases(self, index: int) -> None:
        """Remove databases received with snapshots older than `index`."""
        for name in self._files.listdir(self._directory):
            match = _DATABASE.fullmatch(name)
            if match is not None and int(match[1], 16) < index:
                path = f"{self._directory}/{name}"
                _log.info("found orphaned .snap.db file; deleting", {"path": path})
                self._files.unlink(path)

    def purge(self, keep: int) -> list[str]:
        """Remove the oldest files until `keep` (1 or more) are left. Returns the paths of those removed."""
        return self._purge(self.names()[keep:])

    def purge_databases(self, keep: int) -> list[str]:
        """The same for received databases."""
        names = [name for name in self._files.listdir(self._directory) if _DATABASE.fullmatch(name)]
        return self._purge(names[::-1][keep:])

    def _purge(self, names: list[str]) -> list[str]:
        gone = [f"{self._directory}/{name}" for name in reversed(names)]
        for path in gone:
            self._files.unlink(path)
            _log.info("purged", {"path": path})
        return gone
