"""The log does not grow for ever: what the database holds is let go of, in memory and on disk.

In memory, the entries behind `--snapshot-catchup-entries` are forgotten once for every 100 applied, or sooner
when the cache has more than `CACHE_BYTES_MAX`; a member that lags further behind is sent a snapshot. On disk,
once for every `--snapshot-count` applied, a snapshot is taken: it says that the database has everything up to
some index, so that a start needs the log only from there on, and segments of before may be removed.

What makes that safe is an order, every step of which is durable before the next begins. Let `index` be
applied, and membership, configuration and term be taken as they are at that moment:

1. The backend commits. Its consistent index is in the same transaction, so it is `index` or later: this is
   read back and asserted. From here on the entries up to `index` are in the database and not needed.
2. The `.snap` file is written under another name, synced, renamed, its directory synced. A start does not
   read it, but a marker without its file would be a lie to the tools that do.
3. The marker goes into the log, with the configuration, and through the same queue as all entries; so the
   hard state that calls `index` committed, without which a start ignores the marker, lies before it.
4. Only now are the locks of segments given back that hold nothing but entries before `index`, and databases
   removed that came with older snapshots.
5. The purge, every 30 seconds, removes the oldest segments beyond `--max-wals` whose locks can be had.

A crash after 1 or 2 leaves at most a `.snap` file that no marker names; after 3, more segments than needed.
At no moment is an entry gone that the durable database lacks. Segments are unlinked oldest first and not
synced one by one; should a crash bring back any of them, a start does not look at those before its marker.

Nothing here blocks the loop: files are written, renamed and removed in the executor. One snapshot is taken
at a time; entries applied meanwhile count for the next one. A failure to save one ends the member, as in
etcd; a failure to purge is logged, and tried again.

Layout and numbers after etcd's server/etcdserver/server.go; the order of 1 to 3 is etcd's as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from pyetcd import logs
from pyetcd.cluster.membership import Membership
from pyetcd.cluster.v2store import membership_json
from pyetcd.logs.gotext import duration
from pyetcd.member.config import ServerConfig
from pyetcd.member.consensus import Consensus
from pyetcd.raft import Compacted, Entry, MemoryStorage, Node
from pyetcd.raft import Snapshot as RaftSnapshot
from pyetcd.raft.codec import encode_conf_state
from pyetcd.storage import schema
from pyetcd.storage.backend import BackendFailed, Pinned
from pyetcd.storage.snap import Saved, Snapshot, Snapshots

COMPACT_EVERY_ENTRIES = 100
CACHE_BYTES_MAX = 64 << 20
CACHE_BYTES_KEPT = 48 << 20  # lower, so that a full cache is not compacted for every entry
PURGE_SECONDS = 30.0

_log = logs.get("member")

T = TypeVar("T")


class Flushable(Protocol):
    """The part of `Backend` that is needed here."""

    async def commit(self) -> None: ...
    def pin(self) -> Pinned: ...


class Releasable(Protocol):
    """The part of `Wal` that is needed here."""

    def release(self, index: int) -> None: ...
    def purge(self, keep: int) -> list[str]: ...


class Retention:
    """How much of one member's log is kept. Every method from the loop; `spawn` runs a coroutine until it
    ends or the member stops."""

    def __init__(
        self,
        config: ServerConfig,
        local_id: int,
        node: Node,
        storage: MemoryStorage,
        consensus: Consensus,
        wal: Releasable,
        backend: Flushable,
        cluster: Membership,
        snapshots: Snapshots,
        *,
        executor: Executor,
        loop: asyncio.AbstractEventLoop,
        spawn: Callable[[Coroutine[None, None, None]], None],
        in_flight: Callable[[], int],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`in_flight`: snapshots on their way to others, who will need the log behind them."""
        self._config = config
        self._local_id = local_id
        self._node = node
        self._storage = storage
        self._consensus = consensus
        self._wal = wal
        self._backend = backend
        self._cluster = cluster
        self._snapshots = snapshots
        self._executor = executor
        self._loop = loop
        self._spawn = spawn
        self._in_flight = in_flight
        self._on_failure = on_failure
        self._count = config.effective_snapshot_count
        self._catchup = config.effective_snapshot_catchup_entries
        self._noted = self.snapshot_index = storage.snapshot().index
        self._forced = False
        self._saving = False
        self._settled = asyncio.Event()  # none is being taken, or will be after the next entry
        self._settled.set()
        self.on_saved: Callable[[Saved], None] = lambda saved: None

    def force(self) -> None:
        """Take a snapshot after the entry that is being applied, however few there were since the last."""
        self._forced = True
        self._tell_settled()

    def installed(self, index: int) -> None:
        """The database is a leader's snapshot of `index`, and the log has a marker that says so."""
        self._noted = self.snapshot_index = index
        self._forced = False
        self._tell_settled()
        self._wal.release(index)
        self._spawn(self._in_executor(lambda: self._snapshots.release_databases(index)))

    def after_apply(self) -> None:
        """Entries have been applied, the last of them to its end."""
        index = self._consensus.applied_index
        if index < self._consensus.begun_anew_at:
            return  # a leader's snapshot takes their place next; the log has begun anew behind it already
        due = index - self.snapshot_index > self._count or (self._forced and index != self.snapshot_index)
        if due and not self._saving:
            self._begin(index)
            self._compact(index)
        elif index > self._noted + COMPACT_EVERY_ENTRIES:
            self._note(index)
            self._compact(index)
        elif self._storage.size_bytes > CACHE_BYTES_MAX:
            self._compact(index)

    async def purge_for_ever(self) -> None:
        """Purge now, and every 30 seconds."""
        config, interval = self._config, duration(PURGE_SECONDS)
        for directory, suffix, keep in (
            (config.snap_dir, "snap.db", config.max_snapshots),
            (config.snap_dir, "snap", config.max_snapshots),
            (config.effective_wal_dir, "wal", config.max_wals),
        ):
            if keep:
                fields = {"dir": directory, "suffix": suffix, "max": keep, "interval": interval}
                _log.info("started to purge file", fields)
        while True:
            await self.purge()
            await asyncio.sleep(PURGE_SECONDS)

    async def purge(self) -> None:
        """Remove the oldest files of each kind beyond those that are to be kept."""
        await self._in_executor(self._purge)

    async def entries_since(self) -> Sequence[Entry] | None:
        """The log behind the last snapshot, once one that is being taken is on disk; None while the cache has
        forgotten some of it."""
        await self._settled.wait()
        first, last = self.snapshot_index + 1, self._storage.last_index()
        if first > last:
            return []
        try:
            return self._storage.entries(first, last + 1)
        except Compacted:
            return None

    # The cache

    def _note(self, index: int) -> RaftSnapshot:
        """Have raft know what a lagging member would be sent from now on: a snapshot of `index`."""
        if index > self._noted:
            self._storage.create_snapshot(index, self._node.config.conf_state(), b"")
            self._noted = index
        return self._storage.snapshot()

    def _compact(self, index: int) -> None:
        """Forget entries up to `index` at most."""
        storage = self._storage
        keep_from = index + 1 - self._catchup
        if storage.size_bytes > CACHE_BYTES_MAX:
            keep_from = min(max(keep_from, storage.first_index_within(CACHE_BYTES_KEPT)), index + 1)
        if keep_from > storage.first_index() and self._in_flight() and storage.size_bytes <= CACHE_BYTES_MAX:
            _log.info("skip compaction since there is an inflight snapshot")
        elif keep_from > storage.first_index():
            storage.compact(keep_from - 1)
            _log.debug("compacted Raft logs", {"compact-index": keep_from - 1})

    # On disk

    def _begin(self, index: int) -> None:
        _log.info(
            "triggering snapshot",
            {
                "local-member-id": f"{self._local_id:x}",
                "local-member-applied-index": index,
                "local-member-snapshot-index": self.snapshot_index,
                "local-member-snapshot-count": self._count,
                "snapshot-forced": self._forced,
            },
        )
        self._forced = False
        self._saving = True
        self._tell_settled()
        cluster, noted = self._cluster, self._note(index)
        data = membership_json(cluster.list(), cluster.removed, cluster.version)
        conf_state = encode_conf_state(noted.metadata.conf_state)
        self._spawn(self._save(Snapshot(noted.index, noted.term, conf_state, data)))

    async def _save(self, snapshot: Snapshot) -> None:
        index = snapshot.index
        try:
            await self._backend.commit()
            self._check_flushed(index)
            saved = await self._in_executor(lambda: self._snapshots.save(snapshot, self._loop.time))
            if index < self._consensus.begun_anew_at:
                return  # a leader's snapshot has come: an older marker behind its own would leave a gap
            await self._mark(snapshot)
            self._wal.release(index)
            self.snapshot_index = max(index, self.snapshot_index)
            _log.info("saved snapshot to disk", {"snapshot-index": index})
            self.on_saved(saved)
            await self._in_executor(lambda: self._snapshots.release_databases(index))
        except BackendFailed:
            pass  # which has told the member already
        except Exception as error:
            _log.error("failed to save snapshot", {"snapshot-index": index, "error": str(error)})
            self._on_failure(error)
        finally:
            self._saving = False
            self._tell_settled()

    def _tell_settled(self) -> None:
        if self._forced or self._saving:
            self._settled.clear()
        else:
            self._settled.set()

    def _check_flushed(self, index: int) -> None:
        pinned = self._backend.pin()
        try:
            durable, _ = schema.position(pinned)
        finally:
            pinned.close()
        assert durable >= index, f"the database is at {durable}: the log is needed from there, not {index}"

    async def _mark(self, snapshot: Snapshot) -> None:
        durable: asyncio.Future[None] = self._loop.create_future()

        def saved() -> None:
            if not durable.done():
                durable.set_result(None)

        self._consensus.save_snapshot(snapshot.index, snapshot.term, snapshot.conf_state, saved)
        await durable

    def _purge(self) -> None:
        """Runs in the executor."""
        try:
            if keep := self._config.max_snapshots:
                self._snapshots.purge_databases(keep)
                self._snapshots.purge(keep)
            if keep := self._config.max_wals:
                self._wal.purge(keep)
        except OSError as error:
            _log.error("failed to remove file", {"path": error.filename, "error": error})

    async def _in_executor(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._executor, work)
