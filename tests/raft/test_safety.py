"""Raft's promises under many random schedules. `RAFT_SCHEDULES` runs more of them than the default."""

from __future__ import annotations

import os

import pytest
from raft_sim import World

SCHEDULES = int(os.environ.get("RAFT_SCHEDULES", "120"))
BATCH = 20
STEPS = 5000


@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
def test_no_schedule_breaks_a_promise_and_every_cluster_comes_to_rest(first: int) -> None:
    applied = reads = stuck = 0
    for seed in range(first, first + BATCH):
        world = World(seed)
        world.run(STEPS)
        if not world.settle():
            assert world.stuck(), f"seed {seed}: the members never agreed again"
            stuck += 1
        applied += len(world.watch.applied)
        reads += world.reads_served
    assert stuck <= 1, "that is to be rare: three in 9,000 schedules"
    assert applied > BATCH * 20, "the schedules hardly got anything done, so they say nothing"
    assert reads > BATCH, "hardly a read was served, so they say nothing about reads"


def electing(seed: int) -> World:
    """Nothing but elections, without what makes them rare (pre-vote, quorum checks), among members that crash
    again and again: where a forgotten vote would show."""
    world = World(seed)
    world.pre_vote = world.check_quorum = False
    for member in world.members.values():
        member.start()

    def crash_and_restart() -> None:
        if member := world.somebody():
            member.crash()
            member.start()

    world.actions = (
        (world.deliver, 40),
        (world.work, 50),
        (world.write, 40),
        (world.tick, 20),
        (crash_and_restart, 5),
        (world.lose, 2),
    )
    return world


def test_members_that_crash_in_elections_never_elect_two() -> None:
    leaders = 0
    for seed in range(SCHEDULES // 2):
        world = electing(seed)
        world.run(2000)
        leaders += len(world.watch.leaders)
    assert leaders > SCHEDULES, "hardly an election was won, so they say nothing"


def test_a_schedule_has_one_outcome() -> None:
    outcomes = []
    for _ in range(2):
        world = World(4711)
        world.run(STEPS)
        outcomes.append((world.watch.leaders, world.watch.applied, [m.state for m in world.members.values()]))
    assert outcomes[0] == outcomes[1]
