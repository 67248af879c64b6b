"""Defragmentation of a database in use: nothing is lost, whatever is written, fails or ends meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import pytest

from pyetcd.storage import defrag
from pyetcd.storage.backend import Backend, BackendFailed
from pyetcd.storage.defrag import Defragmentation
from pyetcd.storage.files import Data, OsFiles

Model = dict[bytes, dict[bytes, bytes]]
KEY, LEASE = b"key", b"lease"


def rev(main: int) -> bytes:
    return main.to_bytes(8, "big") + b"_" + bytes(8)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small database takes many commits, pins and slices."""
    monkeypatch.setattr(defrag, "COMMIT_BYTES", 30_000)
    monkeypatch.setattr(defrag, "WRITE_BYTES", 8_000)
    monkeypatch.setattr(defrag, "CHANGES_MAX", 300)
    monkeypatch.setattr(defrag, "LAST_STEP_CHANGES", 40)
    monkeypatch.setattr(defrag, "BATCH_ITEMS", 50)
    monkeypatch.setattr(defrag, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(defrag, "BUSY_SECONDS", 60.0)


class Writer:
    """Writes at random, and knows what must be there."""

    def __init__(self, backend: Backend, rnd: random.Random) -> None:
        self._backend = backend
        self._rnd = rnd
        self._revision = 1
        self.model: Model = {KEY: {}, LEASE: {}}

    def write(self, count: int = 1) -> None:
        backend, rnd, model = self._backend, self._rnd, self.model
        for _ in range(count):
            choice = rnd.random()
            if choice < 0.6:
                self._revision += 1
                key, value = rev(self._revision), rnd.randbytes(rnd.choice([10, 200, 3000]))
                backend.append(key, value)
                model[KEY][key] = value
            elif choice < 0.8 and model[KEY]:
                gone = rnd.choice(list(model[KEY]))
                backend.delete(KEY, gone)
                del model[KEY][gone]
            elif choice < 0.81:
                name = b"bucket%d" % rnd.randrange(20)
                backend.create_bucket(name)
                model.setdefault(name, {})
            else:
                name, key = rnd.choice(sorted(model.keys() - {KEY})), b"%d" % rnd.randrange(200)
                if rnd.random() < 0.6:
                    model[name][key] = value = rnd.randbytes(30)
                    backend.put(name, key, value)
                elif key in model[name]:
                    backend.delete(name, key)
                    del model[name][key]

    def compact(self) -> None:
        """Delete most of the revisions at once."""
        for key in list(self.model[KEY])[: len(self.model[KEY]) * 3 // 4]:
            self._backend.delete(KEY, key)
            del self.model[KEY][key]


def check(backend: Backend, model: Model) -> None:
    for name, rows in model.items():
        assert backend.scan(name, b"") == sorted(rows.items())
        for key in list(rows)[::37]:
            assert backend.get(name, key) == rows[key]


def check_file(path: Path, model: Model) -> None:
    backend = Backend.open(OsFiles(), str(path), None)
    try:
        check(backend, model)
        assert set(backend.pin().buckets()) >= set(model) - {KEY, LEASE}
    finally:
        backend.discard()
    assert sorted(each.name for each in path.parent.iterdir()) == ["db", "db.sum"]


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(work())


def opened(path: Path, files: OsFiles | None = None) -> Backend:
    return Backend.open(
        files or OsFiles(), str(path), None, interval_seconds=0.001, writes_max=200, sync=False
    )


@pytest.mark.parametrize("seed", range(10))
def test_what_is_written_meanwhile_is_all_there(seed: int, tmp_path: Path) -> None:
    rnd = random.Random(seed)

    async def work() -> None:
        backend = opened(tmp_path / "db")
        writer = Writer(backend, rnd)
        defragmentation = Defragmentation(OsFiles(), backend, None, sync=False)
        for _ in range(3):
            writer.write(1500)
            await backend.commit()
            writer.compact()
            await backend.commit()
            before = backend.size_bytes
            task = asyncio.create_task(defragmentation.run())
            steps = 0
            while not task.done():
                writer.write(rnd.choice([0] * 40 + [1, 5]) if steps < 1500 else 0)
                if rnd.random() < 0.001:
                    writer.compact()
                if rnd.random() < 0.02:
                    check(backend, {LEASE: writer.model[LEASE]})
                await asyncio.sleep(0)
                steps += 1
            await task
            assert steps > 50, "it went on in slices"
            assert backend.size_bytes < before
            check(backend, writer.model)
            writer.write(300)
        assert len(defragmentation.seconds) == 3
        await backend.close()
        check_file(tmp_path / "db", writer.model)

    run(work)


def test_the_copy_has_hardly_a_free_page(tmp_path: Path) -> None:
    async def work() -> None:
        backend = opened(tmp_path / "db")
        writer = Writer(backend, random.Random(1))
        writer.write(4000)
        await backend.commit()
        writer.compact()
        await backend.commit()
        assert backend.size_in_use_bytes < backend.size_bytes / 2
        await Defragmentation(OsFiles(), backend, None, sync=False).run()
        assert backend.size_in_use_bytes > backend.size_bytes * 0.9
        assert (tmp_path / "db").stat().st_size >= backend.size_bytes
        await backend.close()

    run(work)


def test_a_pinned_state_is_read_on_across_the_exchange(tmp_path: Path) -> None:
    async def work() -> None:
        backend = opened(tmp_path / "db")
        writer = Writer(backend, random.Random(2))
        writer.write(1000)
        await backend.commit()
        pin = backend.pin()
        image = pin.read(0, pin.size)
        rows = sorted(writer.model[KEY].items())
        await Defragmentation(OsFiles(), backend, None, sync=False).run()
        writer.write(1000)
        await backend.commit()
        assert pin.scan(KEY) == rows
        assert pin.read(0, pin.size) == image
        pin.close()
        check(backend, writer.model)
        await backend.close()

    run(work)


def test_two_at_once_run_one_after_the_other(tmp_path: Path) -> None:
    async def work() -> None:
        backend = opened(tmp_path / "db")
        writer = Writer(backend, random.Random(3))
        writer.write(1000)
        defragmentation = Defragmentation(OsFiles(), backend, None, sync=False)
        await asyncio.gather(defragmentation.run(), defragmentation.run())
        assert len(defragmentation.seconds) == 2
        assert not defragmentation.under_way
        check(backend, writer.model)
        await backend.close()
        check_file(tmp_path / "db", writer.model)

    run(work)


class FailingFiles(OsFiles):
    """From the `left`th operation on that changes the copy, or names, the disk is full."""

    def __init__(self) -> None:
        self.left: int | None = None
        self._copies: set[int] = set()

    def _count(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")

    def open(self, path: str, **how: bool) -> int:  # type: ignore[override]
        is_copy = "db.tmp" in path
        if is_copy:
            self._count()
        fd = super().open(path, **how)
        (self._copies.add if is_copy else self._copies.discard)(fd)
        return fd

    def pwrite(self, fd: int, data: Data, offset: int) -> None:
        if fd in self._copies:
            self._count()
        super().pwrite(fd, data, offset)

    def pwritev(self, fd: int, parts: Sequence[Data], offset: int) -> None:
        if fd in self._copies:
            self._count()
        super().pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        if fd in self._copies:
            self._count()
        super().fdatasync(fd)

    def rename(self, old: str, new: str) -> None:
        self._count()
        super().rename(old, new)

    def fsync_dir(self, path: str) -> None:
        self._count()
        super().fsync_dir(path)


def test_a_disk_that_fails_anywhere_leaves_the_old_one_in_use(tmp_path: Path) -> None:
    """But where the new one has its name already: then there is no going on."""

    async def work() -> None:
        for allowed in range(1000):
            directory = tmp_path / str(allowed)
            directory.mkdir()
            files = FailingFiles()
            backend = opened(directory / "db", files)
            writer = Writer(backend, random.Random(allowed))
            writer.write(400)
            await backend.commit()
            files.left = allowed
            try:
                await Defragmentation(files, backend, None).run()
            except OSError:
                pass
            else:
                assert allowed > 20, "there were operations to fail"
                await backend.close()
                return
            files.left = None
            check(backend, writer.model)
            if backend.failure is None:
                writer.write(100)
                await backend.close()
            else:
                with pytest.raises(BackendFailed):
                    await backend.commit()
                await backend.close()
            check_file(directory / "db", writer.model)

    run(work)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 30, 60, 100, 150])
def test_one_that_is_given_up_leaves_nothing_behind(turns: int, tmp_path: Path) -> None:
    async def work() -> None:
        backend = opened(tmp_path / "db")
        writer = Writer(backend, random.Random(turns))
        writer.write(800)
        task = asyncio.create_task(Defragmentation(OsFiles(), backend, None, sync=False).run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        writer.write(200)
        check(backend, writer.model)
        await backend.close()
        check_file(tmp_path / "db", writer.model)

    run(work)


def test_another_database_that_takes_the_place_meanwhile_is_copied_instead(tmp_path: Path) -> None:
    """As a snapshot of the leader does."""

    async def work() -> None:
        backend = opened(tmp_path / "db")
        Writer(backend, random.Random(4)).write(800)
        await backend.commit()
        fresh = opened(tmp_path / "other")
        writer = Writer(fresh, random.Random(5))
        writer.write(500)
        await fresh.commit()
        task = asyncio.create_task(Defragmentation(OsFiles(), backend, None, sync=False).run())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        async with backend.exchanging:
            await backend.quiesce()
            for end in ("", ".sum"):
                (tmp_path / f"other{end}").rename(tmp_path / f"db{end}")
            fresh.database.renamed(str(tmp_path / "db"))
            backend.replace(fresh)
        await task
        check(backend, writer.model)
        await backend.close()
        check_file(tmp_path / "db", writer.model)

    run(work)
