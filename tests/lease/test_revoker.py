"""Revocation of what has run out: in windows, and never so much that others have to wait."""

from __future__ import annotations

from collections import deque

import pytest
from lease_fakes import World

from pyetcd.lease.lease import Lease
from pyetcd.lease.revoker import BATCH_MAX, BATCH_MIN, COMMIT_WINDOW, Revoker
from pyetcd.proto import errors

RETRY_SECONDS = 7.0
WINDOW = 2 * BATCH_MIN


class Log:
    """The revoker's side of the log: what is proposed lies here until `apply` or `lose`."""

    def __init__(self, world: World | None = None) -> None:
        self.world = World() if world is None else world
        self.under_way: deque[Lease] = deque()
        self.proposals = 0
        self.commits = 0
        self.refuses = False
        self.revoker = Revoker(
            self.world.lessor, self.world.loop, self.propose, lambda: self.commits, RETRY_SECONDS
        )

    def propose(self, lease: Lease) -> None:
        self.proposals += 1
        if self.refuses:
            raise errors.TOO_MANY_REQUESTS
        self.under_way.append(lease)

    @property
    def cost(self) -> int:
        return sum(lease.revoking for lease in self.under_way)

    def apply(self, count: int = 1 << 30) -> int:
        """Apply what is proposed, in order; how many."""
        count = min(count, len(self.under_way))
        for _ in range(count):
            lease = self.under_way.popleft()
            self.world.lessor.revoke(lease.id)
            self.revoker.done(lease, None)
        return count

    def lose(self) -> None:
        while self.under_way:
            self.revoker.done(self.under_way.popleft(), errors.TIMEOUT())

    def grant(self, count: int, ttl: int = 10, keys: int = 0, first: int = 1) -> None:
        for number in range(first, first + count):
            self.world.lessor.grant(number, ttl)
            for key in range(keys):
                self.world.lessor.attach(number, b"%d-%d" % (number, key))


def primary() -> Log:
    log = Log()
    log.world.promote()
    return log


def test_a_lease_is_proposed_to_be_revoked_when_it_runs_out_and_counted_when_that_is_applied() -> None:
    log = primary()
    log.grant(1)
    log.world.loop.advance(9.99)
    assert not log.under_way
    log.world.loop.advance(0.14)
    assert [lease.id for lease in log.under_way] == [1]
    assert log.revoker.expired == 0
    log.apply()
    assert log.revoker.expired == 1
    assert log.world.lessor.revoked == 1


def test_an_idle_lessor_has_no_timer_and_a_busy_one_has_one() -> None:
    log = primary()
    assert log.world.loop.live_timers == 0
    log.grant(100)
    log.grant(100, ttl=5, first=101)
    assert log.world.loop.live_timers == 1
    for _ in range(20):
        log.world.loop.advance(2)
        log.apply()
    assert log.revoker.expired == 200
    assert log.world.loop.live_timers == 0


def test_no_more_than_a_window_is_under_way_and_it_is_filled_again_as_it_is_applied() -> None:
    log = primary()
    log.grant(5000)
    log.world.loop.advance(10.0)
    applied = 0
    while log.under_way:
        assert log.cost <= WINDOW
        batch = min(BATCH_MIN, len(log.under_way))
        applied += log.apply(batch)
        before = log.proposals
        log.world.loop.settle()
        assert log.proposals - before <= BATCH_MIN, "one turn proposes one batch"
        log.world.loop.advance(0.0)
        log.commits += 1
    assert applied == log.revoker.expired == 5000
    assert log.world.loop.time() < 1000 + 11, "the window waits for nothing but the log"


def test_batches_grow_where_they_take_long_and_shrink_again() -> None:
    log = primary()
    log.grant(20_000)
    log.world.loop.advance(10.2)
    costs = []
    for seconds in (0.04, 0.04, 0.04, 10.0, 10.0, 10.0, 0.001, 0.001, 0.001):
        log.commits += 1
        log.world.loop.advance(seconds)
        log.apply(len(log.under_way) // 2)
        log.world.loop.settle()
        log.world.loop.advance(0.0)
        costs.append(log.cost)
    assert costs[2] == pytest.approx(2 * 960, abs=4)
    assert costs[5] == 2 * BATCH_MAX
    assert costs[8] == 2 * BATCH_MIN


def test_keys_count_against_the_window() -> None:
    log = primary()
    log.grant(100, keys=99)
    log.world.loop.advance(10.2)
    assert 0 < log.cost < WINDOW + 100
    assert len(log.under_way) < 10


def test_a_lease_with_more_keys_than_a_window_is_revoked_nevertheless() -> None:
    log = primary()
    log.grant(2, keys=WINDOW + 1)
    log.world.loop.advance(10.2)
    assert log.apply() == 1
    log.world.loop.advance(0.2)
    assert log.apply() == 1
    assert log.revoker.expired == 2


def test_the_backend_is_not_written_full() -> None:
    log = primary()
    log.grant(3 * COMMIT_WINDOW)
    log.world.loop.advance(10.2)
    for commits in range(1, 4):
        while log.under_way:
            log.apply()
            log.world.loop.advance(0.001)
        log.world.loop.advance(1.0)
        assert COMMIT_WINDOW * commits <= log.revoker.expired < COMMIT_WINDOW * commits + BATCH_MIN
        assert not log.under_way
        log.commits += 1
        log.world.loop.advance(0.1)
    while log.under_way:
        log.apply()
        log.world.loop.advance(0.1)
    assert log.revoker.expired == 3 * COMMIT_WINDOW


def test_a_lost_revocation_is_proposed_again(capfd: pytest.CaptureFixture[str]) -> None:
    log = primary()
    log.grant(1)
    log.world.loop.advance(10.2)
    log.lose()
    assert "failed to revoke lease" in capfd.readouterr().err
    log.world.loop.advance(RETRY_SECONDS - 0.2)
    assert not log.under_way
    log.world.loop.advance(0.4)
    log.apply()
    assert log.revoker.expired == 1


def test_a_refused_revocation_is_proposed_again_soon_and_others_with_it() -> None:
    log = primary()
    log.grant(10)
    log.refuses = True
    log.world.loop.advance(12)
    assert not log.under_way
    assert 10 < log.proposals < 300, "it is tried again and again, but not all the time"
    log.refuses = False
    log.world.loop.advance(0.3)
    assert log.apply() == 10


def test_a_lease_somebody_else_revoked_meanwhile_is_not_tried_again() -> None:
    log = primary()
    log.grant(1)
    log.world.loop.advance(10.2)
    lease = log.under_way.popleft()
    log.world.lessor.revoke(1)
    log.revoker.done(lease, errors.LEASE_NOT_FOUND())
    log.world.loop.advance(100)
    assert log.proposals == 1
    assert log.revoker.expired == 0


def test_a_lease_is_hurried_past_a_full_window() -> None:
    log = primary()
    log.grant(5000)
    log.world.loop.advance(10.2)
    waiting = next(number for number in range(1, 5001) if number not in {each.id for each in log.under_way})
    log.revoker.hurry(waiting)
    assert log.under_way[-1].id == waiting
    log.revoker.hurry(waiting)
    assert [lease.id for lease in log.under_way].count(waiting) == 1


def test_a_member_that_does_not_lead_any_more_proposes_nothing() -> None:
    log = primary()
    log.grant(1000)
    log.world.loop.advance(10.2)
    proposed = log.proposals
    log.world.lessor.demote()
    log.lose()
    log.world.loop.advance(100)
    assert log.proposals == proposed


def test_a_member_that_leads_again_takes_up_what_got_lost() -> None:
    log = primary()
    log.grant(3)
    log.world.loop.advance(10.2)
    log.world.lessor.demote()
    log.world.promote(extend_seconds=1.0)
    log.lose()
    log.world.loop.advance(10.9)
    assert not log.under_way, "all leases live anew"
    log.world.loop.advance(RETRY_SECONDS)
    assert log.apply() == 3


def test_a_stopped_revoker_proposes_nothing() -> None:
    log = primary()
    log.grant(600)
    log.world.loop.advance(10.2)
    proposed = log.proposals
    log.revoker.stop()
    log.lose()
    log.world.loop.advance(100)
    assert log.proposals == proposed
