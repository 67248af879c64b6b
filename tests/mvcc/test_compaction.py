"""Compaction: what stays, what a crash in the middle leaves, and who waits for whom."""

from __future__ import annotations

import asyncio
import copy

import pytest
from mvcc_fakes import Background, Book, MemoryBackend

from pyetcd.mvcc.answer import finish
from pyetcd.mvcc.compaction import CompactionConfig, decimal_size
from pyetcd.mvcc.restore import restore
from pyetcd.mvcc.revision import bucket_key, revision_of
from pyetcd.mvcc.store import Store
from pyetcd.proto.errors import COMPACTED, FUTURE_REVISION
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest
from pyetcd.storage import schema


def fresh(backend: MemoryBackend, batch_limit: int = 3, sleep_seconds: float = 0.0) -> Store:
    restored = finish(restore(backend))
    return Store(backend, Book(), Background(), restored, CompactionConfig(batch_limit, sleep_seconds))


def filled() -> tuple[MemoryBackend, Store]:
    """Revisions 2..41: ten keys written in turn; the third is deleted every round."""
    backend = MemoryBackend()
    store = fresh(backend)
    for round_ in range(4):
        for number in range(9):
            store.put_simple(b"key-%d" % number, b"%d" % round_)
        store.delete_range(DeleteRangeRequest(key=b"key-3"))
    return backend, store


def test_a_compaction_is_refused_below_the_last_one_and_above_the_present() -> None:
    async def run() -> None:
        _, store = filled()
        store.compact(20)
        for revision in (20, 3, 0, -1):
            with pytest.raises(COMPACTED):
                store.compact(revision)
        with pytest.raises(FUTURE_REVISION):
            store.compact(store.revision + 1)
        assert store.compact_revision == 20
        await store.compacted()
        await store.close()

    asyncio.run(run())


def test_it_takes_as_many_pauses_as_batches() -> None:
    async def run() -> None:
        backend, store = filled()
        began = asyncio.get_running_loop().time()
        store = fresh(backend, batch_limit=4, sleep_seconds=0.003)
        store.compact(40)  # 39 revisions, 9 full batches
        await store.compacted()
        assert asyncio.get_running_loop().time() - began >= 9 * 0.003
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("turns", range(1, 14))
def test_a_crash_at_any_point_is_made_good_after_the_next_start(turns: int) -> None:
    async def run() -> None:
        backend, store = filled()
        expected, other = filled()
        other.compact(33)
        await other.compacted()
        store.compact(33)
        for _ in range(turns):
            await asyncio.sleep(0)
        left = copy.deepcopy(backend)  # what would be on disk after a crash right now
        await store.close()
        after = fresh(left)
        done = left.get(schema.META, schema.FINISHED_COMPACT) is not None
        assert after.compact_revision == (33 if done else -1)
        after.resume_compaction()
        assert after.compact_revision == 33
        await after.compacted()
        assert left.scan(schema.KEY, b"") == expected.scan(schema.KEY, b"")
        assert left.get(schema.META, schema.FINISHED_COMPACT) == bucket_key(revision_of(33))
        assert len(after.hashes) == 0  # an interrupted compaction did not see everything
        assert finish(after.hash_kv(38)) == finish(other.hash_kv(38))
        assert after.revision == other.revision
        await after.close()
        await other.close()

    asyncio.run(run())


def test_the_revision_survives_when_the_last_one_is_compacted_away() -> None:
    async def run() -> None:
        backend = MemoryBackend()
        store = fresh(backend)
        store.put_simple(b"k", b"v")
        store.delete_range(DeleteRangeRequest(key=b"k"))
        store.compact(3)
        await store.compacted()
        store.put_simple(b"l", b"v")
        store.delete_range(DeleteRangeRequest(key=b"l"))
        store.compact(4)
        await store.compacted()
        backend.delete(schema.KEY, bucket_key(revision_of(5) | 1))  # older versions removed such tombstones
        backend.put(schema.META, schema.SCHEDULED_COMPACT, bucket_key(revision_of(5)))
        assert fresh(backend).revision == 5
        await store.close()

    asyncio.run(run())


def test_a_watcher_that_starts_at_the_compacted_revision_still_gets_its_deletion() -> None:
    async def run() -> None:
        _, store = filled()
        store.compact(21)
        await store.compacted()
        [change] = store.events(21).read(21, 10)
        assert (change.revision, change.deleted, change.key) == (21, True, b"key-3")
        assert (change.record, change.previous) == (b"\n\x05key-3\x18\x15", -1)
        assert store.previous_record(change) is None
        await store.close()

    asyncio.run(run())


def test_two_compactions_run_one_after_the_other_and_the_second_keeps_no_hash() -> None:
    async def run() -> None:
        backend, store = filled()
        store.compact(10)
        store.compact(30)
        assert store.compact_revision == 30
        await store.compacted()
        assert [kept.revision for kept in store.hashes] == [10]
        assert backend.get(schema.META, schema.FINISHED_COMPACT) == bucket_key(revision_of(30))
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (9, "9 B"), (512, "512 B"), (20480, "20 kB"), (2_100_000, "2.1 MB"), (10**19, "10 EB")],
)
def test_sizes_are_logged_in_decimal_units(size: int, text: str) -> None:
    assert decimal_size(size) == text
