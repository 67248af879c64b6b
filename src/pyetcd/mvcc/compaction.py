"""Compaction: forget what no later revision needs, index and backend in one pass.

Accepting a compaction is one step: `compact_revision` rises, `scheduledCompactRev` goes to `meta`, older
reads fail from then on. The work follows in the background, one compaction after the other: the stored
revisions up to the compacted one are read in order, in batches of `batch_limit`, with `sleep_interval`
seconds between batches (flags of etcd); of each the index says whether it stays, and forgets it if not. At
the end `finishedCompactRev` is written. After a crash the scheduled and the finished revision differ, and
the pass starts again from the beginning, which finds what is left to do.

What stays is what etcd keeps (see `KeyIndex.compact_key`); the hash over what was read is kept for the
corruption check unless the compaction before was interrupted.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from pyetcd import logs
from pyetcd.logs.gotext import decimal_size
from pyetcd.mvcc.answer import Job
from pyetcd.mvcc.hash import Hasher, Hashes, KeyValueHash, any_alive
from pyetcd.mvcc.reader import Reader
from pyetcd.mvcc.record import key_of
from pyetcd.mvcc.revision import TOMBSTONE, bound_of, bucket_key, parse_bucket_key, revision_of
from pyetcd.proto import errors
from pyetcd.storage import schema

BATCH_LIMIT = 1000
SLEEP_SECONDS = 0.010
SLICE_RECORDS = 500  # about 2 ms
DURATIONS_KEPT = 10_000

Result = TypeVar("Result")

_log = logs.get("mvcc")


@dataclass(frozen=True, slots=True)
class CompactionConfig:
    batch_limit: int = BATCH_LIMIT
    sleep_seconds: float = SLEEP_SECONDS


@dataclass(slots=True)
class CompactionTimes:
    """What compactions did, for the metrics, which take the lists' items away. Seconds.

    `pauses`: how long a batch held up the loop; `index_pauses`: what each compaction did to the index alone;
    `totals`: of whole compactions. `ended_at`: loop time when the last one ended, None before the first.
    """

    keys_removed: int = 0
    pauses: list[float] = field(default_factory=list)
    index_pauses: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    ended_at: float | None = None


class Compactor:
    """Compactions of one store, in the order they were asked for."""

    def __init__(self, reader: Reader, config: CompactionConfig) -> None:
        self.hashes = Hashes()
        self.times = CompactionTimes()
        self._reader = reader
        self._config = config
        self._last: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # that have not ended, the last among them

    def schedule(self, revision: int, current: int) -> None:
        """Accept a compaction and start it. Raises COMPACTED or FUTURE_REVISION with nothing changed."""
        previous = self._reader.compact_revision
        if revision <= previous:
            raise errors.COMPACTED
        if revision > current:
            raise errors.FUTURE_REVISION
        backend = self._reader.backend
        whole = backend.get(schema.META, schema.SCHEDULED_COMPACT) == backend.get(
            schema.META, schema.FINISHED_COMPACT
        )
        self._reader.compact_revision = revision
        backend.put(schema.META, schema.SCHEDULED_COMPACT, bucket_key(revision_of(revision)))
        before = self._last
        self._last = asyncio.get_running_loop().create_task(self._run(before, previous, revision, whole))
        self._tasks.add(self._last)
        self._last.add_done_callback(self._tasks.discard)
        self._last.add_done_callback(_tell_failure)

    async def finished(self) -> None:
        """Wait until every compaction accepted so far has removed all it removes (a commit makes that
        durable), or is stopped.
        """
        while (last := self._last) is not None and not last.done():
            await asyncio.wait([last])
            if not last.cancelled():
                last.result()

    def stop(self) -> list[asyncio.Task[None]]:
        """Not another row is read or removed. Returns what is to be awaited to see its end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def close(self) -> None:
        """Stop; what is left is done after the next start."""
        await asyncio.gather(*self.stop(), return_exceptions=True)

    async def _run(
        self, before: asyncio.Task[None] | None, previous: int, revision: int, whole: bool
    ) -> None:
        if before is not None and not before.done():
            await before
        loop = asyncio.get_running_loop()
        began = loop.time()
        reader = self._reader
        await _slices(reader.deletions.settle_upto(revision))
        while reader.pins.below(revision):
            await asyncio.sleep(self._config.sleep_seconds)
        index_began = loop.time()
        reader.index.membership.forget(bound_of(revision))
        reader.forget_counts()
        times = self.times
        _note(times.index_pauses, loop.time() - index_began)
        removed_before = times.keys_removed
        result = await self._pass(previous, revision)
        times.ended_at = loop.time()
        took = times.ended_at - began
        _note(times.totals, took)
        size, in_use = reader.backend.size_bytes, reader.backend.size_in_use_bytes
        _log.info(
            "finished scheduled compaction",
            {
                "compact-revision": revision,
                "took": timedelta(seconds=took),
                "number-of-keys-compacted": times.keys_removed - removed_before,
                "hash": result.hash,
                "current-db-size-bytes": size,
                "current-db-size": decimal_size(size),
                "current-db-size-in-use-bytes": in_use,
                "current-db-size-in-use": decimal_size(in_use),
            },
        )
        if not whole:
            _log.info("previous compaction was interrupted, skip storing compaction hash value")
            return
        _log.info(
            "storing new hash", {"hash": result.hash, "revision": revision, "compact-revision": previous}
        )
        self.hashes.keep(result)

    async def _pass(self, previous: int, revision: int) -> KeyValueHash:
        """Read, decide and remove, up to `revision`; the hash over what was read."""
        reader, backend, loop = self._reader, self._reader.backend, asyncio.get_running_loop()
        everything = previous >= 0 and not await _slices(self._keeps_any(revision))
        hasher = Hasher(reader, previous, revision, everything)
        at, end = bucket_key(0), bucket_key(revision_of(revision + 1))
        left_in_batch = self._config.batch_limit
        paused = 0.0
        while True:
            began = loop.time()
            limit = min(SLICE_RECORDS, left_in_batch)
            rows = backend.scan(schema.KEY, at, end, limit)
            hasher.add(rows)
            for bucket, record in rows:
                if not reader.index.compact_key(key_of(record), parse_bucket_key(bucket), revision):
                    backend.delete(schema.KEY, bucket)
                    self.times.keys_removed += 1
            paused += loop.time() - began
            if len(rows) < limit:
                _note(self.times.pauses, paused)
                backend.put(schema.META, schema.FINISHED_COMPACT, bucket_key(revision_of(revision)))
                return hasher.result()
            at = rows[-1][0] + b"\0"
            left_in_batch -= limit
            if left_in_batch:
                await asyncio.sleep(0)
            else:
                _note(self.times.pauses, paused)
                paused = 0.0
                left_in_batch = self._config.batch_limit
                await asyncio.sleep(self._config.sleep_seconds)
                if backend.full:
                    await backend.drained()

    def _keeps_any(self, revision: int) -> Job[bool]:
        """Will anything stay: a key that is alive at `revision`, or a tombstone of just this revision?"""
        if (yield from any_alive(self._reader, revision)):
            return True
        at, end = bucket_key(revision_of(revision)), bucket_key(revision_of(revision + 1))
        while True:
            rows = self._reader.backend.scan(schema.KEY, at, end, SLICE_RECORDS)
            if any(parse_bucket_key(bucket) & TOMBSTONE for bucket, _ in rows):
                return True
            if len(rows) < SLICE_RECORDS:
                return False
            at = rows[-1][0] + b"\0"
            yield


def _tell_failure(task: asyncio.Task[None]) -> None:
    """Nobody may be waiting for a compaction: what ends one is the loop's to hear of."""
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": "compaction failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


async def _slices(job: Job[Result]) -> Result:
    """Run a job here, letting others run between its slices."""
    while True:
        try:
            next(job)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        await asyncio.sleep(0)


def _note(seconds: list[float], took: float) -> None:
    """Keep a duration until the metrics fetch it."""
    if len(seconds) < DURATIONS_KEPT:
        seconds.append(took)
