"""A disk that loses power: what a whole data directory may look like after any moment.

The files are real (the database maps them), nothing of them is synced; beside them the order of everything
that changes the disk is kept, over all files, the appender's included. An `Image` goes along that order and
knows what is durable: of a file what was synced, of a directory the names it had when it was synced. What is
not durable may be there or not: of a file any sectors, each as it was at some moment; of a directory's names
the older before the newer ones, as journals keep them.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyetcd.storage.files import Data, OsFiles

SECTOR = 512
ROOT = -1


class Sectors:
    """The content of a file of which most is holes."""

    def __init__(self, size: int = 0, sectors: dict[int, bytes] | None = None) -> None:
        self.size = size
        self.sectors = {} if sectors is None else sectors

    def copy(self) -> Sectors:
        return Sectors(self.size, dict(self.sectors))

    def write(self, offset: int, data: bytes) -> None:
        at = 0
        while at < len(data):
            number, inside = divmod(offset + at, SECTOR)
            part = data[at : at + SECTOR - inside]
            if len(part) < SECTOR:
                old = self.sectors.get(number, bytes(SECTOR))
                part = old[:inside] + part + old[inside + len(part) :]
            self.sectors[number] = part
            at += SECTOR - inside
        self.size = max(self.size, offset + len(data))

    def truncate(self, size: int) -> None:
        if size < self.size:
            last = size // SECTOR
            for number in [number for number in self.sectors if number >= last]:
                kept = self.sectors.pop(number)
                if number == last and size % SECTOR:
                    self.sectors[number] = kept[: size % SECTOR].ljust(SECTOR, b"\0")
        self.size = size

    def place(self, path: Path) -> None:
        with path.open("wb") as file:
            path.chmod(0o600)
            for number in sorted(self.sectors):
                file.seek(number * SECTOR)
                file.write(self.sectors[number])
            file.truncate(self.size)


@dataclass(frozen=True, slots=True)
class Operation:
    """`kind`: write, truncate, sync (of the file `number`); link, unlink, rename, sync_dir (of the directory
    `number`). Files have numbers above 0, directories below."""

    kind: str
    number: int
    offset: int = 0
    data: bytes = b""
    name: str = ""
    other: str = ""  # the new name
    child: int = 0  # what is linked


class PowerFiles(OsFiles):
    """`OsFiles` on `root` that notes what would change the disk. Any thread."""

    def __init__(self, root: Path) -> None:
        self.operations: list[Operation] = []
        self.contents: dict[int, Sectors] = {}  # at the start, durable
        self.names: dict[int, dict[str, int]] = {ROOT: {}}  # the same
        self._lock = threading.Lock()
        self._by_path = {str(root): ROOT}
        self._by_fd: dict[int, int] = {}
        self._count = 1
        for path in sorted(root.rglob("*")):
            number = self._new(str(path), path.is_dir())
            self.names[self._by_path[str(path.parent)]][path.name] = number
            if number > 0:
                self.contents[number] = content = Sectors()
                content.write(0, path.read_bytes().rstrip(b"\0"))
                content.size = path.stat().st_size
            else:
                self.names[number] = {}

    def _new(self, path: str, is_directory: bool) -> int:
        self._count += 1
        number = self._by_path[path] = -self._count if is_directory else self._count
        return number

    def _note(self, kind: str, number: int, offset: int = 0, data: bytes = b"") -> None:
        self.operations.append(Operation(kind, number, offset, data))

    def _note_name(self, kind: str, path: str, child: int = 0, other: str = "") -> None:
        directory, name = os.path.split(path)
        self.operations.append(
            Operation(kind, self._by_path[directory], name=name, child=child, other=os.path.basename(other))
        )

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> int:
        with self._lock:
            fd = super().open(path, write=write, create=create, exclusive=exclusive, truncate=truncate)
            number = self._by_path.get(path)
            if number is None:
                number = self._new(path, False)
                self._note_name("link", path, number)
            elif truncate:
                self._note("truncate", number)
            self._by_fd[fd] = number
            return fd

    def pwrite(self, fd: int, data: Data, offset: int) -> None:
        with self._lock:
            super().pwrite(fd, data, offset)
            self._note("write", self._by_fd[fd], offset, bytes(data))

    def pwritev(self, fd: int, parts: Sequence[Data], offset: int) -> None:
        self.pwrite(fd, b"".join(parts), offset)

    def truncate(self, fd: int, length: int) -> None:
        with self._lock:
            super().truncate(fd, length)
            self._note("truncate", self._by_fd[fd], length)

    def preallocate(self, fd: int, length: int) -> None:
        if self.size(fd) < length:
            self.truncate(fd, length)

    def fdatasync(self, fd: int) -> None:
        with self._lock:
            self._note("sync", self._by_fd[fd])

    def fsync(self, fd: int) -> None:
        self.fdatasync(fd)

    def mkdir(self, path: str, *, parents: bool = False) -> None:
        with self._lock:
            super().mkdir(path, parents=parents)
            self._note_name("link", path, self._new(path, True))

    def rename(self, old: str, new: str) -> None:
        assert os.path.dirname(old) == os.path.dirname(new), "nothing is moved elsewhere"
        with self._lock:
            super().rename(old, new)
            for path in [path for path in self._by_path if path == old or path.startswith(old + "/")]:
                self._by_path[new + path[len(old) :]] = self._by_path.pop(path)
            self._note_name("rename", old, other=new)

    def unlink(self, path: str) -> None:
        with self._lock:
            super().unlink(path)
            del self._by_path[path]
            self._note_name("unlink", path)

    def rmdir(self, path: str) -> None:
        with self._lock:
            super().rmdir(path)
            del self._by_path[path]
            self._note_name("unlink", path)

    def fsync_dir(self, path: str) -> None:
        with self._lock:
            self._note("sync_dir", self._by_path[path])


class PowerAppender:
    """As the native one, but on the loop: writes what is queued, syncs it a little later, calls `on_news`."""

    def __init__(self, files: PowerFiles, loop: asyncio.AbstractEventLoop, chance: random.Random) -> None:
        self.on_news: Callable[[], None] = lambda: None
        self._files = files
        self._loop = loop
        self._chance = chance
        self._queue: list[tuple[int, int, bytes, bool]] = []
        self._appended = 0
        self._done = 0
        self._busy = False
        self._closed = False

    def append(self, fd: int, offset: int, data: bytes | Sequence[bytes], sync: bool = True) -> int:
        self._queue.append((fd, offset, data if isinstance(data, bytes) else b"".join(data), sync))
        self._appended += 1
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._write)
        return self._appended

    def completed(self) -> int:
        return self._done

    def close(self) -> None:
        """What is queued is lost."""
        self._closed = True

    def _write(self) -> None:
        if self._closed:
            return
        batch = self._queue[: self._chance.randrange(1, 20)]
        del self._queue[: len(batch)]
        for fd, offset, data, _ in batch:
            self._files.pwrite(fd, data, offset)
        self._loop.call_later(self._chance.choice([0, 0, 0.002]), self._sync, batch)

    def _sync(self, batch: list[tuple[int, int, bytes, bool]]) -> None:
        if self._closed:
            return
        for fd in {fd for fd, _, _, sync in batch if sync}:
            self._files.fdatasync(fd)
        self._done += len(batch)
        self._busy = bool(self._queue)
        if self._queue:
            self._loop.call_soon(self._write)
        self.on_news()


class Image:
    """What is durable, and what is on its way, after some of the operations."""

    def __init__(self, files: PowerFiles) -> None:
        self._contents = {number: content.copy() for number, content in files.contents.items()}
        self._names = {number: dict(names) for number, names in files.names.items()}
        self._pending: dict[int, list[Operation]] = {}

    def advance(self, operation: Operation) -> None:
        kind, number = operation.kind, operation.number
        if kind == "sync":
            for each in self._pending.pop(number, ()):
                _change(self._contents[number], each)
        elif kind == "sync_dir":
            for each in self._pending.pop(number, ()):
                _rename(self._names[number], each)
        else:
            if kind == "link" and operation.child > 0:
                self._contents[operation.child] = Sectors()
            elif kind == "link":
                self._names[operation.child] = {}
            self._pending.setdefault(number, []).append(operation)

    def lose_power(self, chance: random.Random, how: str, target: Path) -> None:
        """Make `target` what is found afterwards. `how`: "none" of what was not synced is there, "all" of it,
        or "some"."""
        self._place(ROOT, target, chance, how)

    def _place(self, directory: int, target: Path, chance: random.Random, how: str) -> None:
        target.mkdir(0o700, parents=True)
        names = dict(self._names[directory])
        pending = self._pending.get(directory, [])
        count = {"none": 0, "all": len(pending)}.get(how, chance.randint(0, len(pending)))
        for each in pending[:count]:
            _rename(names, each)
        for name, number in names.items():
            if number > 0:
                self._content(number, chance, how).place(target / name)
            else:
                self._place(number, target / name, chance, how)

    def _content(self, number: int, chance: random.Random, how: str) -> Sectors:
        content = self._contents[number].copy()
        share = {"none": 0.0, "all": 1.0}.get(how, chance.choice([0.1, 0.5, 0.9]))
        lost: set[int] = set()  # a sector is written as it is in memory: never what came later alone
        for each in self._pending.get(number, ()):
            if each.kind == "truncate":
                if chance.random() < share:
                    _change(content, each)
                continue
            at = 0
            while at < len(each.data):
                sector, inside = divmod(each.offset + at, SECTOR)
                if sector not in lost and chance.random() < share:
                    content.write(each.offset + at, each.data[at : at + SECTOR - inside])
                else:
                    lost.add(sector)
                at += SECTOR - inside
        return content


def _change(content: Sectors, operation: Operation) -> None:
    if operation.kind == "write":
        content.write(operation.offset, operation.data)
    else:
        content.truncate(operation.offset)


def _rename(names: dict[str, int], operation: Operation) -> None:
    if operation.kind == "link":
        names[operation.name] = operation.child
    elif operation.kind == "unlink":
        names.pop(operation.name, None)
    elif operation.name in names:
        names[operation.other] = names.pop(operation.name)
