"""Defragmentation: the database copied into a new file without its free pages, which then takes its place.

Of a database in use (`Defragmentation`) it stops neither reads nor writes. Everything is copied in key order
from a pinned state, in slices of the loop. Now and then, and at the end, what has been committed since is
taken over: the pin moves on to the latest state, what changed before the place that copying has reached is
put right from there, and what lies behind will be copied from there anyway. So neither the record of changes
nor what the pin keeps from reuse grows with the size of the database. When all is copied and little has
changed since, commits are held back for the last step; writes go on gathering in the buffer meanwhile.

The copy is durable before it takes the old file's name, and renaming is atomic: a crash leaves the one or
the other, whole. What it leaves of a copy is called `db.tmp.…`, which a start removes. The file with the
pages' checksums follows its database; between the two renames neither fits the other, which means that the
next start gathers checksums anew.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from pyetcd import logs
from pyetcd.logs.gotext import decimal_size
from pyetcd.storage.backend import KEY_BUCKET, Backend, Pinned
from pyetcd.storage.bolt import Commit, Database
from pyetcd.storage.bolt.rewrite import APPEND_FILL
from pyetcd.storage.files import Files
from pyetcd.storage.write_buffer import WriteBuffer

PREFIX = "db.tmp."  # of unfinished copies
SLICE_SECONDS = 0.0005  # of copying, between turns of the loop
BUSY_SECONDS = 0.0002  # that others take of a turn, from which on copying pauses
PAUSE_SECONDS = 0.002
WRITE_BYTES = 1 << 20  # built and not written yet
COMMIT_BYTES = 16 << 20  # after so much the pin moves on
CHANGES_MAX = 100_000  # changes, since the pin, at which it moves on sooner
LAST_STEP_CHANGES = 2_000  # few enough for the last step, some tens of milliseconds
ROUNDS_MAX = 20  # beyond what the size asks for: where more is written than can be caught up with, the last
# step is longer
BATCH_ITEMS = 500  # and bytes that are read and merged in one step, half a millisecond
BATCH_BYTES = 256 << 10

_log = logs.get("storage")

Result = TypeVar("Result")
Batch = dict[bytes, bytes | None]
Sizes = tuple[int, int]  # of the file, and without its free pages
Place = tuple[bytes, bytes]
"""A bucket, and a key in it. What comes before has been copied."""

_END: Place = (b"\xff" * 64, b"")  # etcd's buckets have names of letters


class Changed:
    """What was committed since a pin: keys by bucket, and from which key on revisions were appended."""

    def __init__(self) -> None:
        self.keys: dict[bytes, set[bytes]] = {}
        self.tail_from: bytes | None = None
        self.count = 0

    def note(self, committed: WriteBuffer) -> None:
        for name, changes in committed.changes.items():
            self.keys.setdefault(name, set()).update(changes.values)
            self.count += len(changes.values)
        if committed.tail:
            first = next(iter(committed.tail))
            self.tail_from = first if self.tail_from is None else min(self.tail_from, first)
            self.count += len(committed.tail)


class _Replaced(Exception):
    """Another database has taken the place of the one that was being copied."""


class Defragmentation:
    """Those of one backend, one after another. Every method from the loop."""

    def __init__(self, files: Files, backend: Backend, executor: Executor | None, sync: bool = True) -> None:
        """`sync` False leaves out every fsync, as the backend does."""
        self.seconds: list[float] = []  # what each took; the metrics take them away
        self.under_way = False
        self._files = files
        self._backend = backend
        self._executor = executor
        self._sync = sync
        self._turn = asyncio.Lock()
        self._count = 0

    async def run(self) -> None:
        """Returns when the database has been exchanged for its copy. OSError, DatabaseError, BackendFailed:
        it goes on as it was, unless the backend itself has failed."""
        async with self._turn:
            self.under_way = True
            try:
                await self._run()
            finally:
                self.under_way = False

    async def _run(self) -> None:
        backend = self._backend
        began = asyncio.get_running_loop().time()
        before = backend.size_bytes, backend.size_in_use_bytes
        _log.info("defragmenting", {"path": backend.path, **_told(before)})
        while True:
            await backend.commit()
            copy = _Copy(self._files, backend, self._executor, self._next_path(), self._sync)
            try:
                await copy.make()
                break
            except _Replaced:
                continue
            finally:
                copy.close()
                replaced = copy.replaced
                del copy
                if replaced is not None:
                    await in_thread(self._executor, partial(self._files.close, replaced))
        took = asyncio.get_running_loop().time() - began
        self.seconds.append(took)
        after = backend.size_bytes, backend.size_in_use_bytes
        _log_finished(backend.path, before, after, logs.duration(took))

    def _next_path(self) -> str:
        self._count += 1
        directory = self._backend.path.rpartition("/")[0] or "."
        path = f"{directory}/{PREFIX}{self._count}"
        _remove(self._files, path)
        return path


class _Copy:
    """One attempt."""

    def __init__(
        self, files: Files, backend: Backend, executor: Executor | None, path: str, sync: bool
    ) -> None:
        self._files = files
        self._backend = backend
        self._executor = executor
        self._path = path
        self._sync = sync
        self._source = backend.database
        self._changed = Changed()
        self._pin = backend.pin()
        self._place: Place = (b"", b"")
        self._copy: Database | None = None
        self._took_the_place = False
        # The old file, held open when nothing else of it is: closing frees its pages, a third of a second for
        # a gigabyte, which is a thread's time and not the loop's.
        self.replaced: int | None = None
        backend.on_committed = self._committed

    def _committed(self, buffer: WriteBuffer) -> None:
        self._changed.note(buffer)

    async def make(self) -> None:
        """Copy, and exchange. _Replaced, or whatever keeps it from being made."""
        opened = partial(Database.open, self._files, self._path, sync=False)
        copy = self._copy = await in_thread(self._executor, opened)
        for _ in range(ROUNDS_MAX + 2 * self._pin.size // COMMIT_BYTES):
            if self._place == _END and self._changed.count <= LAST_STEP_CHANGES:
                break
            await self._advance(copy)
        async with self._backend.exchanging:
            self._check()
            await self._backend.quiesce()
            try:
                copy.sync = self._sync
                await self._advance(copy)
                while self._place < _END:
                    await self._advance(copy)
                await self._exchange(copy)
            finally:
                self._backend.release()

    def close(self) -> None:
        """However it has ended: leave nothing behind."""
        self._backend.on_committed = None
        self._pin.close()
        if self._took_the_place:
            return
        if self._copy is not None:
            self._copy.close()
        for path in (self._path, self._path + ".sum"):
            _remove(self._files, path)

    def _check(self) -> None:
        if self._backend.database is not self._source:
            raise _Replaced

    async def _advance(self, copy: Database) -> None:
        """Move the pin to the latest state, put right what is copied, copy some more; make that durable."""
        self._check()
        changed, self._changed = self._changed, Changed()
        pin = self._backend.pin()
        self._pin.close()
        self._pin = pin
        commit = copy.begin()
        await self._paced(copy, commit, self._catch_up(commit, pin, changed))
        await self._paced(copy, commit, self._go_on(commit, pin))
        await self._paced(copy, commit, commit.finish())
        await in_thread(self._executor, partial(copy.make_durable, commit))
        copy.install(commit)

    def _catch_up(self, commit: Commit, pin: Pinned, changed: Changed) -> Generator[None, None, None]:
        """What has changed before the place reached."""
        for name in sorted(changed.keys):
            if name > self._place[0]:
                break
            commit.create_bucket(name)
            keys = sorted(key for key in changed.keys[name] if (name, key) < self._place)
            for start in range(0, len(keys), BATCH_ITEMS):
                batch: Batch = {}
                for key in keys[start : start + BATCH_ITEMS]:
                    batch[key] = pin.get(name, key)
                    yield
                yield from commit.apply(name, list(batch), batch)
        if changed.tail_from is not None and (KEY_BUCKET, changed.tail_from) < self._place:
            for batch in batches(pin, KEY_BUCKET, changed.tail_from):
                yield from commit.apply(KEY_BUCKET, list(batch), batch, APPEND_FILL)

    def _go_on(self, commit: Commit, pin: Pinned) -> Generator[None, None, None]:
        """Copy from the place reached on, for the length of one commit."""
        copied = 0
        for name in pin.buckets():
            reached, key = self._place
            if name < reached:
                continue
            commit.create_bucket(name)
            for batch in batches(pin, name, key if name == reached else b""):
                if copied >= COMMIT_BYTES or (copied and self._changed.count >= CHANGES_MAX):
                    return
                yield from commit.apply(name, list(batch), batch, APPEND_FILL)
                copied += _size(batch)
                self._place = (name, next(reversed(batch)) + b"\0")
            self._place = (name + b"\0", b"")
        self._place = _END

    async def _paced(self, copy: Database, commit: Commit, steps: Generator[None, None, None]) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in steps:
            if loop.time() - begun < SLICE_SECONDS:
                continue
            if commit.unwritten_bytes >= WRITE_BYTES:
                await in_thread(self._executor, partial(copy.write, commit.take(), write_back=True))
            passed = loop.time()
            await asyncio.sleep(0)
            if loop.time() - passed > BUSY_SECONDS:
                await asyncio.sleep(PAUSE_SECONDS)
            self._check()
            begun = loop.time()

    async def _exchange(self, copy: Database) -> None:
        """The copy is whole and durable. From its renaming on there is no way back."""
        path = self._source.path

        def rename() -> None:
            self.replaced = self._files.open(path)
            self._files.rename(self._path, path)
            self._took_the_place = True
            self._files.rename(self._path + ".sum", path + ".sum")
            self._files.fsync_dir(path.rpartition("/")[0] or ".")

        try:
            await in_thread(self._executor, rename)
        except OSError as error:
            if self._took_the_place:  # a crash might bring back the old one, which is no longer written
                self._backend.fail(error)
            raise
        finally:
            if self._took_the_place:
                copy.renamed(path)
                self._backend.exchange(copy)


async def in_thread(executor: Executor | None, work: Callable[[], Result]) -> Result:
    """Files are not closed while a thread is busy with them, though the task be cancelled."""
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


def defragment_now(
    files: Files, backend: Backend, reached: Callable[[int], object] = lambda copied: None
) -> None:
    """The same for a database that nobody uses, blocking; the backend is to be opened anew after it.
    DatabaseError or OSError: the database is as it was. `reached`: told how many bytes are copied, and the
    size at the end."""
    path = backend.path
    took = logs.stopwatch()
    before = backend.size_bytes, backend.size_in_use_bytes
    _log.info("defragmenting", {"path": path, **_told(before)})
    directory = path.rpartition("/")[0] or "."
    copy = f"{directory}/{PREFIX}defrag"
    _remove(files, copy)
    pin = backend.pin()
    try:
        after = _copy_now(files, pin, copy, reached)
        reached(before[0])
        files.rename(copy, path)
    except BaseException:
        _remove(files, copy)
        raise
    finally:
        pin.close()
    files.fsync_dir(directory)
    _log_finished(path, before, after, took())


def _copy_now(files: Files, pin: Pinned, path: str, reached: Callable[[int], object]) -> Sizes:
    """A new database with all that is pinned, in one commit, durable when this returns."""
    target = Database.open(files, path, checksums=False, grow_bytes=0)
    copied = 0
    try:
        commit = target.begin()
        for bucket in pin.buckets():
            commit.create_bucket(bucket)
            for batch in batches(pin, bucket):
                for _ in commit.apply(bucket, list(batch), batch, APPEND_FILL):
                    pass
                if commit.unwritten_bytes:
                    target.write(commit.take())
                copied += _size(batch)
                reached(copied)
        target.commit(commit)
        return target.size_bytes, target.size_in_use_bytes
    finally:
        target.close()


def batches(pin: Pinned, bucket: bytes, start: bytes = b"") -> Iterator[Batch]:
    """What a bucket holds from `start` on, in order, so much at a time that few pages at the right edge are
    written twice. None is empty."""
    batch: Batch = {}
    size = 0
    for keys, values in pin.leaves(bucket, start):
        first = bisect_left(keys, start)
        batch.update(zip(keys[first:], values[first:], strict=True))
        size += sum(map(len, values))
        if len(batch) >= BATCH_ITEMS or size >= BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _told(sizes: Sizes) -> dict[str, object]:
    """As they are logged."""
    size, in_use = sizes
    return {
        "current-db-size-bytes": size,
        "current-db-size": decimal_size(size),
        "current-db-size-in-use-bytes": in_use,
        "current-db-size-in-use": decimal_size(in_use),
    }


def _log_finished(path: str, before: Sizes, after: Sizes, took: str) -> None:
    told = _told(after)
    fields = {
        "path": path,
        "current-db-size-bytes-diff": after[0] - before[0],
        "current-db-size-bytes": told["current-db-size-bytes"],
        "current-db-size": told["current-db-size"],
        "current-db-size-in-use-bytes-diff": after[1] - before[1],
        "current-db-size-in-use-bytes": told["current-db-size-in-use-bytes"],
        "current-db-size-in-use": told["current-db-size-in-use"],
        "took": took,
    }
    _log.info("finished defragmenting directory", fields)


def _size(batch: Batch) -> int:
    return sum(map(len, batch)) + sum(len(value or b"") for value in batch.values())


def _remove(files: Files, path: str) -> None:
    if files.exists(path):
        files.unlink(path)
