"""The seam to the disk: the only code that asks the operating system for files.

Everything in `storage` takes a `Files` and calls nothing else, so that tests can count, cut, reorder and fail
what would reach the disk, and a simulator can run the code that runs in production. Rules that hold here:

* Open files are plain descriptors (`int`), because the native `Appender` writes to the same ones.
* Writes and reads are whole: a short write is continued, a short read means the end of the file was reached.
* Errors are `OSError` as Python raises them, nothing is translated or swallowed.
* Nothing is durable before `fdatasync`/`fsync` of the file; a new, renamed or removed name not before
  `fsync_dir`.
* New files are readable by their owner only (0600, directories 0700), as etcd makes them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE
from mmap import mmap as Map
from typing import Protocol

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

# preadv/pwritev take at most IOV_MAX buffers a call; 1024 on Linux.
_MAX_PARTS = 1024
# struct flock on 64-bit Linux: type, whence, start, length (0: to the end), pid (0 for OFD locks).
_OFD_WRITE_LOCK = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)

Data = bytes | bytearray | memoryview


class Files(Protocol):
    """What a room may do with files. `OsFiles` is the real one."""

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> int:
        """Open a file and return its descriptor. `create` and `truncate` imply `write`; `exclusive` fails
        with FileExistsError when the name is taken."""

    def close(self, fd: int) -> None: ...

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """`length` bytes from `offset`; fewer only at the end of the file."""

    def pwrite(self, fd: int, data: Data, offset: int) -> None: ...

    def pwritev(self, fd: int, parts: Sequence[Data], offset: int) -> None:
        """Write `parts` one after the other from `offset` on."""

    def size(self, fd: int) -> int: ...

    def truncate(self, fd: int, length: int) -> None:
        """Set the length; what is added reads as zeros and takes no space yet."""

    def preallocate(self, fd: int, length: int) -> None:
        """Reserve space for the first `length` bytes and make the file at least that long. A full disk fails
        here (OSError ENOSPC); a file system that cannot reserve only gets the length."""

    def fdatasync(self, fd: int) -> None: ...

    def fsync(self, fd: int) -> None: ...

    def write_back(self, fd: int, offset: int, length: int) -> None:
        """Have the system begin to write this part to the disk, without waiting for it. A hint."""

    def mmap(self, fd: int, length: int, *, growable: bool = False) -> Map:
        """Map the first `length` bytes, shared, for reading. ValueError when the file is shorter: a page
        beyond the end would kill the process with SIGBUS. `growable`: for `grow_map`; wants a descriptor to
        write to."""

    def grow_map(self, view: Map, length: int) -> None:
        """Make a map longer, in place; the file is that long already. What was touched before stays mapped: a
        new map of a large file would take a page fault of 1 to 10 us for every page again."""

    def lock(self, fd: int) -> bool:
        """Take the WAL's kind of exclusive lock (an open file description lock) without waiting. False: it
        is taken. Closing the descriptor gives it back."""

    def flock(self, fd: int, *, shared: bool = False) -> bool:
        """Take the database's kind of lock (flock, as bbolt does) without waiting; False: taken."""

    def funlock(self, fd: int) -> None:
        """Give the flock back at once: a mapping of the file would keep it past the closing of `fd`."""

    def read(self, path: str) -> bytes:
        """A whole, small file."""

    def exists(self, path: str) -> bool: ...

    def is_dir(self, path: str) -> bool: ...

    def file_size(self, path: str) -> int: ...

    def mode(self, path: str) -> int:
        """The permission bits."""

    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""

    def mkdir(self, path: str, *, parents: bool = False) -> None:
        """Make a directory; with `parents` also those above it, and none of them need be new."""

    def rename(self, old: str, new: str) -> None:
        """Rename; an existing file of the new name is replaced in one step."""

    def unlink(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""

    def fsync_dir(self, path: str) -> None:
        """Make what was created, renamed and removed in this directory durable."""


def named(error: OSError, path: str) -> OSError:
    """The error of a call by descriptor, with the name of the file for whoever reads its text."""
    if error.filename is None:
        error.filename = path
    return error


class OsFiles:
    """`Files` of the operating system (Linux; elsewhere the WAL's lock is an flock)."""

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> int:
        flags = os.O_RDWR if write or create or truncate else os.O_RDONLY
        if create:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_EXCL
        if truncate:
            flags |= os.O_TRUNC
        return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        got = len(data)
        while got < length:
            data = os.pread(fd, length - got, offset + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def pwrite(self, fd: int, data: Data, offset: int) -> None:
        written = os.pwrite(fd, data, offset)
        while written < len(data):  # a signal or a nearly full disk can cut a write short
            written += os.pwrite(fd, memoryview(data)[written:], offset + written)

    def pwritev(self, fd: int, parts: Sequence[Data], offset: int) -> None:
        for first in range(0, len(parts), _MAX_PARTS):
            group = parts[first : first + _MAX_PARTS]
            total = sum(map(len, group))
            written = os.pwritev(fd, group, offset)
            if written < total:
                self.pwrite(fd, b"".join(group)[written:], offset + written)
            offset += total

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def preallocate(self, fd: int, length: int) -> None:
        if length == 0:
            return
        try:
            os.posix_fallocate(fd, 0, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            if self.size(fd) < length:
                os.ftruncate(fd, length)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def write_back(self, fd: int, offset: int, length: int) -> None:
        # Linux begins to write what is not to stay in memory.
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def mmap(self, fd: int, length: int, *, growable: bool = False) -> Map:
        # Python resizes only maps it may write to; nobody does.
        return Map(fd, length, MAP_SHARED, PROT_READ | PROT_WRITE if growable else PROT_READ)

    def grow_map(self, view: Map, length: int) -> None:
        view.resize(length)  # mremap; its ftruncate to the length the file has changes nothing

    def lock(self, fd: int) -> bool:
        set_lock = getattr(fcntl, "F_OFD_SETLK", None)
        if set_lock is None:
            return self.flock(fd)
        try:
            fcntl.fcntl(fd, set_lock, _OFD_WRITE_LOCK)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def flock(self, fd: int, *, shared: bool = False) -> bool:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def funlock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    def read(self, path: str) -> bytes:
        fd = self.open(path)
        try:
            return self.pread(fd, self.size(fd), 0)
        finally:
            self.close(fd)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def file_size(self, path: str) -> int:
        return os.stat(path).st_size

    def mode(self, path: str) -> int:
        return os.stat(path).st_mode & 0o7777

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str, *, parents: bool = False) -> None:
        if parents:
            os.makedirs(path, DIRECTORY_MODE, exist_ok=True)
        else:
            os.mkdir(path, DIRECTORY_MODE)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def fsync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
