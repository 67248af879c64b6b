"""One member: requests go in, through the log, and come back as answers; reads are served from what is
applied.

The `api` room calls this class and nothing behind it. Every method is called from the loop. A turn of the
loop ends with `end_of_turn`, which sends out what was proposed in it as one batch, to the log and to the
peers.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.auth.caller import Caller
from pyetcd.auth.passwords import effective_cost, hashed
from pyetcd.auth.requests import RequestChecks
from pyetcd.auth.simple_tokens import SimpleTokens
from pyetcd.auth.store import AuthStore
from pyetcd.auth.tokens import Tokens
from pyetcd.cluster.bootstrap import publish
from pyetcd.cluster.members import Member as ClusterMember
from pyetcd.cluster.membership import Applied
from pyetcd.cluster.versions import LOWEST, Version
from pyetcd.logs import duration
from pyetcd.member.alarms import Alarms, name_of
from pyetcd.member.apply import Applier
from pyetcd.member.automatic import Disarming, promote_learners
from pyetcd.member.compactor import Periodic, Revision
from pyetcd.member.config import ServerConfig
from pyetcd.member.config_check import compaction_retention_ns
from pyetcd.member.consensus import WAITING_BYTES_MAX, Consensus
from pyetcd.member.corruption import Corruption
from pyetcd.member.elsewhere import Elsewhere
from pyetcd.member.identity import Identity
from pyetcd.member.jobs import Job, Jobs
from pyetcd.member.late import LateTokens
from pyetcd.member.leader import Leader, WeLead
from pyetcd.member.leases import Leases
from pyetcd.member.opening import Opened
from pyetcd.member.pacing import Pacing
from pyetcd.member.peers import Peers
from pyetcd.member.phases import Phases
from pyetcd.member.quota import dearest
from pyetcd.member.reads import Reads
from pyetcd.member.reconfigure import Reconfiguration, connected_since
from pyetcd.member.request_times import RequestTimes
from pyetcd.member.requests import Done, RequestIds, Token, Waiter, Waiters
from pyetcd.member.slow_requests import SlowRequests
from pyetcd.member.snapshot_in import Incoming, Installer
from pyetcd.member.snapshot_out import PinnedDatabase, SnapshotSender
from pyetcd.member.snapshots import Retention
from pyetcd.member.transfer import Transfer
from pyetcd.member.version_keeper import VersionKeeper
from pyetcd.mvcc.answer import Answer, finish
from pyetcd.mvcc.compaction import CompactionConfig
from pyetcd.mvcc.hash import KeyValueHash, hash_database
from pyetcd.mvcc.restore import Restored, restore
from pyetcd.mvcc.store import Store
from pyetcd.peer.calls import Calls
from pyetcd.peer.context import Timeouts
from pyetcd.peer.transport import Transport
from pyetcd.peer.wire import PeerWire
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.plain_put import Request
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import CORRUPT, NOSPACE, AlarmRequest, CompactionRequest, RangeRequest
from pyetcd.proto.splice import ResponseHeaders, field_head, varint
from pyetcd.raft import AnyConfChange, Message, ProposalDropped, Snapshot
from pyetcd.storage.backend import Backend
from pyetcd.storage.defrag import Defragmentation

ADVANCE_CHECKS = 100
ADVANCE_CHECK_SECONDS = 0.05
MAX_APPLY_GAP = 5000  # committed and not applied entries beyond which requests are refused, as etcd's
MAX_PRIORITY_GAP = 2 * MAX_APPLY_GAP  # beyond which those are that go before others
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
        wire: PeerWire,
        on_failure: Callable[[BaseException], None],
        on_removed: Callable[[], None],
        tokens: Tokens | None = None,
    ) -> None:
        """`on_removed`: the cluster has removed this member for good. `tokens`: None for simple ones."""
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
        if tokens is None:
            tokens = SimpleTokens(loop.time, random.SystemRandom(), config.auth_token_ttl_seconds)
        self.bcrypt_cost = effective_cost(config.bcrypt_cost)
        self.auth = AuthStore(self.backend, tokens, lambda password: hashed(password, self.bcrypt_cost))
        self.identity = Identity(self.auth, config.client_tls.client_cert_auth)
        self.late_tokens = LateTokens(
            self.identity,
            lambda: self.applied_index,
            loop.time,
            config.request_timeout_seconds,
            loop.call_soon,
            self.end_of_turn,
        )
        self.checks = RequestChecks(self.auth, lambda lease: self.leases.keys_of(lease))
        self.leases = Leases(
            config,
            self.backend,
            self,
            loop,
            delete_keys=lambda keys: self.store.delete_keys(keys),
            propose=self._propose_as_leader,
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
        phases = Phases(loop.time)
        self.slow_requests = SlowRequests(loop.time, phases)
        self.times = RequestTimes(loop.time, config.warning_apply_duration_seconds, self.slow_requests)
        self._request_ids = RequestIds(self.id, unix_ms)
        self._waiters = Waiters(self._request_ids, config.request_timeout_seconds)
        self._waiters.on_failed = self._proposal_failed
        self._quota = config.quota_limit_bytes
        self._dearest_request = dearest(config.max_request_bytes)
        self._room = 0
        self._room_as_of = -1
        self._raising_alarm = False
        self._waits_for_backend = False
        self.leader_changes = 0  # leaders seen to come
        self.late_heartbeats = 0  # as leader
        self.hash_seconds: list[float] = []  # of databases, and of revisions; the metrics take them away
        self.hash_revision_seconds: list[float] = []
        self._last_leader = 0
        self._leads_since = -math.inf  # when this member became leader, the last time; loop time
        self._ticked_at = loop.time()
        self._was_suspended = False  # as leader, and no quorum has been heard from since
        self._asks_quorum = False
        self._refreshes_reads = False
        self.reads = Reads(
            loop.time,
            lambda context: self.consensus.node.read_index(context),
            self._request_ids.next,
            lambda: self.applied_index,
            config.request_timeout_seconds,
            self.slow_requests,
        )
        self._tags: dict[int, bytes] = {}
        # With the gate PriorityRequest: what makes room, when there is little, goes before others.
        priority = config.feature("PriorityRequest")
        self._before_others = _RAFT.LEASE_REVOKE_FIELD_NUMBER if priority else 0
        self._headers = ResponseHeaders(self.cluster_id, self.id)
        self._tasks: set[asyncio.Task[None]] = set()
        self._tick_timer: asyncio.TimerHandle | None = None
        self._applier = Applier(
            self.store,
            self.leases.lessor,
            self.cluster,
            self.alarms,
            self.auth,
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
            on_change=self._membership_changed,
            hold=self.backend.hold,
            release=self.backend.release,
            on_failure=on_failure,
            times=self.times,
        )
        self.installer = Installer(
            config,
            opened.files,
            opened.place,
            opened.snapshots,
            self.backend,
            self.jobs,
            opened.executor,
            self._spawn,
            self._adopt,
            on_failure,
        )
        self.consensus = Consensus(
            opened.node,
            opened.storage,
            opened.wal,
            apply=self._applier.apply,
            on_applied=self._applied,
            on_leadership=self._leadership_changed,
            on_read_state=self.reads.answered,
            on_dropped=self._dropped,
            on_failure=on_failure,
            send=lambda messages: self.peers.send(messages),
            is_full=lambda: self.backend.full and self._waits_for_backend,
            snapshots=self.installer,
            phases=phases,
            pacing=Pacing(loop.time),
        )
        advertised = [url.text for url in config.initial_advertise_peer_urls]
        self.incoming = Incoming(config, opened.files, opened.place, opened.executor)
        self.calls = Calls(wire)
        self.peers = Peers(
            self.cluster,
            opened.node,
            self.calls,
            self.incoming,
            loop.time,
            self._spawn,
            self._forward,
            on_removed,
            on_failure,
        )
        timeouts = Timeouts(config.raft_read_timeout_seconds, config.raft_write_timeout_seconds)
        self.transport = Transport(self.id, self.cluster_id, advertised, wire, self.peers, loop, timeouts)
        self.snapshot_seconds: list[float] = []  # of databases sent out; the metrics take them away
        self.defragmentation = Defragmentation(
            opened.files, self.backend, opened.executor, sync=not config.unsafe_no_fsync
        )
        self._executor = opened.executor
        outgoing = SnapshotSender(
            self.id,
            self.backend,
            self.transport,
            opened.executor,
            self._spawn,
            opened.node.report_snapshot,
            self.snapshot_seconds,
        )
        self.peers.connect(self.transport, outgoing)
        self._first_peers = opened.peers, opened.remotes
        self.ask_leader = Leader(self.cluster, opened.node, config.request_timeout_seconds)
        self.elsewhere = Elsewhere(self.leases, opened.node, self.ask_leader, self.calls, self._spawn)
        self.transfer = Transfer(self.cluster, self.consensus, self.transport, config.request_timeout_seconds)
        self.reconfiguration = Reconfiguration(
            config,
            self.cluster,
            opened.node,
            self.transport,
            loop.time,
            self._request_ids.next,
            self._propose_change,
            self._until_applied,
            self._timed_out,
        )
        self.versions = VersionKeeper(
            self.cluster,
            self.backend,
            self._position,
            opened.node,
            self.calls,
            self.request,
            lambda: self.current(),
            lambda: self.retention.entries_since(),
            config.request_timeout_seconds,
            config.downgrade_check_time_seconds,
        )
        self.corruption = Corruption(
            self.cluster,
            self.calls,
            self.hash_kv,
            lambda: self.store.revision,
            lambda: self.store.hashes,
            lambda: self.current(),
            lambda: opened.node.is_leader,
            self._raise_corrupt,
            config.request_timeout_seconds,
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
            in_flight=lambda: outgoing.in_flight,
            on_failure=on_failure,
        )
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
        return self._applier.applied_index

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
        self,
        kind: int,
        payload: bytes,
        request: Request,
        done: Done[Token],
        token: Token,
        cost: int = 0,
        meta: Meta | None = None,
    ) -> None:
        """Send a request through the log; `done` is called with its answer or error. Raises what refuses
        it. `meta`: of the call that asks for it, which says whose request it is."""
        if cost and not self._has_room(cost):
            self._raise_no_space()
            raise errors.NO_SPACE
        gap = self.committed_index - self._position.index
        if gap > MAX_APPLY_GAP and not (kind == self._before_others and gap <= MAX_PRIORITY_GAP):
            raise errors.TOO_MANY_REQUESTS
        if self.backend.full:
            self._wait_for_backend()
        caller = None
        size = len(payload) + 32
        if self.auth.enabled and meta is not None:
            caller = self.identity.caller(meta)
            if caller is not None:
                size += 2 + len(caller.encoded)
        if size > self.config.max_request_bytes:
            self._check_size(kind, payload, caller)
        tag = self._tags.get(kind)
        if tag is None:
            tag = self._tags[kind] = varint(kind << 3 | 2)
        now = self._loop.time()
        self.consensus.propose(self._waiters.add(kind, tag, payload, request, done, token, now, caller))

    def _forward(self, message: Message) -> None:
        """What a follower has us propose. Raises ProposalDropped where our own clients are refused."""
        if self.backend.full:
            try:
                self._wait_for_backend()
            except errors.EtcdError:
                raise ProposalDropped from None
        self.consensus.forward(message)

    def _wait_for_backend(self) -> None:
        """The database takes its time: proposals wait until it has caught up, as many as may."""
        if self.backend.is_held or self.consensus.waiting_bytes > WAITING_BYTES_MAX:
            raise errors.TOO_MANY_REQUESTS
        if not self._waits_for_backend:
            self._waits_for_backend = True
            self._spawn(self._go_on_when_drained())

    async def _go_on_when_drained(self) -> None:
        await self.backend.drained()
        self._waits_for_backend = False
        self.end_of_turn()

    def _propose_as_leader(
        self, term: int, kind: int, payload: bytes, request: Request, done: Done[Token], token: Token
    ) -> None:
        """The same, for what only the leader of `term` may propose; it fails once that is not this member."""
        tag = varint(kind << 3 | 2)
        now = self._loop.time()
        data = self._waiters.add(kind, tag, payload, request, done, token, now, self.auth.root())
        self.consensus.propose_as_leader(term, data)

    def _propose_change(self, change: AnyConfChange) -> None:
        self.consensus.propose_change(change)
        self.end_of_turn()

    def _check_size(self, kind: int, payload: bytes, caller: Caller | None) -> None:
        """The limit is on the entry, envelope included."""
        head = len(field_head(kind, len(payload)))
        if caller is not None:
            head += len(caller.encoded)
        if self._waiters.header_bytes + head + len(payload) > self.config.max_request_bytes:
            self.times.answered(kind, True).observe(0.0)  # a success to etcd: only what raft refuses is none
            raise errors.REQUEST_TOO_LARGE

    async def request(
        self, kind: int, payload: bytes, request: Request, cost: int = 0, meta: Meta | None = None
    ) -> Answer:
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

        self.propose(kind, payload, request, done, None, cost, meta)
        self._loop.call_soon(self.end_of_turn)
        return await future

    def begin_turn(self) -> None:
        """`end_of_turn` will follow: what is to be sent to peers may wait for it."""
        self.transport.hold()

    def end_of_turn(self) -> None:
        self.transport.hold()
        self.reads.flush()
        self.consensus.flush()
        self.transport.flush()
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

    def _raise_corrupt(self, member_id: int) -> None:
        alarm = AlarmRequest(memberID=member_id, action=AlarmRequest.ACTIVATE, alarm=CORRUPT)

        async def activate() -> None:
            try:
                await self.request(_RAFT.ALARM_FIELD_NUMBER, alarm.SerializeToString(), alarm)
            except EtcdError as error:  # the next comparison raises it again
                fields = {"member-id": f"{member_id:x}", "error": error.message}
                _log.warn("failed to raise the alarm CORRUPT", fields)

        self._spawn(activate())

    def _timed_out(self, since: float) -> EtcdError:
        """What a proposal of `since` that was not applied in time is told (etcd's parseProposeCtxErr)."""
        previous_lost = self._leads_since - 2 * self.config.effective_election_timeout_seconds
        if previous_lost < since < self._leads_since:
            return errors.TIMEOUT_LEADER_FAIL()
        leader, members = self.leader, self.cluster.list()
        if leader == self.id:
            connected = connected_since(self.transport, since, self.id, members)
            if connected < len(members) // 2 + 1:
                return errors.TIMEOUT_CONNECTION_LOST()
        elif leader:
            active = self.transport.active_since(leader)
            if active is None or active >= since:
                return errors.TIMEOUT_CONNECTION_LOST()
        return errors.TIMEOUT()

    # Reads

    @property
    def reads_are_current(self) -> bool:
        """Linearizable reads need not wait."""
        return self.reads.are_current

    def when_current(self, run: Callable[[], None], fail: Callable[[Exception], None]) -> None:
        """Call `run` once everything acknowledged before now is applied here, or `fail` when that takes too
        long."""
        self.reads.add(run, fail)

    async def current(self) -> None:
        """Await what `when_current` waits for."""
        future: asyncio.Future[None] = self._loop.create_future()

        def run() -> None:
            if not future.done():
                future.set_result(None)

        def fail(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        self.when_current(run, fail)
        self._loop.call_soon(self.end_of_turn)
        await future

    @property
    def is_certain(self) -> bool:
        """Time has passed here as it should have: a member that was suspended may have missed a new
        leader. It is certain again once a quorum has been heard from."""
        return not self._was_suspended and not self._is_late(self._loop.time() - self._ticked_at)

    def _is_late(self, seconds: float) -> bool:
        return seconds >= 3 * self.config.heartbeat_interval_ms / 1000

    def _ask_quorum(self) -> None:
        """Whether this member, after it was suspended, still leads: a round of reads tells."""
        if self._asks_quorum:
            return
        self._asks_quorum = True
        self.reads.add(lambda: self._quorum_told(True), lambda error: self._quorum_told(False))

    def _quorum_told(self, certain: bool) -> None:
        self._asks_quorum = False
        if certain:
            self._was_suspended = False

    async def _until_applied(self) -> None:
        """Await that all that is committed now is applied. TIMEOUT_WAIT_APPLIED_INDEX."""
        future: asyncio.Future[None] = self._loop.create_future()

        def run() -> None:
            if not future.done():
                future.set_result(None)

        def fail(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        self.leases.when_applied(run, fail)
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
        acknowledged is applied. But what was committed when it became that, a voter that has left may have
        acknowledged, so that is applied first."""
        node = self.consensus.node
        may_be = node.is_leader and self._position.term == node.term and self._is_sole_voter()
        is_applied = self.reads.are_current or self.applied_index >= node.committed_index
        self._refreshes_reads = may_be and not is_applied
        self.reads.set_current(may_be and is_applied)

    def _is_sole_voter(self) -> bool:
        voters = self.consensus.node.config.voters
        return voters.is_singleton() and self.id in voters

    # Members

    async def promote(self, id: int, token: str | None) -> Sequence[ClusterMember]:
        """Promote a learner, here or at the leader, who knows how far it is, and asks for the client's token,
        too. All members then."""
        seconds = self.config.request_timeout_seconds
        while True:
            try:
                return await self.reconfiguration.promote_here(id)
            except errors.NOT_LEADER:
                pass
            try:
                return await self.ask_leader.ask(lambda url: self.calls.promote(url, id, seconds, token))
            except WeLead:
                continue

    # Compaction and hashes

    def after_compaction(self, run: Callable[[], None]) -> None:
        """Call `run` when accepted compactions have removed what they remove, durably."""
        self._spawn(self._finish_compaction(run))

    async def _finish_compaction(self, run: Callable[[], None]) -> None:
        await self.store.compacted()
        await self.backend.commit()
        run()

    async def open_database(self) -> PinnedDatabase:
        """The database as it is now, committed, to be read in pieces. It is to be closed."""
        begun = self._loop.time()
        await self.backend.commit()

        def closed() -> None:
            self.snapshot_seconds.append(self._loop.time() - begun)

        return PinnedDatabase(self.backend.pin(), self._executor, closed)

    async def defragment(self) -> None:
        """Give the space of the database's free pages back. It goes on when who asked for it has gone."""
        done: asyncio.Future[None] = self._loop.create_future()

        async def run() -> None:
            try:
                await self.defragmentation.run()
            except asyncio.CancelledError:
                if not done.done():
                    done.set_exception(errors.STOPPED())
                raise
            except Exception as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(None)

        self._spawn(run())
        await done

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

    async def compare_at_first(self) -> None:
        """Before the start: corruption.Inconsistent when the others hold something else."""
        self.store.resume_compaction()  # what is half compacted would look like damage
        try:
            await self.corruption.check_initially(self.config.initial_check_timeout_seconds)
        except BaseException:
            await self.store.close()
            raise

    def start(self) -> None:
        """Begin to tick and campaign; then publish this member."""
        config, loop = self.config, self._loop
        self._wal.on_named = lambda: loop.call_soon_threadsafe(self.on_wake)
        self.store.resume_compaction()  # before what the log brings: there may be the next compaction
        self.peers.begin(*self._first_peers)
        self._tick()
        self._spawn(self._advance_ticks())
        self._spawn(self.versions.follow())
        self._spawn(self.versions.settle())
        self._spawn(self.versions.end_downgrades())
        self._spawn(self.retention.purge_for_ever())
        if config.auto_disarm and self._quota is not None:
            self._spawn(self._disarming(self._quota).for_ever())
        if config.auto_promote_learners:
            promotion = self.reconfiguration
            self._spawn(promote_learners(promotion.ready_learners, promotion.promote_here))
        if config.corrupt_check_time_seconds:
            self._spawn(self.corruption.check_for_ever(config.corrupt_check_time_seconds))
        if config.feature("CompactHashCheck"):
            every_seconds = config.compact_hash_check_time_seconds
            self._spawn(self.corruption.check_compactions_for_ever(every_seconds))
        compactor = self._compactor()
        if compactor is not None:
            self._spawn(compactor.run())

    def _disarming(self, quota_bytes: int) -> Disarming:
        async def send(alarm: AlarmRequest) -> None:
            await self.request(_RAFT.ALARM_FIELD_NUMBER, alarm.SerializeToString(), alarm)

        return Disarming(
            self.id, quota_bytes, self.alarms, self.backend, self.defragment, send, self._loop.time
        )

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
        now, before = self._loop.time(), self._ticked_at
        self._ticked_at = now
        if node.is_leader and now - before > 2 * self.config.heartbeat_interval_ms / 1000:
            self._heartbeats_late(now - before)
            self._was_suspended = self._was_suspended or self._is_late(now - before)
        self.consensus.tick()
        if self._was_suspended and node.is_leader:
            self._ask_quorum()
        late = self._waiters.expire(now, lambda waiter: self._timed_out(waiter.since))
        if late:
            self.consensus.withdraw(set(late))
        self.leases.tick(now)
        self.reads.tick(now)
        self.transfer.look()
        self.auth.tokens.sweep()
        self.late_tokens.expire(now)
        self.end_of_turn()

    def _heartbeats_late(self, seconds: float) -> None:
        interval = self.config.heartbeat_interval_ms / 1000
        for peer in self.cluster.list():
            if peer.id == self.id:
                continue
            self.late_heartbeats += 1
            _log.warn(
                "leader failed to send out heartbeat on time; took too long, leader is overloaded likely "
                "from slow disk",
                {
                    "to": peer.hex_id,
                    "heartbeat-interval": duration(interval),
                    "expected-duration": duration(2 * interval),
                    "exceeded-duration": duration(seconds - 2 * interval),
                },
            )

    async def _advance_ticks(self) -> None:
        """A member that starts among others need not wait a whole election timeout for a leader's word once
        it is connected to them (etcd's adjustTicks)."""
        ticks = self.config.election_ticks - 2
        if self._is_sole_voter() or not self.config.initial_election_tick_advance:
            return
        for _ in range(ADVANCE_CHECKS):
            await asyncio.sleep(ADVANCE_CHECK_SECONDS)
            active = sum(self.transport.active_since(member.id) is not None for member in self.cluster.list())
            if active > 1:
                fields = {
                    "local-member-id": f"{self.id:x}",
                    "forward-ticks": ticks,
                    "active-remote-members": active,
                }
                _log.info("initialized peer connections; fast-forwarding election ticks", fields)
                for _ in range(ticks):
                    self.consensus.node.tick()
                self.end_of_turn()
                return

    def _applied(self) -> None:
        self._applier.batch_done()
        if self._refreshes_reads:
            self._refresh_reads()
        self.reads.applied()
        self.leases.applied()
        if self.late_tokens.waiting:
            self.late_tokens.applied()
        self.retention.after_apply()

    def _adopt(self, fresh: Backend, restored: Restored, snapshot: Snapshot) -> None:
        """Let everything read the database that a snapshot has brought, in this one turn."""
        self.jobs.abort(errors.LEADER_CHANGED())  # what is half read of the old one
        # What the snapshot covers is never applied here: who waits for it would wait in vain.
        self.consensus.withdraw(set(self._waiters.fail_all(errors.TIMEOUT())))
        self.backend.replace(fresh)
        self.store.replace(restored)  # at once: nothing that thinks of the old one may write into the new
        self._position.load()
        self.cluster.load()
        self.alarms.load()
        self.auth.load()
        self.leases.lessor.load()
        self.leases.lessor.attach_all(restored.leases)
        self.peers.replaced()
        self.retention.installed(snapshot.index)
        self.store.resume_compaction()
        self._refresh_reads()
        self.versions.cluster_changed()
        self.consensus.resume()

    def _membership_changed(self, request_id: int, applied: Applied | EtcdError) -> None:
        """A change of the configuration has been applied, or refused."""
        if isinstance(applied, EtcdError):
            self.reconfiguration.applied(request_id, applied)
            return
        self.peers.changed(applied)
        self.ask_leader.changed()
        self._refresh_reads()
        self.reconfiguration.applied(request_id, None)

    def _version_set(self, lowered: bool) -> None:
        self.versions.cluster_changed()
        if lowered:
            self.retention.force()

    def _leadership_changed(self) -> None:
        leader = self.consensus.node.lead
        is_new = leader and leader != self._last_leader
        self._last_leader = leader
        if is_new:
            self.leader_changes += 1
            if leader == self.id:
                self._leads_since = self._loop.time()
                self._was_suspended = False  # a quorum has just voted
            if self.leader_changes > 1:  # there is no change in the first one to be heard of
                self.reads.leader_changed()
        self.ask_leader.changed()
        self.transfer.look()
        self._refresh_reads()
        if not self.consensus.node.is_leader:
            self.leases.demote()

    def _new_term(self) -> None:
        self._refresh_reads()
        self.reads.first_commit_in_term()
        node = self.consensus.node
        if node.is_leader and self._position.term == node.term:
            self.leases.promote(node.term)
            self.versions.leads()

    def _background(self, job: Job[None]) -> None:
        self.jobs.start(job, lambda result: None, self._background_failed)

    def _background_failed(self, error: Exception) -> None:
        if not isinstance(
            error, EtcdError
        ):  # those are told to requests, and to work on a database that is gone
            self._on_failure(error)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background work failed", {"error": repr(error)})

    def cease(self) -> None:
        """Propose, apply and read nothing more, and tell everybody who waits."""
        self.consensus.stop()
        self.reads.stop()
        self.leases.cease()
        self.reconfiguration.stop()
        self._applier.cease()
        self.late_tokens.stop()
        self.jobs.close()
        self._waiters.fail_all(errors.STOPPED())

    async def stop(self) -> None:
        """`cease`, finish what is durable, commit and close the files."""
        self.cease()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.leases.stop()
        await self.store.close()
        await self.backend.close()
        self._wal.close()
