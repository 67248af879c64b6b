"""A snapshot from the leader: received beside the database, made durable, then put in its place.

    <snap>/<index>.snap.db       the database, proved (`storage.received`), before raft hears of the snapshot
    <snap>/<term>-<index>.snap   the message's membership, as etcd writes it
    the log's marker             from here on a start takes the received database (`cluster.datadir`)
    <snap>/db                    renamed to, opened, and everything that holds state reads it anew

The steps are in this order, each durable before the next; so a crash at any moment leaves either the old
state with its log, or the new one. Reads go on from the old state until the last step, which is one turn of
the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor

from pyetcd import logs
from pyetcd.cluster.datadir import DataDir, place_received
from pyetcd.cluster.membership import Membership
from pyetcd.cluster.versions import check_not_newer
from pyetcd.member.config import ServerConfig
from pyetcd.member.jobs import Jobs
from pyetcd.member.opening import check_contents
from pyetcd.mvcc.restore import Restored, restore
from pyetcd.peer.seams import Refused, SnapshotSink
from pyetcd.raft import Message, Snapshot
from pyetcd.raft.codec import encode_conf_state
from pyetcd.storage import snap
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import Files
from pyetcd.storage.received import NotTheSnapshot, ReceivedDatabase

BYTES_MAX = 1 << 40  # of a database that is received by a member without a quota
BYTES_BEYOND_QUOTA = 1 << 30  # a database may have grown beyond its quota somewhat
BAD_REQUEST = 400
TOO_LARGE = 413
FAILED = 500

_log = logs.get("member")


class Incoming:
    """Where received databases go."""

    def __init__(self, config: ServerConfig, files: Files, place: DataDir, executor: Executor) -> None:
        quota = config.quota_limit_bytes
        self._files = files
        self._place = place
        self._executor = executor
        self._bytes_max = BYTES_MAX if quota is None else 2 * quota + BYTES_BEYOND_QUOTA
        self._attempts = 0
        self.save_seconds: list[
            float
        ] = []  # of whole databases, and of their syncs; the metrics take them away
        self.sync_seconds: list[float] = []

    def receive(self, message: Message) -> SnapshotSink:
        """The sink for the database behind `message`, which is a MsgSnap. Refused."""
        if message.snapshot is None or not message.snapshot.index:
            raise Refused(BAD_REQUEST, "snapshot message without a snapshot")
        self._attempts += 1
        index, attempt = message.snapshot.index, self._attempts
        try:
            received = ReceivedDatabase(self._files, self._place.snap, index, attempt)
        except OSError as error:
            raise Refused(FAILED, f"failed to save KV snapshot ({error})") from None
        return _Sink(received, self._executor, self._bytes_max, self.save_seconds, self.sync_seconds)


class _Sink:
    """Fulfils `peer.seams.SnapshotSink`. One thing at a time is done with the file: work whose task is
    cancelled goes on in its thread, and a descriptor that is closed under it may be another file's by then.
    """

    def __init__(
        self,
        received: ReceivedDatabase,
        executor: Executor,
        bytes_max: int,
        save_seconds: list[float],
        sync_seconds: list[float],
    ) -> None:
        self._received = received
        self._executor = executor
        self._bytes_max = bytes_max
        self._save_seconds = save_seconds
        self._sync_seconds = sync_seconds
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._work: asyncio.Future[None] | None = None  # what was begun last

    async def write(self, chunk: bytes) -> None:
        if self._received.size + len(chunk) > self._bytes_max:
            raise Refused(TOO_LARGE, f"failed to save KV snapshot (more than {self._bytes_max} bytes)")
        await self._run(lambda: self._received.write(chunk))

    async def finish(self) -> None:
        syncing = self._loop.time()
        await self._run(self._received.sync)
        self._sync_seconds.append(self._loop.time() - syncing)
        await self._run(self._received.keep)
        self._save_seconds.append(self._loop.time() - self._began)

    def abort(self) -> None:
        if self._work is None or self._work.done():
            self._drop()
        else:
            self._work.add_done_callback(self._drop)

    def _drop(self, work: asyncio.Future[None] | None = None) -> None:
        if work is not None and not work.cancelled():
            work.exception()  # of what nobody waits for any more
        self._loop.run_in_executor(self._executor, self._received.drop)

    async def _run(self, work: Callable[[], None]) -> None:
        self._work = self._loop.run_in_executor(self._executor, work)
        try:
            await asyncio.shield(self._work)
        except (OSError, NotTheSnapshot) as error:
            raise Refused(FAILED, f"failed to save KV snapshot ({error})") from None


class Installer:
    """Fulfils `consensus.Snapshots`. Every method from the loop.

    `adopt(fresh, restored, snapshot)`: in one turn, have everything read the new database, and go on.
    """

    def __init__(
        self,
        config: ServerConfig,
        files: Files,
        place: DataDir,
        snapshots: snap.Snapshots,
        backend: Backend,
        jobs: Jobs,
        executor: Executor,
        spawn: Callable[[Coroutine[None, None, None]], None],
        adopt: Callable[[Backend, Restored, Snapshot], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._files = files
        self._place = place
        self._snapshots = snapshots
        self._backend = backend
        self._jobs = jobs
        self._executor = executor
        self._spawn = spawn
        self._adopt = adopt
        self._on_failure = on_failure
        self.in_progress = 0

    def save(self, snapshot: Snapshot, saved: Callable[[], None]) -> None:
        self._spawn(self._save(snapshot, saved))

    async def _save(self, snapshot: Snapshot, saved: Callable[[], None]) -> None:
        conf_state = encode_conf_state(snapshot.metadata.conf_state)
        file = snap.Snapshot(snapshot.index, snapshot.term, conf_state, snapshot.data)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, lambda: self._snapshots.save(file))
        except Exception as error:  # nothing more would be appended
            self._on_failure(error)
            return
        saved()

    def install(self, snapshot: Snapshot) -> None:
        self.in_progress += 1
        self._spawn(self._install(snapshot))

    async def _install(self, snapshot: Snapshot) -> None:
        fields = {
            "incoming-leader-snapshot-index": snapshot.index,
            "incoming-leader-snapshot-term": snapshot.term,
        }
        _log.info("applying snapshot", fields)
        try:
            async with self._backend.exchanging:
                await self._backend.quiesce()
                fresh = await self._opened(snapshot.index)
                try:
                    _log.info("applySnapshot: opened snapshot backend")
                    _log.info("restoring mvcc store")
                    restored = await self._jobs.run(restore(fresh))
                except BaseException:
                    fresh.discard()
                    raise
                self._adopt(fresh, restored, snapshot)
        except Exception as error:  # half of it may have happened: the next start decides by the log
            self._backend.hold()  # whatever is still written, into whichever database, is never committed
            self._on_failure(error)
            return
        finally:
            self.in_progress -= 1
        _log.info("applied snapshot", fields)

    async def _opened(self, index: int) -> Backend:
        opening = asyncio.get_running_loop().run_in_executor(self._executor, self._open, index)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:  # the member stops; what the thread opens is to be closed
            (await opening).discard()
            raise

    def _open(self, index: int) -> Backend:
        """Runs in the executor. What could make `adopt` fail half-way is looked at here."""
        place_received(self._files, self._place, self._place.received_database(index))
        fresh = Backend.open(self._files, self._place.database, None, sync=not self._config.unsafe_no_fsync)
        try:
            check_contents(fresh)
            members = Membership(fresh, 0, 0)
            members.read()
            check_not_newer(members.version)
        except BaseException:
            fresh.discard()
            raise
        return fresh
