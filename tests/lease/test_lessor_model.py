"""The lessor with its revoker against a twin that knows no queues, epochs or jobs: every lease has a plain
deadline, which is looked at all the time.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from lease_fakes import MIN_TTL, World

from pyetcd.lease.deadlines import TICK_SECONDS
from pyetcd.lease.lease import Lease
from pyetcd.lease.lessor import NotRenewed
from pyetcd.lease.revoker import Revoker
from pyetcd.mvcc.answer import finish
from pyetcd.proto import errors
from pyetcd.proto.lease_pb2 import Lease as Record

LEASES = st.integers(1, 6)
KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
RETRY_SECONDS = 3.0


@dataclass
class TwinLease:
    ttl: int
    remaining_ttl: int = 0
    deadline: float = math.inf
    keys: set[bytes] = field(default_factory=set)

    @property
    def left_ttl(self) -> int:
        return self.remaining_ttl or self.ttl


class LessorModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.twin: dict[int, TwinLease] = {}
        self.is_primary = False
        self.begin(World(checkpoints=True))

    def begin(self, world: World) -> None:
        self.world = world
        self.lessor = world.lessor
        self.under_way: deque[Lease] = deque()
        self.revoker = Revoker(
            self.lessor, world.loop, self.under_way.append, lambda: world.loop.set_timers, RETRY_SECONDS
        )

    @property
    def now(self) -> float:
        return self.world.loop.now

    @rule(lease=LEASES, ttl=st.integers(-1, 8))
    def grant(self, lease: int, ttl: int) -> None:
        if lease in self.twin:
            try:
                self.lessor.grant(lease, ttl)
            except errors.LEASE_EXISTS:
                return
            raise AssertionError("granted twice")
        granted = self.lessor.grant(lease, ttl)
        twin = self.twin[lease] = TwinLease(max(ttl, MIN_TTL))
        assert granted.ttl == twin.ttl
        if self.is_primary:
            twin.deadline = self.now + twin.ttl

    @rule(lease=LEASES)
    def revoke(self, lease: int) -> None:
        if lease not in self.twin:
            try:
                self.lessor.revoke(lease)
            except errors.LEASE_NOT_FOUND:
                return
            raise AssertionError("revoked what there was not")
        self.gone(lease)

    def gone(self, lease: int) -> None:
        """Revoke a lease in both."""
        deleted = len(self.world.deleted)
        self.lessor.revoke(lease)
        keys = self.twin.pop(lease).keys
        assert [set(each) for each in self.world.deleted[deleted:]] == ([keys] if keys else [])

    @rule(lease=LEASES, key=KEYS)
    def put(self, lease: int, key: bytes) -> None:
        """As the store: detach from the old lease, attach to the new one."""
        old = self.lessor.lease_of(key)
        if old:
            self.lessor.detach(old, key)
            self.twin[old].keys.discard(key)
        if lease in self.twin:
            self.lessor.attach(lease, key)
            self.twin[lease].keys.add(key)

    @rule(lease=LEASES, remaining=st.integers(0, 8))
    def checkpoint(self, lease: int, remaining: int) -> None:
        self.lessor.checkpoint(lease, remaining)
        if lease in self.twin:
            self.twin[lease].remaining_ttl = remaining

    @rule(lease=LEASES, keep=st.booleans())
    def renew(self, lease: int, keep: bool) -> None:
        renewed = self.lessor.renew(lease, keep_checkpoint=keep)
        twin = self.twin.get(lease)
        if not self.is_primary:
            assert renewed is NotRenewed.NOT_PRIMARY
        elif twin is None:
            assert renewed is NotRenewed.UNKNOWN
        elif twin.deadline <= self.now:
            assert renewed is NotRenewed.EXPIRED
        elif twin.remaining_ttl and not keep:
            assert renewed is NotRenewed.CHECKPOINTED
        else:
            assert renewed == twin.ttl
            twin.deadline = self.now + twin.left_ttl

    @rule(extend=st.sampled_from([0.0, 1.0]), steps=st.sampled_from([0, 10]))
    def promote(self, extend: float, steps: int) -> None:
        """With `steps` 0 the job never gets its turn."""
        job = self.lessor.promote(extend)
        self.is_primary = True
        for twin in self.twin.values():
            twin.deadline = self.now + extend + twin.left_ttl
        self.queued = steps > 0
        if self.queued:
            finish(job)

    @rule()
    def demote(self) -> None:
        self.lessor.demote()
        self.is_primary = False
        for twin in self.twin.values():
            twin.deadline = math.inf

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.0, 5.0]))
    def advance(self, seconds: float) -> None:
        self.world.loop.advance(seconds)
        if not self.is_primary or not self.queued:
            return
        revoking = {lease.id for lease in self.under_way}
        for lease, twin in self.twin.items():
            if twin.deadline + RETRY_SECONDS + 2 * TICK_SECONDS < self.now:
                assert lease in revoking, "it has run out long ago"

    @precondition(lambda self: self.under_way)
    @rule(lost=st.booleans())
    def revocation_ends(self, lost: bool) -> None:
        lease = self.under_way.popleft()
        if lost:
            self.revoker.done(lease, errors.TIMEOUT())
        elif self.lessor.lookup(lease.id) is None:
            self.revoker.done(lease, errors.LEASE_NOT_FOUND())
        else:  # maybe another lease of this ID by now, as it may happen in the log
            self.gone(lease.id)
            self.revoker.done(lease, None)

    @rule()
    def restart(self) -> None:
        self.begin(self.world.restarted())
        self.is_primary = False
        for twin in self.twin.values():
            twin.deadline = math.inf

    @invariant()
    def nothing_is_proposed_before_its_time(self) -> None:
        for lease in self.under_way:
            if self.lessor.lookup(lease.id) is lease and self.is_primary and not self.promoted_since(lease):
                assert self.twin[lease.id].deadline <= self.now

    def promoted_since(self, lease: Lease) -> bool:
        """It lives anew, and its revocation is still on its way."""
        return self.lessor.remaining_seconds(lease) > 0

    @invariant()
    def both_know_the_same(self) -> None:
        assert len(self.lessor) == len(self.twin)
        attached = {key: lease for lease, twin in self.twin.items() for key in twin.keys}
        for key in (b"a", b"b", b"c", b"d"):
            assert self.lessor.lease_of(key) == attached.get(key, 0)
        for lease, twin in self.twin.items():
            found = self.lessor.lookup(lease)
            assert found is not None
            assert set(found.keys) == twin.keys
            left = self.lessor.remaining_seconds(found)
            assert left == math.inf if not self.is_primary else abs(left - (twin.deadline - self.now)) < 1e-6
            stored = Record.FromString(self.world.bucket.rows[lease.to_bytes(8, "big")])
            assert (stored.ID, stored.TTL, stored.RemainingTTL) == (lease, twin.ttl, twin.remaining_ttl)

    @invariant()
    def leases_are_listed_by_their_deadlines(self) -> None:
        ids = finish(self.lessor.ids_by_expiry())
        assert sorted(ids) == sorted(self.twin)
        deadlines = [self.twin[lease].deadline for lease in ids]
        assert all(one <= other + 1e-6 for one, other in pairwise(deadlines))


TestLessorModel = LessorModel.TestCase
TestLessorModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
