"""The backend: reads see writes at once, commits come by themselves, and nothing is half there."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bolt_disk import Image, RecordingFiles, place

from pyetcd.storage.backend import Backend, BackendFailed, CommitTimes
from pyetcd.storage.files import OsFiles

KEY = b"key"


def rev(main: int, sub: int = 0) -> bytes:
    return main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(work())


class GatedFiles(OsFiles):
    """Syncs wait until the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def fdatasync(self, fd: int) -> None:
        self.waiting.set()
        assert self.gate.wait(20)
        super().fdatasync(fd)


@pytest.mark.parametrize("seed", range(8))
def test_reads_see_every_write_whatever_is_committed_meanwhile(seed: int, tmp_path: Path) -> None:
    rnd = random.Random(seed)

    async def work() -> None:
        backend = Backend.open(
            OsFiles(), str(tmp_path / "db"), None, writes_max=rnd.choice([3, 50, 1000]), sync=False
        )
        model: dict[bytes, dict[bytes, bytes]] = {KEY: {}, b"lease": {}, b"meta": {}}
        revision = 1
        for step in range(3000):
            choice = rnd.random()
            if choice < 0.5:
                revision += 1
                model[KEY][rev(revision)] = value = rnd.randbytes(rnd.choice([10, 300]))
                backend.append(rev(revision), value)
            elif choice < 0.6 and model[KEY]:
                gone = rnd.choice(list(model[KEY]))
                backend.delete(KEY, gone)
                del model[KEY][gone]
            elif choice < 0.65:
                key = rev(rnd.randrange(revision + 5), 1)
                backend.put(KEY, key, b"%d" % step)
                model[KEY][key] = b"%d" % step
            elif choice < 0.75:
                key = b"%d" % rnd.randrange(100)
                if rnd.random() < 0.5:
                    backend.put(b"lease", key, b"%d" % step)
                    model[b"lease"][key] = b"%d" % step
                else:
                    backend.delete(b"lease", key)
                    model[b"lease"].pop(key, None)
            elif choice < 0.82:
                await asyncio.sleep(0)
            elif choice < 0.825:
                await backend.commit()
            elif choice < 0.9:
                assert_scan(backend, model, rnd, revision)
            else:
                keys = [rev(rnd.randrange(revision + 2), rnd.randrange(2)) for _ in range(20)]
                assert backend.get_many(KEY, keys) == [model[KEY].get(key) for key in keys]
                assert backend.get(b"lease", b"7") == model[b"lease"].get(b"7")
        await backend.close()
        backend = Backend.open(OsFiles(), str(tmp_path / "db"), None)
        for bucket, values in model.items():
            assert backend.scan(bucket, b"") == sorted(values.items())
        backend.close_now()

    run(work)


def test_a_scan_with_a_limit_costs_what_it_returns_however_much_is_buffered(tmp_path: Path) -> None:
    """As when 200,000 deletions wait for their commit and a hash or a compaction reads on beside them."""

    async def work() -> None:
        backend = Backend.open(OsFiles(), str(tmp_path / "db"), None, sync=False)
        backend.hold()
        count = 100_000
        backend.append(rev(1 << 30), b"later")
        for number in range(count):
            backend.put(KEY, rev(number), b"")
        began = asyncio.get_running_loop().time()
        for at in range(0, count, count // 500):
            assert [key for key, _ in backend.scan(KEY, rev(at), None, 2)] == [rev(at), rev(at + 1)]
        assert asyncio.get_running_loop().time() - began < 5, "500 times 0.1 s before"
        backend.release()
        await backend.close()

    run(work)


def assert_scan(
    backend: Backend, model: dict[bytes, dict[bytes, bytes]], rnd: random.Random, revision: int
) -> None:
    bucket = rnd.choice([KEY, b"lease", b"nothing"])
    bounds = [
        rev(rnd.randrange(revision + 1)) if bucket == KEY else b"%d" % rnd.randrange(100) for _ in range(2)
    ]
    start, end = bounds[0], rnd.choice([bounds[1], None])
    limit = rnd.choice([0, 1, 5, 100])
    wanted = [
        row
        for row in sorted(model.get(bucket, {}).items())
        if row[0] >= start and (end is None or row[0] < end)
    ]
    assert backend.scan(bucket, start, end, limit) == wanted[: limit or None]


def test_a_commit_comes_by_itself_after_the_interval_and_takes_along_what_belongs_to_it(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        backend = Backend.open(OsFiles(), str(tmp_path / "db"), None, interval_seconds=0.01)
        done = asyncio.Event()
        times: list[CommitTimes] = []

        def committed(each: CommitTimes) -> None:
            times.append(each)
            done.set()

        backend.on_commit = committed
        backend.before_commit = lambda: backend.put(b"meta", b"consistent_index", b"%d" % backend.commits)
        backend.append(rev(2), b"v")
        await asyncio.wait_for(done.wait(), 10)
        pin = backend.pin()
        assert pin.scan(KEY) == [(rev(2), b"v")]
        assert pin.scan(b"meta") == [(b"consistent_index", b"0")]
        assert times[0].pages >= 1
        assert times[0].total >= times[0].write
        assert backend.commits == 1
        pin.close()
        await backend.close()

    run(work)


def test_enough_writes_start_a_commit_before_the_interval(tmp_path: Path) -> None:
    async def work() -> None:
        backend = Backend.open(OsFiles(), str(tmp_path / "db"), None, interval_seconds=3600, writes_max=100)
        done = asyncio.Event()
        backend.on_commit = lambda times: done.set()
        for n in range(2, 101):
            backend.append(rev(n), b"v")
        await asyncio.sleep(0)
        assert backend.commits == 0
        backend.append(rev(101), b"v")
        await asyncio.wait_for(done.wait(), 10)
        assert backend.commits == 1
        await backend.close()

    run(work)


def test_no_commit_splits_what_is_written_between_hold_and_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        backend = Backend.open(OsFiles(), str(tmp_path / "db"), None, writes_max=5)
        backend.hold()
        backend.hold()
        for n in range(2, 60):
            backend.append(rev(n), b"v")
            await asyncio.sleep(0)
        backend.release()
        for n in range(60, 100):
            backend.append(rev(n), b"v")
            await asyncio.sleep(0)
        assert not backend.full  # nobody else is refused for what must lie in one transaction
        monkeypatch.setattr("pyetcd.storage.backend.HELD_BYTES", 1)
        for n in range(100, 110):
            backend.append(rev(n), b"v")
        assert backend.full  # but even that has a bound
        await backend.drained()  # whoever holds must not be made to wait for itself
        assert backend.commits == 0
        backend.release()
        await backend.commit()
        assert backend.commits == 1
        assert not backend.full
        await backend.close()

    run(work)


@pytest.mark.parametrize("commit_is_wanted", [False, True])
def test_closing_drops_what_is_not_whole_instead_of_waiting_for_it(
    tmp_path: Path, commit_is_wanted: bool
) -> None:
    async def work() -> None:
        backend = Backend.open(OsFiles(), str(tmp_path / "db"), None)
        backend.append(rev(2), b"whole")
        await backend.commit()
        backend.hold()
        backend.append(rev(3), b"half")
        waiting = asyncio.ensure_future(backend.commit()) if commit_is_wanted else None
        await asyncio.sleep(0)
        await asyncio.wait_for(backend.close(), 10)
        if waiting is not None:
            waiting.cancel()
        again = Backend.open(OsFiles(), str(tmp_path / "db"), None)
        assert again.scan(KEY, b"") == [(rev(2), b"whole")]
        await again.close()

    run(work)


def test_writes_go_on_while_a_commit_is_written_and_push_back_when_there_are_too_many(tmp_path: Path) -> None:
    async def work() -> None:
        files = GatedFiles()
        backend = Backend.open(files, str(tmp_path / "db"), None, writes_max=10, interval_seconds=3600)
        await backend.commit()
        files.gate.clear()
        files.waiting.clear()
        for n in range(2, 12):
            backend.append(rev(n), b"one")
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, files.waiting.wait, 20)
        for n in range(12, 50):
            backend.append(rev(n), b"two")
        backend.delete(KEY, rev(3))
        assert not backend.full
        assert backend.scan(KEY, rev(0), rev(5)) == [(rev(2), b"one"), (rev(4), b"one")]
        for n in range(50, 53):
            backend.append(rev(n), b"two")
        assert backend.full
        waiting = asyncio.ensure_future(backend.drained())
        await asyncio.sleep(0)
        assert not waiting.done()
        files.gate.set()
        await asyncio.wait_for(waiting, 20)
        assert not backend.full
        await backend.commit()
        assert len(backend.scan(KEY, b"")) == 50
        await backend.close()

    run(work)


def test_a_failed_commit_is_final_reported_and_harms_no_read(tmp_path: Path) -> None:
    async def work() -> None:
        files = RecordingFiles()
        backend = Backend.open(files, str(tmp_path / "db"), None)
        backend.append(rev(2), b"safe")
        await backend.commit()
        failures: list[BaseException] = []
        backend.on_failure = failures.append
        files.fail_at = len(files.operations) + 1
        backend.append(rev(3), b"lost on disk")
        with pytest.raises(BackendFailed, match=r"db: cannot commit: .*No space left on device"):
            await backend.commit()
        assert failures == [files.error]
        assert backend.failure is files.error
        assert backend.scan(KEY, b"") == [(rev(2), b"safe"), (rev(3), b"lost on disk")]
        with pytest.raises(BackendFailed):
            await backend.commit()
        files.fail_at = None
        await backend.close()
        again = Backend.open(OsFiles(), str(tmp_path / "db"), None)
        assert again.scan(KEY, b"") == [(rev(2), b"safe")]
        again.close_now()

    run(work)


def test_a_crash_at_any_moment_finds_index_and_data_of_one_transaction(tmp_path: Path) -> None:
    """The bug of etcd 3.5: a consistent index that ran ahead of the data it stood for."""
    rnd = random.Random(5)
    files = RecordingFiles()
    backend = Backend.open(files, str(tmp_path / "db"), None, sync=True)
    applied = [0]
    backend.before_commit = lambda: backend.put(b"meta", b"consistent_index", b"%d" % applied[0])
    for index in range(1, 60):
        applied[0] = index
        backend.append(rev(index + 1), b"%d" % index)
        if index % 9 == 0:
            backend.commit_now()
    backend.close_now()
    image = Image({})
    seen = set()
    for operation in files.operations:
        image.advance(operation)
        left = image.lose_power(rnd, rnd.choice(["none", "some", "torn", "all"]))
        left = {name: data[: 128 << 10] for name, data in left.items()}  # the rest is room to grow
        found = Backend.open(OsFiles(), str(place(tmp_path / "crash", left)), None)
        index = int(found.get(b"meta", b"consistent_index") or b"0")
        assert len(found.scan(KEY, b"")) == index
        seen.add(index)
        found.close_now()
    assert seen == {0, 9, 18, 27, 36, 45, 54, 59}


def test_a_large_commit_is_built_in_short_slices(tmp_path: Path) -> None:
    """200,000 deletes of one request, 50,000 records in one hold: no slice is long, and all is one
    transaction."""

    async def work() -> None:
        backend = Backend.open(OsFiles(), str(tmp_path / "db"), None, sync=False)
        loop = asyncio.get_running_loop()
        backend.hold()
        for n in range(2, 30_002):
            backend.append(rev(n), b"v" * 100)
        backend.release()
        await backend.commit()
        assert backend.commits == 1
        backend.hold()
        for n in range(2, 29_000):
            backend.delete(KEY, rev(n))
        backend.release()
        turns: list[float] = []
        running = True

        async def watch() -> None:
            while running:
                before = loop.time()
                await asyncio.sleep(0)
                turns.append(loop.time() - before)

        watcher = asyncio.ensure_future(watch())
        await backend.commit()
        running = False
        await watcher
        turns.sort()
        assert len(turns) > 20, "others had their turns in between"
        assert turns[len(turns) * 9 // 10] < 0.05
        assert backend.commits == 2
        assert len(backend.scan(KEY, b"")) == 30_002 - 29_000
        assert backend.size_in_use_bytes < backend.size_bytes / 5
        await backend.close()

    run(work)


def test_pages_and_syncs_are_the_executors_business(tmp_path: Path) -> None:
    names: set[str] = set()

    class Watching(OsFiles):
        def fdatasync(self, fd: int) -> None:
            names.add(threading.current_thread().name)
            super().fdatasync(fd)

    async def work() -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="disk") as executor:
            backend = Backend.open(Watching(), str(tmp_path / "db"), executor)
            backend.put(b"meta", b"k", b"v")
            await backend.commit()
            await backend.close()

    run(work)
    assert names
    assert all(name.startswith("disk") for name in names)


@pytest.mark.parametrize("key", [b"", b"k" * 32769])
def test_keys_beyond_the_limits_of_the_format_are_refused(key: bytes, tmp_path: Path) -> None:
    backend = Backend.open(OsFiles(), str(tmp_path / "db"), None)
    with pytest.raises(ValueError, match="32768"):
        backend.put(b"authUsers", key, b"")
    backend.put(b"authUsers", b"k" * 32768, b"")
    backend.close_now()


def test_empty_buckets_are_made_and_stay(tmp_path: Path) -> None:
    backend = Backend.open(OsFiles(), str(tmp_path / "db"), None)
    for name in (b"alarm", b"auth"):
        backend.create_bucket(name)
        backend.create_bucket(name)
    backend.close_now()
    backend = Backend.open(OsFiles(), str(tmp_path / "db"), None)
    backend.create_bucket(b"auth")
    pin = backend.pin()
    assert pin.buckets() == [b"alarm", b"auth"]
    assert backend.open_read_transactions == 2
    pin.close()
    backend.commit_now()
    assert backend.commits == 0, "nothing was to be done"
    backend.close_now()


def test_the_write_that_ends_a_turn_is_committed_at_close(tmp_path: Path) -> None:
    async def work() -> None:
        backend = Backend.open(OsFiles(), str(tmp_path / "db"), None, interval_seconds=3600)
        backend.append(rev(2), b"v")
        await backend.close()

    run(work)
    backend = Backend.open(OsFiles(), str(tmp_path / "db"), None)
    assert backend.get(KEY, rev(2)) == b"v"
    backend.close_now()
