"""A disk that remembers what was written and synced in which order, and what it could look like after a
crash.

The files are real (the database maps them), the history is kept beside them. `crash` makes a new directory
with what a power loss at some moment could have left: everything synced before it, and of what came after
any part, down to single sectors, in any order. A name that was never synced into its directory may be
missing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyetcd.storage.bolt import Database
from pyetcd.storage.files import Data, OsFiles

SECTOR = 512
Content = dict[bytes, dict[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`kind`: create, write, truncate, sync, sync_dir. For truncate `offset` is the length."""

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""


class RecordingFiles(OsFiles):
    """Keeps what would change the disk; `fail_at` makes the operation of that number raise."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.fail_at: int | None = None
        self.error: OSError = OSError(28, "No space left on device")
        self._names: dict[int, str] = {}

    def _note(self, kind: str, name: str, offset: int = 0, data: bytes = b"") -> None:
        if self.fail_at is not None and len(self.operations) >= self.fail_at:
            raise self.error
        self.operations.append(Operation(kind, name, offset, data))

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> int:
        name = os.path.basename(path)
        if create and not os.path.exists(path):
            self._note("create", name)
        fd = super().open(path, write=write, create=create, exclusive=exclusive, truncate=truncate)
        self._names[fd] = name
        return fd

    def pwrite(self, fd: int, data: Data, offset: int) -> None:
        self._note("write", self._names[fd], offset, bytes(data))
        super().pwrite(fd, data, offset)

    def pwritev(self, fd: int, parts: Sequence[Data], offset: int) -> None:
        self.pwrite(fd, b"".join(parts), offset)

    def truncate(self, fd: int, length: int) -> None:
        self._note("truncate", self._names[fd], length)
        super().truncate(fd, length)

    def fdatasync(self, fd: int) -> None:
        self._note("sync", self._names[fd])

    def fsync(self, fd: int) -> None:
        self._note("sync", self._names[fd])

    def fsync_dir(self, path: str) -> None:
        self._note("sync_dir", "")


class Image:
    """What is durable, and what is only on its way, after some of the operations."""

    def __init__(self, start: dict[str, bytes]) -> None:
        self.durable = {name: bytearray(data) for name, data in start.items()}
        self.named = set(start)
        self.pending: dict[str, list[Operation]] = {name: [] for name in start}

    def advance(self, operation: Operation) -> None:
        name = operation.name
        if operation.kind == "create":
            self.durable[name] = bytearray()
            self.pending[name] = []
        elif operation.kind == "sync_dir":
            self.named.update(self.durable)
        elif operation.kind == "sync":
            for each in self.pending[name]:
                _carry_out(self.durable[name], each)
            self.pending[name] = []
        else:
            self.pending[name].append(operation)

    def lose_power(self, rnd: random.Random, how: str) -> dict[str, bytes]:
        """`how`: none (nothing unsynced survives), all, some (whole operations), torn (sectors)."""
        left: dict[str, bytes] = {}
        for name, durable in self.durable.items():
            if name not in self.named and (how == "none" or (how != "all" and rnd.random() < 0.5)):
                continue
            data = bytearray(durable)
            for operation in self.pending[name]:
                if how == "all" or (how in ("some", "torn") and rnd.random() < 0.5):
                    _carry_out(data, operation)
                elif how == "torn" and operation.kind == "write":
                    for sector in _sectors(operation):
                        if rnd.random() < 0.5:
                            _carry_out(data, sector)
            left[name] = bytes(data)
        return left


def _sectors(write: Operation) -> list[Operation]:
    pieces = []
    at = 0
    while at < len(write.data):
        offset = write.offset + at
        size = SECTOR - offset % SECTOR
        pieces.append(Operation("write", write.name, offset, write.data[at : at + size]))
        at += size
    return pieces


def _carry_out(data: bytearray, operation: Operation) -> None:
    if operation.kind == "truncate":
        del data[operation.offset :]
        data.extend(bytes(operation.offset - len(data)))
        return
    end = operation.offset + len(operation.data)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    data[operation.offset : end] = operation.data


def place(directory: Path, files: dict[str, bytes]) -> Path:
    """Write a crash's leftovers into a fresh directory; returns the database's path."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("db", "db.sum"):
        path = directory / name
        path.unlink(missing_ok=True)
        if name in files:
            path.write_bytes(files[name])
    return directory / "db"


def content(database: Database) -> Content:
    """All buckets of the current state."""
    return {
        name: dict(database.pages.scan(bucket, b"", None, 0))
        for name, bucket in database.state.buckets.items()
    }


def change(database: Database, changes: dict[bytes, dict[bytes, bytes | None]], fill: float = 0.5) -> None:
    """One commit."""
    commit = database.begin()
    for bucket, values in changes.items():
        for _ in commit.apply(bucket, sorted(values), values, fill):
            pass
    database.commit(commit)


def applied(before: Content, changes: dict[bytes, dict[bytes, bytes | None]]) -> Content:
    """What `change` should lead to."""
    after = {bucket: dict(values) for bucket, values in before.items()}
    for bucket, values in changes.items():
        target = after.setdefault(bucket, {})
        for key, value in values.items():
            if value is None:
                target.pop(key, None)
            else:
                target[key] = value
    return after


def random_changes(
    rnd: random.Random, before: Content, revision: int
) -> dict[bytes, dict[bytes, bytes | None]]:
    """Appends, puts and deletes as etcd mixes them, and now and then a mass of one kind."""
    changes: dict[bytes, dict[bytes, bytes | None]] = {
        b"meta": {b"consistent_index": revision.to_bytes(8, "big")}
    }
    keys = changes.setdefault(b"key", {})
    for sub in range(rnd.choice([0, 1, 5, 40, 200])):
        size = rnd.choice([0, 20, 300, 300, 2000, 9000]) if rnd.random() < 0.3 else 100
        keys[revision.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")] = rnd.randbytes(size)
    known = sorted(before.get(b"key", {}))
    if known and rnd.random() < 0.5:
        first = rnd.randrange(len(known))
        for key in known[first : first + rnd.choice([1, 10, 1000])]:
            keys[key] = None
    leases = changes.setdefault(b"lease", {})
    for _ in range(rnd.choice([0, 0, 3, 100])):
        leases[rnd.randrange(300).to_bytes(8, "big")] = None if rnd.random() < 0.4 else rnd.randbytes(12)
    return changes
