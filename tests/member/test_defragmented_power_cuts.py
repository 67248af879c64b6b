"""The power fails at any moment of a defragmentation: what is found is a whole database, with all that was
committed by then.
"""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from power_loss import Past, RecordingFiles, Tree, place

from pyetcd.storage import defrag
from pyetcd.storage.backend import Backend
from pyetcd.storage.bolt import database
from pyetcd.storage.defrag import Defragmentation
from pyetcd.storage.files import OsFiles
from pyetcd.storage.snap import Snapshots

KEY, META, INDEX = b"key", b"meta", b"consistent_index"
HOW = ("none", "all", "some", "torn", "torn")

Content = dict[bytes, list[tuple[bytes, bytes]]]


class AtOnce(Executor):
    """Runs what it is given before it returns: the order of operations is the order of the code."""

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defrag, "COMMIT_BYTES", 20_000)
    monkeypatch.setattr(defrag, "BATCH_ITEMS", 30)
    monkeypatch.setattr(defrag, "LAST_STEP_CHANGES", 10)
    monkeypatch.setattr(defrag, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(defrag, "BUSY_SECONDS", 60.0)
    monkeypatch.setattr(database, "GROW_BYTES", 64 << 10)


def content(backend: Backend) -> Content:
    return {name: backend.scan(name, b"") for name in (KEY, b"lease", META)}


class Life:
    """What reached the disk, and after how many operations which state was durable."""

    def __init__(self, root: Path, rnd: random.Random) -> None:
        self.files = RecordingFiles(root)
        self.states: list[Content] = []
        self.durable: list[tuple[int, int]] = []  # operations, state
        self.begun = 0
        self._path = str(root / "db")
        self._rnd = rnd

    async def live(self) -> None:
        rnd = self._rnd
        backend = Backend.open(self.files, self._path, AtOnce(), interval_seconds=60)
        for number in range(1, 30):
            self._write(backend, number, 40)
            await self._commit(backend)
        for main in range(40, 800):
            backend.delete(KEY, _revision(main))
        await self._commit(backend)
        self.begun = len(self.files.operations)
        task = asyncio.create_task(Defragmentation(self.files, backend, AtOnce()).run())
        number = 30
        while not task.done():
            if rnd.random() < 0.05:
                self._write(backend, number, 5)
                number += 1
                await self._commit(backend)
            await asyncio.sleep(0)
        await task
        self._write(backend, number, 5)
        await self._commit(backend)
        await backend.close()

    def _write(self, backend: Backend, number: int, count: int) -> None:
        for sub in range(count):
            backend.append(_revision(number * 40 + sub), self._rnd.randbytes(self._rnd.choice([20, 400])))
        backend.put(b"lease", b"%d" % self._rnd.randrange(5), self._rnd.randbytes(8))

    async def _commit(self, backend: Backend) -> None:
        """Each commit makes a state of its own."""
        backend.put(META, INDEX, len(self.states).to_bytes(8, "big"))
        self.states.append(content(backend))
        await backend.commit()
        self.durable.append((len(self.files.operations), len(self.states) - 1))


def _revision(main: int) -> bytes:
    return main.to_bytes(8, "big") + b"_" + bytes(8)


def check(life: Life, left: Tree, directory: Path, at: int) -> bool:
    """Whether the copy was there already, or a part of it."""
    place(directory, left)
    had_copy = any("tmp" in name for name in left)
    Snapshots(OsFiles(), str(directory)).tidy()
    assert not any("tmp" in each.name for each in directory.iterdir())
    backend = Backend.open(OsFiles(), str(directory / "db"), None)
    try:
        found = content(backend)
    finally:
        backend.discard()
    number = int.from_bytes(dict(found[META])[INDEX], "big")
    assert found == life.states[number], "a state that never was"
    acknowledged = max(state for operations, state in life.durable if operations <= at)
    assert acknowledged <= number <= acknowledged + 1
    return had_copy


@pytest.mark.parametrize("seed", range(3))
def test_a_defragmentation_that_is_cut_loses_nothing(seed: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    rnd = random.Random(seed)
    life = Life(root, rnd)
    asyncio.run(life.live())
    past = Past()
    checked = copies = 0
    operations = life.files.operations
    names = [at for at, each in enumerate(operations) if each.kind in ("rename", "add") and at > life.begun]
    for at, operation in enumerate(operations):
        near = any(abs(at - each) < 6 for each in names)
        if at >= life.begun and (near or rnd.random() < 0.15):
            how = HOW if near else (rnd.choice(HOW),)
            for each in how:
                copies += check(life, past.lose_power(rnd, each), tmp_path / f"{at}-{checked}", at)
                checked += 1
        past.advance(operation)
    assert checked > 60
    assert copies > 20, "it was cut in the middle"
