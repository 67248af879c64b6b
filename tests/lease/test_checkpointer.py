"""Checkpoints on their way through the log."""

from __future__ import annotations

from lease_fakes import World

from pyetcd.lease.checkpointer import BATCH_MAX, Checkpointer, Done
from pyetcd.lease.lessor import CHECKPOINT_INTERVAL_SECONDS
from pyetcd.proto import errors
from pyetcd.proto.rpc_pb2 import LeaseCheckpointRequest

TTL = 10 * CHECKPOINT_INTERVAL_SECONDS
SOON = CHECKPOINT_INTERVAL_SECONDS + 0.2


class Log:
    def __init__(self) -> None:
        self.world = World(checkpoints=True)
        self.under_way: list[tuple[LeaseCheckpointRequest, Done]] = []
        self.refuses = False
        self.checkpointer = Checkpointer(self.world.lessor, self.world.loop, self.propose)
        self.world.promote()

    def propose(self, request: LeaseCheckpointRequest, done: Done) -> None:
        if self.refuses:
            raise errors.TOO_MANY_REQUESTS
        self.under_way.append((request, done))

    def apply(self) -> list[tuple[int, int]]:
        """Apply the oldest entry; what it noted."""
        request, done = self.under_way.pop(0)
        for each in request.checkpoints:
            self.world.lessor.checkpoint(each.ID, each.remaining_TTL)
        done(None)
        return [(each.ID, each.remaining_TTL) for each in request.checkpoints]


def test_a_long_lease_is_noted_every_five_minutes_as_long_as_it_lives() -> None:
    log = Log()
    log.world.lessor.grant(1, TTL)
    noted = []
    for _ in range(9):
        log.world.loop.advance(SOON)
        noted += log.apply()
    assert [lease for lease, _ in noted] == [1] * 9
    remaining = [seconds for _, seconds in noted]
    assert remaining == sorted(remaining, reverse=True)
    assert remaining[0] == TTL - CHECKPOINT_INTERVAL_SECONDS
    log.world.loop.advance(TTL)
    assert not log.under_way, "less than an interval is left"


def test_many_are_noted_in_one_entry_and_one_entry_is_under_way_at_a_time() -> None:
    log = Log()
    for number in range(1, 2 * BATCH_MAX + 2):
        log.world.lessor.grant(number, TTL)
    log.world.loop.advance(SOON)
    sizes = []
    while log.under_way:
        assert len(log.under_way) == 1
        sizes.append(len(log.apply()))
        log.world.loop.advance(0.2)
    assert sizes == [BATCH_MAX, BATCH_MAX, 1]


def test_refused_checkpoints_hold_up_nothing_that_comes_later() -> None:
    log = Log()
    log.world.lessor.grant(1, TTL)
    log.refuses = True
    log.world.loop.advance(SOON)
    log.refuses = False
    log.world.lessor.grant(2, TTL)
    log.world.loop.advance(SOON)
    assert [lease for lease, _ in log.apply()] == [2]


def test_a_checkpoint_is_taken_back_through_the_log_before_a_renewal() -> None:
    log = Log()
    told: list[Exception | None] = []
    log.world.lessor.grant(1, TTL)
    log.world.lessor.checkpoint(1, 700)
    log.checkpointer.take_back(1, told.append)
    assert told == []
    assert log.apply() == [(1, 0)]
    assert told == [None]
    assert log.world.lessor.renew(1) == TTL
    log.refuses = True
    log.checkpointer.take_back(1, told.append)
    assert isinstance(told[-1], errors.TOO_MANY_REQUESTS)


def test_a_member_that_does_not_lead_or_has_stopped_notes_nothing() -> None:
    log = Log()
    log.world.lessor.grant(1, TTL)
    log.world.lessor.demote()
    log.world.loop.advance(SOON)
    assert not log.under_way
    log.world.promote()
    log.checkpointer.stop()
    log.world.loop.advance(SOON)
    assert not log.under_way
