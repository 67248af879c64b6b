"""Disks and appenders for tests of the log: one that writes at once, one that waits to be told, and a disk
in memory that loses power.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyetcd.storage.files import Files

SECTOR = 512


class DirectAppender:
    """Writes and syncs at once."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._sequence = 0

    def append(self, fd: int, offset: int, data: bytes | Sequence[bytes], sync: bool = True) -> int:
        self._files.pwrite(fd, data if isinstance(data, bytes) else b"".join(data), offset)
        if sync:
            self._files.fdatasync(fd)
        self._sequence += 1
        return self._sequence

    def completed(self) -> int:
        return self._sequence


class HeldAppender:
    """Queues; `finish` carries out the oldest of what is queued."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._queue: list[tuple[int, int, bytes, bool]] = []
        self._done = 0

    def append(self, fd: int, offset: int, data: bytes | Sequence[bytes], sync: bool = True) -> int:
        self._queue.append((fd, offset, data if isinstance(data, bytes) else b"".join(data), sync))
        return self._done + len(self._queue)

    def completed(self) -> int:
        return self._done

    def finish(self, count: int | None = None, sync: bool = True) -> None:
        """Carry out `count` appends (None: all). Without `sync` they are written only, as in the midst of a
        batch.
        """
        for fd, offset, data, wanted in self._queue[:count]:
            self._files.pwrite(fd, data, offset)
            if wanted and sync:
                self._files.fdatasync(fd)
        if sync:
            done = len(self._queue) if count is None else count
            del self._queue[:done]
            self._done += done


@dataclass
class _Inode:
    now: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    locked_by: int = 0


class MemoryFiles:
    """`Files` in memory. `crash` returns the disk as it may be after a loss of power: of what was not
    synced, any sectors are there; of the names, a prefix of the changes since the last sync of their
    directory.
    """

    def __init__(self) -> None:
        self.names: dict[str, _Inode | None] = {"/": None}  # None: a directory
        self.durable_names: dict[str, _Inode | None] = {"/": None}
        self.name_log: list[tuple[str, str, str]] = []
        self._open: dict[int, _Inode] = {}
        self._next_fd = 3

    def crash(self, chance: random.Random) -> MemoryFiles:
        after = MemoryFiles()
        names = dict(self.durable_names)
        for change in self.name_log[: chance.randint(0, len(self.name_log))]:
            _apply(names, change, self.names_made)
        for path, inode in names.items():
            if inode is None:
                after.names[path] = None
                continue
            after.names[path] = _Inode(_torn(inode, chance))
        for made in after.names.values():
            if made is not None:
                made.durable = bytearray(made.now)
        after.durable_names = dict(after.names)
        return after

    names_made: dict[str, _Inode]

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> int:
        inode = self.names.get(path)
        if inode is None:
            if path in self.names:
                raise IsADirectoryError(path)
            if not create:
                raise FileNotFoundError(path)
            inode = _Inode()
            self._change(("add", path, ""), inode)
        elif exclusive:
            raise FileExistsError(path)
        if truncate:
            inode.now.clear()
        self._next_fd += 1
        self._open[self._next_fd] = inode
        return self._next_fd

    def close(self, fd: int) -> None:
        inode = self._open.pop(fd)
        if inode.locked_by == fd:
            inode.locked_by = 0

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return bytes(self._open[fd].now[offset : offset + length])

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        now = self._open[fd].now
        if len(now) < offset:
            now.extend(bytes(offset - len(now)))
        now[offset : offset + len(data)] = data

    def size(self, fd: int) -> int:
        return len(self._open[fd].now)

    def truncate(self, fd: int, length: int) -> None:
        now = self._open[fd].now
        del now[length:]
        now.extend(bytes(length - len(now)))

    def preallocate(self, fd: int, length: int) -> None:
        inode = self._open[fd]
        for data in (inode.now, inode.durable):
            data.extend(bytes(max(0, length - len(data))))

    def fdatasync(self, fd: int) -> None:
        inode = self._open[fd]
        inode.durable = bytearray(inode.now)

    fsync = fdatasync

    def lock(self, fd: int) -> bool:
        inode = self._open[fd]
        if inode.locked_by not in (0, fd):
            return False
        inode.locked_by = fd
        return True

    def read(self, path: str) -> bytes:
        inode = self.names[path]
        assert inode is not None
        return bytes(inode.now)

    def exists(self, path: str) -> bool:
        return path in self.names

    def is_dir(self, path: str) -> bool:
        return self.names.get(path, 0) is None

    def file_size(self, path: str) -> int:
        return len(self.read(path))

    def listdir(self, path: str) -> list[str]:
        if not self.is_dir(path):
            raise FileNotFoundError(path)
        inside = path.rstrip("/") + "/"
        return sorted(
            name[len(inside) :]
            for name in self.names
            if name.startswith(inside) and "/" not in name[len(inside) :] and name != inside
        )

    def mkdir(self, path: str, *, parents: bool = False) -> None:
        if path in self.names:
            raise FileExistsError(path)
        self._change(("mkdir", path, ""), None)

    def rename(self, old: str, new: str) -> None:
        self._change(("rename", old, new), None)

    def unlink(self, path: str) -> None:
        if path not in self.names:
            raise FileNotFoundError(path)
        self._change(("remove", path, ""), None)

    def rmdir(self, path: str) -> None:
        if self.listdir(path):
            raise OSError(39, "Directory not empty")
        self._change(("remove", path, ""), None)

    def fsync_dir(self, path: str) -> None:
        """Makes all changes of names durable, not only this directory's: the log never relies on less."""
        self.durable_names = dict(self.names)
        self.name_log.clear()

    def _change(self, change: tuple[str, str, str], inode: _Inode | None) -> None:
        made = self.__dict__.setdefault("names_made", {})
        if inode is not None:
            made[change[1]] = inode
        self.name_log.append(change)
        _apply(self.names, change, {change[1]: inode} if inode is not None else {})


def _apply(names: dict[str, _Inode | None], change: tuple[str, str, str], made: dict[str, _Inode]) -> None:
    kind, path, new = change
    if kind == "add":
        names[path] = made[path]
    elif kind == "mkdir":
        names[path] = None
    elif kind == "remove":
        names.pop(path, None)
    else:
        moved = {name: node for name, node in names.items() if name == path or name.startswith(path + "/")}
        for name in moved:
            del names[name]
        names.update({new + name[len(path) :]: node for name, node in moved.items()})


def _torn(inode: _Inode, chance: random.Random) -> bytearray:
    """The durable content, with any of the sectors that differ written as well."""
    length = chance.choice((len(inode.durable), len(inode.now)))
    data = bytearray(inode.durable[:length])
    data.extend(bytes(length - len(data)))
    share = chance.random()
    for at in range(0, length, SECTOR):
        if inode.now[at : at + SECTOR] != data[at : at + SECTOR] and chance.random() < share:
            data[at : at + SECTOR] = inode.now[at : min(at + SECTOR, length)]
    return bytearray(data[:length])
