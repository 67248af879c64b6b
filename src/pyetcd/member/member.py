"""One member: requests go in, through the log, and come back as answers; reads are served from what is
applied.

The `api` room calls this class and nothing behind it. Every method is called from the loop. A turn of the
loop ends with
`end_of_turn`, which sends out what was proposed in it as one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from google.protobuf.message import Message

from pyetcd import logs
from pyetcd.cluster.bootstrap import publish, set_version
from pyetcd.cluster.versions import LOWEST, Version, decide_cluster_version, decide_storage_version
from pyetcd.member.alarms import Alarms, name_of
from pyetcd.member.apply import Applier
from pyetcd.member.compactor import Periodic, Revision
from pyetcd.member.config import ServerConfig
from pyetcd.member.config_check import compaction_retention_ns
from pyetcd.member.consensus import Consensus
from pyetcd.member.jobs import Job, Jobs
from pyetcd.member.leases import Leases
from pyetcd.member.opening import Opened
from pyetcd.member.quota import dearest
from pyetcd.member.request_times import RequestTimes
from pyetcd.member.requests import Done, RequestIds, Token, Waiter, Waiters
from pyetcd.member.snapshots import Retention
from pyetcd.mvcc.answer import Answer, finish
from pyetcd.mvcc.compaction import CompactionConfig
from pyetcd.mvcc.hash import KeyValueHash, hash_database
from pyetcd.mvcc.restore import restore
from pyetcd.mvcc.store import Store
from pyetcd.proto import errors
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import NOSPACE, AlarmRequest, CompactionRequest, RangeRequest
from pyetcd.proto.splice import ResponseHeaders, field_head, varint
from pyetcd.raft import Message as RaftMessage
from pyetcd.raft import ReadState
from pyetcd.version import SERVER_VERSION

MAX_APPLY_GAP = 5000  # committed and not applied entries beyond which requests are refused, as etcd's
VERSION_INTERVAL_SECONDS = 5.0
PUBLISH_RETRY_SECONDS = 0.1
CHECKPOINTS_SINCE = Version(3, 6)  # from this cluster version on, every member keeps checkpoints of leases
MAX_INT64 = (1 << 63) - 1

_log = logs.get("member")
_RAFT = InternalRaftRequest
_HEALTH = RangeRequest(limit=1, keys_only=True, serializable=True)


class Member:
    """A running member. `start` it; `stop` it."""

    def __init__(
        self,
        config: ServerConfig,
        opened: Opened,
        loop: asyncio.AbstractEventLoop,
        unix_ms: int,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.config = config
        self.id = opened.member_id
        self.cluster_id = opened.cluster_id
        self.backend = opened.backend
        self.cluster = opened.cluster
        self._position = opened.position
        self._wal = opened.wal
        self._loop = loop
        self._on_failure = on_failure
        self.jobs = Jobs(loop)
        self.alarms = Alarms(self.backend)
        self.leases = Leases(
            config,
            self.backend,
            self,
            loop,
            delete_keys=lambda keys: self.store.delete_keys(keys),
            propose=self.propose,
            flush=self.end_of_turn,
            background=self._background,
            cluster_has_checkpoints=lambda: (self.cluster.version or LOWEST) >= CHECKPOINTS_SINCE,
        )
        self.leases.lessor.load()
        restored = finish(restore(self.backend))
        self.leases.lessor.attach_all(restored.leases)
        self.store = Store(
            self.backend,
            self.leases.lessor,
            self._background,
            restored,
            CompactionConfig(
                config.effective_compaction_batch_limit, config.effective_compaction_sleep_interval_seconds
            ),
        )
        self.times = RequestTimes(loop.time, config.warning_apply_duration_seconds)
        self._request_ids = RequestIds(self.id, unix_ms)
        self._waiters = Waiters(self._request_ids, config.request_timeout_seconds)
        self._waiters.on_failed = self._proposal_failed
        self._quota = config.quota_limit_bytes
        self._dearest_request = dearest(config.max_request_bytes)
        self._room = 0
        self._room_as_of = -1
        self._raising_alarm = False
        self.leader_changes = 0  # leaders seen to come
        self.reads_timed_out = 0  # rounds of linearizable reads
        self.hash_seconds: list[float] = []  # of databases, and of revisions; the metrics take them away
        self.hash_revision_seconds: list[float] = []
        self._last_leader = 0
        self.reads_are_current = False
        self._readers: list[tuple[Callable[[], None], Callable[[Exception], None], float]] = []
        self._tags: dict[int, bytes] = {}
        self._headers = ResponseHeaders(self.cluster_id, self.id)
        self._tasks: set[asyncio.Task[None]] = set()
        self._tick_timer: asyncio.TimerHandle | None = None
        self._version_changed = asyncio.Event()
        self._applier = Applier(
            self.store,
            self.leases.lessor,
            self.cluster,
            self.alarms,
            self._position,
            self._waiters,
            self.jobs,
            node=opened.node,
            resume=lambda: self.consensus.resume(),
            is_nearly_full=self.is_nearly_full,
            has_room=self._has_room,
            on_no_space=self._raise_no_space,
            on_new_term=self._new_term,
            on_version=self._version_set,
            hold=self.backend.hold,
            release=self.backend.release,
            on_failure=on_failure,
            times=self.times,
        )
        self.consensus = Consensus(
            opened.node,
            opened.storage,
            opened.wal,
            apply=self._applier.apply,
            on_applied=self._applied,
            on_leadership=self._leadership_changed,
            on_read_state=self._read_state,
            on_dropped=self._dropped,
            on_failure=on_failure,
            send=self._send,
        )
        self.retention = Retention(
            config,
            self.id,
            opened.node,
            opened.storage,
            self.consensus,
            opened.wal,
            self.backend,
            self.cluster,
            opened.snapshots,
            executor=opened.executor,
            loop=loop,
            spawn=self._spawn,
            on_failure=on_failure,
        )
        self._wal.on_named = lambda: loop.call_soon_threadsafe(self.on_wake)
        self.backend.before_commit = self._position.save
        self.backend.on_failure = on_failure

    # What is known

    @property
    def leader(self) -> int:
        return self.consensus.node.lead

    @property
    def is_learner(self) -> bool:
        return self.cluster.is_local_learner

    @property
    def term(self) -> int:
        return self._position.term

    @property
    def committed_index(self) -> int:
        return self.consensus.node.committed_index

    @property
    def applied_index(self) -> int:
        return self._position.index

    @property
    def log_bytes_written(self) -> int:
        """Into the log since the start."""
        return self._wal.bytes_written

    def new_lease_id(self) -> int:
        """For a lease whose client chose none: positive, and no request's ID."""
        while not (lease_id := self._request_ids.next() & MAX_INT64):
            continue
        return lease_id

    def alarm_names(self) -> Sequence[str]:
        return [name_of(alarm) for alarm in self.alarms.active()]

    def cluster_version(self) -> str:
        return str(self.cluster.version) if self.cluster.version is not None else ""

    def storage_version(self) -> str:
        return self._position.storage_version

    def header(self, revision: int) -> bytes:
        """The encoded header field of an answer."""
        return self._headers(revision, self._position.term)

    def encode(self, answer: Answer) -> bytes | Sequence[bytes]:
        """An answer with its header, in parts unless the header is all there is."""
        header = self._headers(answer.revision, self._position.term)
        return [header, *answer.body] if answer.body else header

    # Writes

    def propose(
        self, kind: int, payload: bytes, request: Message, done: Done[Token], token: Token, cost: int = 0
    ) -> None:
        """Send a request through the log; `done` is called with its answer or error. Raises what refuses
        it."""
        if cost and not self._has_room(cost):
            self._raise_no_space()
            raise errors.NO_SPACE
        if self.committed_index > self._position.index + MAX_APPLY_GAP or self.backend.full:
            raise errors.TOO_MANY_REQUESTS
        if len(payload) + 32 > self.config.max_request_bytes:
            self._check_size(kind, payload)
        tag = self._tags.get(kind)
        if tag is None:
            tag = self._tags[kind] = varint(kind << 3 | 2)
        self.consensus.propose(self._waiters.add(kind, tag, payload, request, done, token, self._loop.time()))

    def _check_size(self, kind: int, payload: bytes) -> None:
        """The limit is on the entry, envelope included."""
        head = len(field_head(kind, len(payload)))
        if self._waiters.header_bytes + head + len(payload) > self.config.max_request_bytes:
            self.times.answered(kind, True).observe(0.0)  # a success to etcd: only what raft refuses is none
            raise errors.REQUEST_TOO_LARGE

    async def request(self, kind: int, payload: bytes, request: Message) -> Answer:
        """`propose` for coroutines."""
        future: asyncio.Future[Answer] = self._loop.create_future()

        def done(token: None, answer: Answer | None, error: Exception | None) -> None:
            if future.done():
                return
            if answer is not None:
                future.set_result(answer)
            else:
                assert error is not None, "a request ends with an answer or an error"
                future.set_exception(error)

        self.propose(kind, payload, request, done, None)
        self._loop.call_soon(self.end_of_turn)
        return await future

    def end_of_turn(self) -> None:
        self.consensus.flush()
        self.times.settle()

    def _proposal_failed(self, waiter: Waiter[Any]) -> None:
        """Raft refused it, or it took too long, which is a success to etcd's count."""
        waited = self._loop.time() - waiter.since
        self.times.answered(waiter.kind, waited >= self.config.request_timeout_seconds).observe(waited)

    @property
    def pending_proposals(self) -> int:
        """Proposed and not yet applied, refused or given up."""
        return len(self._waiters)

    @property
    def failed_proposals(self) -> int:
        return self._waiters.failed

    def _dropped(self, proposals: list[bytes]) -> None:
        for data in proposals:
            self._waiters.drop(data, errors.TIMEOUT())

    def is_nearly_full(self) -> bool:
        """May a request exceed the quota? If not, what it costs need not be counted."""
        return not self._has_room(self._dearest_request)

    def _has_room(self, cost: int) -> bool:
        if self._quota is None:
            return True
        if self._room_as_of != self.backend.commits:  # only a commit changes the size
            self._room_as_of = self.backend.commits
            self._room = self._quota - self.backend.size_bytes
        return cost < self._room

    def _raise_no_space(self) -> None:
        if self._raising_alarm or self.alarms.no_space:
            return
        self._raising_alarm = True
        _log.warn("message exceeded backend quota; raising alarm", {"quota-size-bytes": self._quota})
        alarm = AlarmRequest(memberID=self.id, action=AlarmRequest.ACTIVATE, alarm=NOSPACE)

        def done(token: None, answer: Answer | None, error: Exception | None) -> None:
            self._raising_alarm = False

        self.propose(_RAFT.ALARM_FIELD_NUMBER, alarm.SerializeToString(), alarm, done, None)
        self._loop.call_soon(self.end_of_turn)

    # Reads

    def when_current(self, run: Callable[[], None], fail: Callable[[Exception], None]) -> None:
        """Call `run` once everything acknowledged before now is applied here, or `fail` when that takes too
        long."""
        if self.reads_are_current:
            run()
            return
        self._readers.append((run, fail, self._loop.time() + self.config.request_timeout_seconds))

    async def current(self) -> None:
        """Await what `when_current` waits for."""
        future: asyncio.Future[None] = self._loop.create_future()
        self.when_current(lambda: future.set_result(None), future.set_exception)
        await future

    async def linearizable_read(self) -> None:
        asked = self._loop.time()
        try:
            await self.current()
        except errors.EtcdError as error:
            self.times.read(_HEALTH, asked, 0.0, None, error)
            raise
        self._read_once(asked)

    async def serializable_read(self) -> None:
        self._read_once(self._loop.time())

    def _read_once(self, asked: float) -> None:
        """What etcd's health checks read: the keys of a range that holds none."""
        begun = self._loop.time()
        work = self.store.range(_HEALTH)
        assert isinstance(work, Answer), "a single key is read at once"
        self.times.read(_HEALTH, asked, begun, work, None)

    def _refresh_reads(self) -> None:
        """A sole voter that leads and has committed in its term is current at all times: what is
        acknowledged is
        applied. Clusters of several need a round for each batch of reads; they are not served yet."""
        node = self.consensus.node
        self.reads_are_current = node.is_leader and self._position.term == node.term and self._is_sole_voter()
        if self.reads_are_current and self._readers:
            readers, self._readers = self._readers, []
            for run, _, _ in readers:
                run()

    def _is_sole_voter(self) -> bool:
        return [voter.id for voter in self.cluster.voters()] == [self.id]

    def _read_state(self, state: ReadState) -> None:
        self._refresh_reads()

    # Compaction and hashes

    def after_compaction(self, run: Callable[[], None]) -> None:
        """Call `run` when accepted compactions have removed what they remove, durably."""
        self._spawn(self._finish_compaction(run))

    async def _finish_compaction(self, run: Callable[[], None]) -> None:
        await self.store.compacted()
        await self.backend.commit()
        run()

    async def hash(self) -> tuple[int, int]:
        """Hash over all buckets, and the revision it holds for."""
        begun = self._loop.time()
        revision = self.store.revision
        await self.backend.commit()
        pinned = self.backend.pin()
        try:
            return await self.jobs.run(hash_database(pinned)), revision
        finally:
            pinned.close()
            self.hash_seconds.append(self._loop.time() - begun)

    async def hash_kv(self, revision: int) -> KeyValueHash:
        begun = self._loop.time()
        result = await self.jobs.run(self.store.hash_kv(revision))
        self.hash_revision_seconds.append(self._loop.time() - begun)
        return result

    # Life

    def start(self) -> None:
        """Begin to tick and campaign; then publish this member."""
        self.store.resume_compaction()  # before what the log brings: there may be the next compaction
        self._tick()
        self._spawn(self._watch_versions())
        self._spawn(self.retention.purge_for_ever())
        compactor = self._compactor()
        if compactor is not None:
            self._spawn(compactor.run())

    def _compactor(self) -> Periodic | Revision | None:
        retention = compaction_retention_ns(self.config)
        if not retention:
            return None
        arguments = (lambda: self.store.revision, self._compact, lambda: self.consensus.node.is_leader)
        if self.config.auto_compaction_mode == "revision":
            return Revision(*arguments, retention)
        return Periodic(*arguments, retention / 1e9)

    async def _compact(self, revision: int) -> None:
        request = CompactionRequest(revision=revision)
        await self.request(_RAFT.COMPACTION_FIELD_NUMBER, request.SerializeToString(), request)

    async def publish(self) -> None:
        """Tell the cluster this member's name and client URLs, until it is heard."""
        urls = [url.text for url in self.config.advertise_client_urls]
        request = publish(self.id, self.config.name, urls)
        payload = request.SerializeToString()
        while True:
            try:
                await self.request(_RAFT.CLUSTER_MEMBER_ATTR_SET_FIELD_NUMBER, payload, request)
                break
            except errors.EtcdError as error:
                _log.warn("failed to publish local member to cluster through raft", {"error": error.message})
                # It may have been refused at once, for what only other turns of the loop can change.
                await asyncio.sleep(PUBLISH_RETRY_SECONDS)
        fields = {"local-member-id": f"{self.id:x}", "cluster-id": f"{self.cluster_id:x}"}
        _log.info("published local member to cluster through raft", fields)

    def on_wake(self) -> None:
        """The log thread may have news."""
        self.consensus.durable()

    def _tick(self) -> None:
        self._tick_timer = self._loop.call_later(self.config.heartbeat_interval_ms / 1000, self._tick)
        node = self.consensus.node
        if not node.lead and self._is_sole_voter():
            node.campaign()  # alone, nobody else could be elected first
        self.consensus.tick()
        now = self._loop.time()
        self._waiters.expire(now, lambda waiter: errors.TIMEOUT())
        self.leases.tick(now)
        if self._readers and self._readers[0][2] <= now:
            self.reads_timed_out += 1
        while self._readers and self._readers[0][2] <= now:
            _, fail, _ = self._readers.pop(0)
            fail(errors.TIMEOUT())

    def _applied(self) -> None:
        self._applier.batch_done()
        self.leases.applied()
        self.retention.after_apply()

    def _version_set(self, lowered: bool) -> None:
        self._version_changed.set()
        if lowered:
            self.retention.force()

    def _leadership_changed(self) -> None:
        leader = self.consensus.node.lead
        if leader and leader != self._last_leader:
            self.leader_changes += 1
        self._last_leader = leader
        self._refresh_reads()
        if not self.consensus.node.is_leader:
            self.leases.demote()

    def _new_term(self) -> None:
        self._refresh_reads()
        node = self.consensus.node
        if node.is_leader and self._position.term == node.term:
            self.leases.promote()
            self._version_changed.set()

    async def _watch_versions(self) -> None:
        """The leader settles the cluster's version; every member lets its storage follow."""
        while True:
            try:
                async with asyncio.timeout(VERSION_INTERVAL_SECONDS):  # wait_for can swallow a cancellation
                    await self._version_changed.wait()
            except TimeoutError:
                pass
            self._version_changed.clear()
            storage = self.storage_version()
            target = decide_storage_version(self.cluster.version, Version.parse(storage) if storage else None)
            if target is not None:
                self._position.set_storage_version(str(target))
            if not self.consensus.node.is_leader:
                continue
            version = decide_cluster_version(
                self.cluster.version, {self.id: SERVER_VERSION}, self.cluster.downgrade
            )
            if version is not None:
                request = set_version(version)
                try:
                    await self.request(
                        _RAFT.CLUSTER_VERSION_SET_FIELD_NUMBER, request.SerializeToString(), request
                    )
                except errors.EtcdError as error:  # tried again after the interval
                    _log.warn("failed to update cluster version", {"error": error.message})

    def _send(self, messages: list[RaftMessage]) -> None:
        """To other members: there are none yet, `opening` refuses clusters of several."""

    def _background(self, job: Job[None]) -> None:
        self.jobs.start(job, lambda result: None, self._on_failure)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background work failed", {"error": repr(error)})

    async def stop(self) -> None:
        """Finish what is durable, fail what waits, commit and close the files."""
        self.consensus.stop()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.leases.stop()
        self._waiters.fail_all(errors.STOPPED())
        await self.store.close()
        self.jobs.close()
        await self.backend.close()
        self._wal.close()
