"""Leases in a member: the lessor, what proposes for it, and who waits for it.

Renewals and times to live are known to the leader alone and go through no log. So a request for one waits
here until this member is the primary, at most for the time a request may take: between start and election,
and during a change of leader.

A request that depends on what leases there are waits for the entries that are committed already, as
etcd's waitAppliedIndex.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from google.protobuf.message import Message

from pyetcd.lease.checkpointer import Checkpointer
from pyetcd.lease.checkpointer import Done as Told
from pyetcd.lease.deadlines import Loop
from pyetcd.lease.lease import Lease
from pyetcd.lease.lessor import Backend as Bucket
from pyetcd.lease.lessor import Lessor
from pyetcd.lease.revoker import Revoker
from pyetcd.member.config import ServerConfig
from pyetcd.member.requests import Done, Token
from pyetcd.mvcc.answer import Answer, Job
from pyetcd.proto import errors
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import LeaseCheckpointRequest, LeaseRevokeRequest

REVOKE = InternalRaftRequest.LEASE_REVOKE_FIELD_NUMBER
CHECKPOINT = InternalRaftRequest.LEASE_CHECKPOINT_FIELD_NUMBER
APPLY_TIMEOUT_SECONDS = 1.0  # as etcd's applyTimeout

Run = Callable[[], object]
Fail = Callable[[Exception], object]


class Backend(Bucket, Protocol):
    @property
    def commits(self) -> int: ...


class Propose(Protocol):
    """Sends through the log what only the leader of `term` may propose."""

    def __call__(
        self, term: int, kind: int, payload: bytes, request: Message, done: Done[Token], token: Token, /
    ) -> None: ...


class Log(Protocol):
    """How far the log is."""

    @property
    def committed_index(self) -> int: ...
    @property
    def applied_index(self) -> int: ...


class Parked:
    """Callbacks that wait, each for an index and until its deadline; both ascend."""

    def __init__(self, timeout_seconds: float, error: type[errors.KnownError]) -> None:
        self._timeout_seconds = timeout_seconds
        self._error = error
        self._waiting: deque[tuple[int, float, Run, Fail]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, index: int, now: float, run: Run, fail: Fail) -> None:
        self._waiting.append((index, now + self._timeout_seconds, run, fail))

    def release(self, index: int) -> None:
        """Run those that wait for `index` or less. Whoever waits again then waits for the next time."""
        waiting = self._waiting
        for _ in range(len(waiting)):
            if not waiting or waiting[0][0] > index:
                break
            waiting.popleft()[2]()

    def expire(self, now: float) -> None:
        waiting = self._waiting
        while waiting and waiting[0][1] <= now:
            waiting.popleft()[3](self._error())

    def fail(self, error: Exception) -> None:
        """All of them."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, _, fail in waiting:
            fail(error)


class Leases:
    """One member's leases. Every method from the loop."""

    def __init__(
        self,
        config: ServerConfig,
        backend: Backend,
        log: Log,
        loop: Loop,
        *,
        delete_keys: Callable[[Sequence[bytes]], object],
        propose: Propose,
        flush: Run,
        background: Callable[[Job[None]], object],
        cluster_has_checkpoints: Callable[[], bool],
    ) -> None:
        """`flush`: send out what was proposed. `cluster_has_checkpoints`: its version says that every member
        keeps them.
        """
        self._config = config
        self._log = log
        self._loop = loop
        self._propose = propose
        self._term = 0  # in which this member is, or was last, primary
        self._flush = flush
        self._flushing = False
        self._background = background
        persist = config.feature("LeaseCheckpointPersist")
        self.lessor = Lessor(
            backend,
            loop.time,
            delete_keys,
            min_ttl=min_ttl_seconds(config),
            checkpoints=config.feature("LeaseCheckpoint"),
            persists_checkpoints=lambda: persist or cluster_has_checkpoints(),
        )
        self.revoker = Revoker(
            self.lessor, loop, self._revoke, lambda: backend.commits, config.request_timeout_seconds
        )
        self._on_revoked: Done[Lease] = self._revoked
        self.checkpointer = Checkpointer(self.lessor, loop, self._checkpoint)
        self._until_primary = Parked(config.request_timeout_seconds, errors.NO_LEADER)
        self._until_applied = Parked(APPLY_TIMEOUT_SECONDS, errors.TIMEOUT_WAIT_APPLIED_INDEX)

    # What happens to the member

    def promote(self, term: int) -> None:
        """This member leads in `term`, and all entries of former terms are applied."""
        self._term = term
        self._background(self.lessor.promote(self._config.effective_election_timeout_seconds))
        self._until_primary.release(0)

    def demote(self) -> None:
        """This member does not lead. Who has waited for it to be primary may ask elsewhere."""
        self.lessor.demote()
        if self._until_primary:
            self._until_primary.release(0)

    def applied(self) -> None:
        """Entries were applied."""
        if self._until_applied:
            self._until_applied.release(self._log.applied_index)

    def tick(self, now: float) -> None:
        self._until_primary.expire(now)
        self._until_applied.expire(now)

    def cease(self) -> None:
        """Nobody's wait will end any more."""
        self._until_primary.fail(errors.STOPPED())
        self._until_applied.fail(errors.STOPPED())

    def stop(self) -> None:
        self.revoker.stop()
        self.checkpointer.stop()

    def keys_of(self, lease_id: int) -> Collection[bytes]:
        """What is attached to a lease; nothing where there is none."""
        lease = self.lessor.lookup(lease_id)
        return lease.keys if lease is not None else ()

    # What requests wait for

    @property
    def is_applied(self) -> bool:
        """Everything committed is applied."""
        return self._log.committed_index <= self._log.applied_index

    def when_primary(self, run: Run, fail: Fail) -> None:
        """Call `run` once this member is primary, or `fail` with NO_LEADER when that takes too long."""
        if self.lessor.is_primary:
            run()
        else:
            self._until_primary.add(0, self._loop.time(), run, fail)

    def when_applied(self, run: Run, fail: Fail) -> None:
        """Call `run` once all that is committed now is applied, or `fail` when that takes too long."""
        if self.is_applied:
            run()
        else:
            self._until_applied.add(self._log.committed_index, self._loop.time(), run, fail)

    def when_ended(self, lease_id: int, run: Run) -> None:
        """Have an expired lease revoked before its turn, and call `run` then."""
        self.lessor.when_ended(lease_id, run)
        self.revoker.hurry(lease_id)

    # What is proposed

    def _revoke(self, lease: Lease) -> None:
        request = LeaseRevokeRequest(ID=lease.id)
        payload = request.SerializeToString()
        # A member that was suspended may not know yet that another one leads, where the lease was renewed.
        self._propose(self._term, REVOKE, payload, request, self._on_revoked, lease)
        self._flush_soon()

    def _revoked(self, lease: Lease, answer: Answer | None, error: Exception | None) -> None:
        self.revoker.done(lease, error)

    def _checkpoint(self, request: LeaseCheckpointRequest, told: Told) -> None:
        payload = request.SerializeToString()
        self._propose(self._term, CHECKPOINT, payload, request, _tell, told)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._flush()


def _tell(told: Told, answer: Answer | None, error: Exception | None) -> None:
    told(error)


def min_ttl_seconds(config: ServerConfig) -> int:
    """The least a lease lives: one and a half election timeouts, so that it outlives a change of leader."""
    return -(-(3 * config.election_ticks // 2) * config.heartbeat_interval_ms // 1000)
