"""A disk that remembers everything that changed it, in order, and what it could look like after the power
failed.

The files are real, since the database maps them; their history is kept beside them. A `Past` is fed with
operations one by one and says what may be left at that moment: of each file all that was synced and, of what
came after, any part down to single sectors; of each directory the names that were synced and any of the later
changes. That is more than file systems promise to do, and all that POSIX promises not to.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyetcd.storage.files import Data, OsFiles

SECTOR = 512
Tree = dict[str, "bytes | Tree"]


@dataclass(frozen=True, slots=True)
class Operation:
    """`kind` on the file or directory `node`: write and grow (a file), sync, add, rename, remove (names)."""

    kind: str
    node: int
    offset: int = 0
    data: bytes = b""
    name: str = ""
    other: str = ""  # rename: the new name
    child: int = 0  # add: the node that gets the name
    is_directory: bool = False


class RecordingFiles(OsFiles):
    """Keeps what would change the disk below `root`, which exists and is empty."""

    def __init__(self, root: Path) -> None:
        self.operations: list[Operation] = []
        self._root = str(root)
        self._nodes: dict[str, int] = {str(root): 0}  # by path, as things are now
        self._count = 0
        self._fds: dict[int, int] = {}

    def _place(self, path: str) -> tuple[int, str]:
        directory, _, name = path.rpartition("/")
        return self._nodes[directory], name

    def _add(self, path: str, is_directory: bool) -> None:
        parent, name = self._place(path)
        self._count += 1
        self._nodes[path] = self._count
        child = Operation("add", parent, name=name, child=self._count, is_directory=is_directory)
        self.operations.append(child)

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> int:
        is_new = not os.path.exists(path)
        fd = super().open(path, write=write, create=create, exclusive=exclusive, truncate=truncate)
        if is_new:
            self._add(path, False)
        elif truncate:
            self.operations.append(Operation("truncate", self._nodes[path]))
        self._fds[fd] = self._nodes[path]
        return fd

    def pwrite(self, fd: int, data: Data, offset: int) -> None:
        self.operations.append(Operation("write", self._fds[fd], offset, bytes(data)))
        super().pwrite(fd, data, offset)

    def pwritev(self, fd: int, parts: Sequence[Data], offset: int) -> None:
        self.pwrite(fd, b"".join(parts), offset)

    def truncate(self, fd: int, length: int) -> None:
        self.operations.append(Operation("truncate", self._fds[fd], length))
        super().truncate(fd, length)

    def preallocate(self, fd: int, length: int) -> None:
        self.operations.append(Operation("grow", self._fds[fd], length))
        super().preallocate(fd, length)

    def fdatasync(self, fd: int) -> None:
        self.operations.append(Operation("sync", self._fds[fd]))

    fsync = fdatasync

    def mkdir(self, path: str, *, parents: bool = False) -> None:
        if parents and os.path.dirname(path) not in self._nodes:
            self.mkdir(os.path.dirname(path), parents=True)
        super().mkdir(path, parents=parents)
        self._add(path, True)

    def rename(self, old: str, new: str) -> None:
        parent, name = self._place(old)
        assert os.path.dirname(old) == os.path.dirname(new), "nothing moves between directories"
        super().rename(old, new)
        self.operations.append(Operation("rename", parent, name=name, other=os.path.basename(new)))
        for path in [path for path in self._nodes if path == old or path.startswith(old + "/")]:
            self._nodes[new + path[len(old) :]] = self._nodes.pop(path)

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self._remove(path)

    def rmdir(self, path: str) -> None:
        super().rmdir(path)
        self._remove(path)

    def _remove(self, path: str) -> None:
        parent, name = self._place(path)
        del self._nodes[path]
        self.operations.append(Operation("remove", parent, name=name))

    def fsync_dir(self, path: str) -> None:
        self.operations.append(Operation("sync", self._nodes[path]))


@dataclass(slots=True)
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)


@dataclass(slots=True)
class _Directory:
    durable: dict[str, int] = field(default_factory=dict)
    pending: list[Operation] = field(default_factory=list)


class Past:
    """The disk after some of the operations."""

    def __init__(self) -> None:
        self._nodes: dict[int, _File | _Directory] = {0: _Directory()}

    def advance(self, operation: Operation) -> None:
        node = self._nodes[operation.node]
        if operation.kind == "add":
            self._nodes[operation.child] = _Directory() if operation.is_directory else _File()
        if operation.kind != "sync":
            node.pending.append(operation)
            return
        for each in node.pending:
            if isinstance(node, _File):
                _change(node.durable, each)
            else:
                _rename(node.durable, each)
        node.pending.clear()

    def lose_power(self, rnd: random.Random, how: str) -> Tree:
        """`how`: none (nothing that is not synced survives), all, some (whole operations), torn (sectors)."""
        return self._directory(0, rnd, how)

    def _directory(self, number: int, rnd: random.Random, how: str) -> Tree:
        node = self._nodes[number]
        assert isinstance(node, _Directory)
        names = dict(node.durable)
        for operation in node.pending:
            if _survives(rnd, how):
                _rename(names, operation)
        left: Tree = {}
        for name, child in names.items():
            is_directory = isinstance(self._nodes[child], _Directory)
            left[name] = self._directory(child, rnd, how) if is_directory else self._file(child, rnd, how)
        return left

    def _file(self, number: int, rnd: random.Random, how: str) -> bytes:
        node = self._nodes[number]
        assert isinstance(node, _File)
        data, pending = bytearray(node.durable), node.pending
        if how != "torn":
            reached = {"none": 0, "all": len(pending), "some": rnd.randint(0, len(pending))}[how]
            for operation in pending[:reached]:
                _change(data, operation)
            return bytes(data)
        # A sector goes to disk as it is in memory at some moment, with all that was written to it by then.
        until: dict[int, int] = {}
        for at, operation in enumerate(pending):
            for part in _sectors(operation):
                sector = part.offset // SECTOR if part.kind == "write" else -1
                if at < until.setdefault(sector, rnd.randint(0, len(pending))):
                    _change(data, part)
        return bytes(data)


def _survives(rnd: random.Random, how: str) -> bool:
    return how == "all" or (how in ("some", "torn") and rnd.random() < 0.5)


def _sectors(write: Operation) -> Iterator[Operation]:
    """A write by sectors; another operation as it is."""
    at = 0
    if write.kind != "write":
        yield write
    while at < len(write.data):
        offset = write.offset + at
        size = SECTOR - offset % SECTOR
        yield Operation("write", write.node, offset, write.data[at : at + size])
        at += size


def _change(data: bytearray, operation: Operation) -> None:
    end = operation.offset + len(operation.data)
    if operation.kind == "truncate":
        del data[operation.offset :]
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    if operation.kind == "write":
        data[operation.offset : end] = operation.data


def _rename(names: dict[str, int], operation: Operation) -> None:
    """Carry out a change of names; one whose beginning was lost is lost, too."""
    if operation.kind == "add":
        names[operation.name] = operation.child
    elif operation.name in names:
        child = names.pop(operation.name)
        if operation.kind == "rename":
            names[operation.other] = child


def place(root: Path, tree: Tree) -> None:
    """Write what is left into a directory that is empty or not there."""
    root.mkdir(mode=0o700, exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            place(root / name, content)
            continue
        used = content.rstrip(b"\0")
        with (root / name).open("wb") as file:
            file.write(used)
            file.truncate(len(content))
