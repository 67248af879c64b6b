"""A database that comes in from another member: written aside, synced, proved, and only then named.

Its name, `<index>.snap.db` in the directory of snapshots, is etcd's, and says that it is whole. Until then it
is `tmp…`, which a start removes. Its first page says how long it is: what is no database, or has no end, is
refused as soon as that can be seen, and does not fill the disk. Everything here blocks for the disk.
"""

from __future__ import annotations

from pyetcd.storage import schema
from pyetcd.storage.bolt import Database, DatabaseError, meta
from pyetcd.storage.files import Files, named


class NotTheSnapshot(Exception):
    """What was received is not the database it should be."""


class ReceivedDatabase:
    """One database on its way in."""

    def __init__(self, files: Files, directory: str, index: int, attempt: int) -> None:
        """`index`: of the snapshot, which the database must be of. `attempt`: not that of any other one; an
        earlier attempt at the same snapshot may still be on its way out."""
        self.path = f"{directory}/{index:016x}.snap.db"
        self.size = 0
        self._files = files
        self._directory = directory
        self._index = index
        self._head = b""  # as much as says what it is
        self._whole = 0  # bytes, once that is known
        self._unfinished = f"{directory}/tmp{index:016x}-{attempt}.snap.db"
        self._fd: int | None = files.open(self._unfinished, create=True, truncate=True)

    def write(self, chunk: bytes) -> None:
        """Append. NotTheSnapshot: it never will be, `drop` it."""
        assert self._fd is not None, "the end has been written"
        self._look_at(chunk)
        try:
            self._files.pwrite(self._fd, chunk, self.size)
        except OSError as error:
            raise named(error, self._unfinished) from None
        self.size += len(chunk)

    def _look_at(self, chunk: bytes) -> None:
        if not self._whole:
            self._head += chunk[: meta.SIZE - len(self._head)]
            if len(self._head) < meta.SIZE:
                return
            first = meta.decode(self._head)
            if isinstance(first, str):
                raise NotTheSnapshot(f"no database begins so: {first}")
            self._whole = first.high_water * first.page_size
        if self.size + len(chunk) > self._whole:
            raise NotTheSnapshot(f"more than the {self._whole} bytes that the database has")

    def sync(self) -> None:
        """All of it is on disk."""
        assert self._fd is not None, "the end has been written"
        self._files.fsync(self._fd)
        self._files.close(self._fd)
        self._fd = None

    def keep(self) -> None:
        """Prove every page of it, and give it its name, durably. NotTheSnapshot: `drop` it."""
        assert self._fd is None, "sync first"
        self._prove()
        self._files.rename(self._unfinished, self.path)
        self._files.fsync_dir(self._directory)

    def _prove(self) -> None:
        try:
            database = Database.open(self._files, self._unfinished, read_only=True, checksums=False)
            try:
                pinned = database.pin()
                index, _ = schema.position(pinned)
                pinned.close()
            finally:
                database.close()
        except DatabaseError as error:
            raise NotTheSnapshot(str(error)) from None
        if index != self._index:
            raise NotTheSnapshot(f"the database is of index {index}, the snapshot of {self._index}")

    def drop(self) -> None:
        """It did not come to its end, or is not what it should be."""
        if self._fd is not None:
            self._files.close(self._fd)
            self._fd = None
        if self._files.exists(self._unfinished):
            self._files.unlink(self._unfinished)
