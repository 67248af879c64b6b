"""The store: what one member's keys are, and were, at every revision that is not compacted.

Writes are applied in log order, each at once and whole: everything that can fail is checked before anything
is changed, so an entry that cannot be applied raises `EtcdError` and leaves no trace. Reads are answered at
a fixed revision and may take many slices (see `reader`). What is long about a write (settling large
deletions) is done behind it (see `deletion`).

This module is the door of the room; what it hands out is in `answer`, `change` and `stream`, what it needs
in `seams`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pyetcd.mvcc.answer import Answer, Applied, Job, Work, ended, finish, started
from pyetcd.mvcc.change import UNKNOWN, Change, OnBulk, OnChange
from pyetcd.mvcc.compaction import CompactionConfig, CompactionTimes, Compactor
from pyetcd.mvcc.deletion import Deletions
from pyetcd.mvcc.events import EventReader
from pyetcd.mvcc.hash import Hashes, KeyValueHash, hash_kv
from pyetcd.mvcc.index import KeyIndex
from pyetcd.mvcc.ranges import Ranges, as_answer, has_filters, resolve
from pyetcd.mvcc.reader import Reader
from pyetcd.mvcc.record import COUNT_ONE, KVS, MORE
from pyetcd.mvcc.record_cache import RecordCache
from pyetcd.mvcc.restore import Restored
from pyetcd.mvcc.revision import bound_of
from pyetcd.mvcc.seams import Backend, Background, LeaseBook
from pyetcd.mvcc.stream import Stream, range_stream
from pyetcd.mvcc.txn import Transactions
from pyetcd.mvcc.writer import Writer
from pyetcd.proto import errors
from pyetcd.proto.plain_put import PlainPut
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from pyetcd.proto.splice import view

NOTHING: Final[Sequence[bytes]] = ()  # an answer with nothing but its header


class Counts(NamedTuple):
    """Operations since the start, those within transactions too, counted as etcd does; `transactions` are
    those of more than one operation.
    """

    ranges: int
    puts: int
    deletes: int
    transactions: int
    put_bytes: int  # of keys and values


class Store:
    """Keys of one member. Everything is called from the loop."""

    def __init__(
        self,
        backend: Backend,
        leases: LeaseBook,
        background: Background,
        restored: Restored | None = None,
        compaction: CompactionConfig = CompactionConfig(),  # noqa: B008 (frozen)
    ) -> None:
        """`restored`: what `restore(backend)` found; None for an empty backend. `background` runs what is
        settled later.
        """
        self._backend = backend
        self._leases = leases
        self._background = background
        self._compaction = compaction
        self._on_replaced: Callable[[], None] = lambda: None
        self._ranges_run = 0
        self._begin(restored)

    def _begin(self, restored: Restored | None) -> None:
        index = KeyIndex(top=bound_of(1)) if restored is None else restored.index
        revision = 1 if restored is None else restored.revision
        compacted = -1 if restored is None else restored.compact_revision
        cache = RecordCache()
        self._live = index.live
        self._cache = cache
        self._deletions = Deletions(index, self._backend, self._leases, self._background)
        self._reader = Reader(index, self._deletions, self._backend, cache, compacted)
        self._writer = Writer(index, self._reader, self._deletions, self._backend, self._leases, revision)
        self._ranges = Ranges(self._reader)
        self._transactions = Transactions(self._writer, self._reader, self._ranges, self._leases)
        self._compactor = Compactor(self._reader, self._compaction)
        self._scheduled = 0 if restored is None else restored.scheduled
        self._index = index

    def replace(self, restored: Restored) -> None:
        """The database is another one, of a later revision: a snapshot has taken its place. Jobs of reads and
        of deletions have been ended; compactions end here, lest the index of the old database decides what
        is removed from the new one. Counts go on."""
        self._compactor.stop()
        writer, transactions, times = self._writer, self._transactions, self._compactor.times
        self._begin(restored)
        self._writer.go_on_from(writer)
        self._transactions.go_on_from(transactions)
        self._compactor.times = times
        self._on_replaced()

    # State

    @property
    def revision(self) -> int:
        """The last finished main revision; 1 for a new store."""
        return self._writer.revision

    @property
    def compact_revision(self) -> int:
        """Nothing before it can be read; -1 as long as nothing was compacted."""
        return self._reader.compact_revision

    @property
    def settled_revision(self) -> int:
        """Up to here all changes are in the backend; a large deletion behind it is still being written."""
        pending = self._deletions.pending
        return pending[0].main - 1 if pending else self._writer.revision

    def settle(self) -> Job[None]:
        """Finish the large deletions that are still being written; until then their keys hang on leases."""
        while self._deletions.pending:
            self._deletions.settle_slice()
            yield

    @property
    def counts(self) -> Counts:
        """What was done since the start."""
        writer, transactions = self._writer, self._transactions
        ranges = self._ranges_run + transactions.range_operations
        return Counts(ranges, writer.puts, writer.deletes, transactions.transactions, writer.put_bytes)

    @property
    def key_count(self) -> int:
        """Keys that exist now."""
        return len(self._index.keys)

    @property
    def compactions(self) -> CompactionTimes:
        """How the compactions since the start went."""
        return self._compactor.times

    def watch(
        self, on_change: OnChange, on_bulk: OnBulk, on_replaced: Callable[[], None] = lambda: None
    ) -> None:
        """Be told of every finished write, in revision order, and when a snapshot has brought many at
        once."""
        self._writer.on_change = on_change
        self._writer.on_bulk = on_bulk
        self._on_replaced = on_replaced

    # Reads

    def range(self, request: RangeRequest) -> Work:
        """Answer a RangeRequest. Raises COMPACTED or FUTURE_REVISION."""
        if not request.range_end and request.revision <= 0 and not _has_options(request):
            return self.get(request.key)
        self._ranges_run += 1
        current = self._writer.revision
        bound = bound_of(resolve(request.revision, current, self._reader.compact_revision))
        return as_answer(current, self._ranges.body(request, bound))

    def get(self, key: bytes) -> Answer:
        """The latest state of one key, as a RangeResponse (1.5 us)."""
        self._ranges_run += 1
        if self._deletions.pending:
            self._deletions.settle_key(key)
        revision = self._live.get(key)
        if revision is None:
            return Answer(self._writer.revision, NOTHING)
        record = self._cache.young.get(revision) or self._reader.record(revision)
        return Answer(self._writer.revision, (KVS(len(record)), record, COUNT_ONE))

    def range_stream(self, request: RangeRequest, max_request_bytes: int) -> Stream:
        """Answer a checked RangeRequest in messages. Raises when it is first asked for one, or later."""
        stream = range_stream(self._reader, request, self._writer.revision, max_request_bytes)
        return self._counted(stream, self._reader)

    def _counted(self, stream: Stream, reader: Reader) -> Stream:
        """Each message is a range to etcd, and so is the count of the rest. It may lie still for long, its
        client not reading, and ends when the database has been replaced meanwhile."""
        try:
            for message in stream:
                if message is not None:
                    self._ranges_run += 2 if MORE in message.body else 1
                yield message
                if self._reader is not reader:
                    raise errors.LEADER_CHANGED
        except errors.EtcdError:
            self._ranges_run += 1
            raise

    def txn_read(self, request: TxnRequest) -> Work:
        """Answer a read-only transaction (`checks.is_read_only`)."""
        return self._transactions.read(request)

    def record_at(self, key: bytes, revision: int) -> bytes | None:
        """The record of `key` as of main revision `revision`; None when it did not exist or that is
        compacted.
        """
        if revision < self._reader.compact_revision:
            return None
        return self._reader.record_at(key, bound_of(revision))

    def previous_record(self, change: Change) -> bytes | None:
        """What `change` replaced: the prev_kv of its event. None when there was nothing, or it is
        compacted, or the key was deleted before in the same revision.
        """
        before = change.revision - 1
        if not change.previous or before < self._reader.compact_revision:
            return None
        if change.previous == UNKNOWN:
            if not change.deleted and view(change.record).create_revision == change.revision:
                return None
            return self._reader.record_at(change.key, bound_of(before))
        if change.previous > bound_of(before):  # replaced within its own transaction
            return self._reader.record_at(change.key, bound_of(before))
        return self._reader.record(change.previous)

    def events(self, start_revision: int) -> EventReader:
        """Every change from `start_revision` on, to be read in slices."""
        return EventReader(self._reader.backend, self._deletions, start_revision)

    # Writes, in log order

    def put(self, request: PutRequest | PlainPut) -> Answer:
        """Apply a put. Raises LEASE_NOT_FOUND or KEY_NOT_FOUND."""
        if isinstance(request, PlainPut):
            return self.put_simple(request.key, request.value, request.lease)
        if request.prev_kv or request.ignore_value or request.ignore_lease:
            body = self._transactions.put(request)
            self._writer.end()
            return Answer(self._writer.revision, body)
        return self.put_simple(request.key, request.value, request.lease)

    def put_simple(self, key: bytes, value: bytes, lease: int = 0) -> Answer:
        """Apply a put without flags (4 us). Raises LEASE_NOT_FOUND."""
        if lease and not self._leases.exists(lease):
            raise errors.LEASE_NOT_FOUND
        writer = self._writer
        writer.put(key, value, lease)
        writer.end()
        return Answer(writer.revision, NOTHING)

    def delete_range(self, request: DeleteRangeRequest) -> Work:
        """Apply a deletion; the keys are gone at once, the answer may take longer when it lists them."""
        body = self._transactions.delete_body(request)
        if request.prev_kv:
            self._transactions.transactions += 1
        self._writer.end()
        return as_answer(self._writer.revision, body)

    def delete_keys(self, keys: Sequence[bytes]) -> int:
        """Delete those of `keys` that exist, under one revision, as revoking a lease does; how many there
        were.
        """
        count = self._writer.delete_keys(keys)
        if len(keys) > 1:
            self._transactions.transactions += 1
        self._writer.end()
        return count

    def txn(self, request: TxnRequest, answered: bool = True) -> Applied:
        """Apply a transaction. Raises EtcdError with nothing changed. `answered`: somebody waits for what
        its ranges read.
        """
        return self._transactions.write(request, answered)

    # Compaction and hashes

    def compact(self, revision: int) -> None:
        """Accept a compaction; its work goes on in the background. Raises COMPACTED or FUTURE_REVISION."""
        self._compactor.schedule(revision, self._writer.revision)
        self._ranges_run += 1  # etcd reads a key to learn the revision, and counts it

    async def compacted(self) -> None:
        """Wait until all accepted compactions have removed what they remove; `backend.commit()` makes it
        durable. Those of a database that is replaced go on in the new one.
        """
        compactor = None
        while compactor is not self._compactor:
            compactor = self._compactor
            await compactor.finished()

    def resume_compaction(self) -> None:
        """After a restart, before anything is applied: go on with a compaction that was accepted and not
        finished.
        """
        scheduled, self._scheduled = self._scheduled, 0
        if scheduled:
            self._compactor.schedule(scheduled, self._writer.revision)

    def hash_kv(self, revision: int) -> Job[KeyValueHash]:
        """HashKV up to `revision`, 0: the current one. Raises COMPACTED or FUTURE_REVISION."""
        kept = self.hashes.of(revision)
        if kept is not None:
            return ended(kept)
        current, compacted = self._writer.revision, self._reader.compact_revision
        if 0 < revision < compacted:
            raise errors.COMPACTED
        if revision > current:
            raise errors.FUTURE_REVISION
        return started(hash_kv(self._reader, compacted, revision or current))

    @property
    def hashes(self) -> Hashes:
        """HashKV of the last compactions."""
        return self._compactor.hashes

    async def close(self) -> None:
        """Stop what runs in the background. Deletions under way are settled first, so that the backend can
        close.
        """
        await self._compactor.close()
        finish(self._deletions.settle_upto(self._writer.revision))


def _has_options(request: RangeRequest) -> bool:
    """Does a request for one key ask for more than its latest state?"""
    return request.keys_only or request.count_only or has_filters(request)
