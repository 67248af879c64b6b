"""The simulator's watch sees what it is there for: a cluster that is made to break a promise is caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from raft_sim import Disk, Member, Violation, World
from test_safety import electing

from pyetcd.raft import HardState, InvalidMessage, Ready

SCHEDULES = 400
STEPS = 3000


def forget_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vote is not kept over a crash: two may lead one term."""
    write = Disk.write

    def forgetful(disk: Disk, ready: Ready) -> None:
        write(disk, ready)
        disk.hard_state = HardState(disk.hard_state.term, 0, disk.hard_state.commit)

    monkeypatch.setattr(Disk, "write", forgetful)


def lose_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said to be durable is not all there after a crash: a leader may lack what was committed."""
    crash = Member.crash

    def losing(member: Member) -> None:
        crash(member)
        disk = member.disk
        disk.entries = disk.entries[: max(len(disk.entries) - 3, 0)]
        last = disk.entries[-1].index if disk.entries else disk.snapshot.index
        old = disk.hard_state
        disk.hard_state = HardState(old.term, old.vote, min(old.commit, last))

    monkeypatch.setattr(Member, "crash", losing)


def send_before_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that promise durability are sent before there is any."""
    work = Member.work

    def hasty(member: Member) -> None:
        before = len(member.writing)
        work(member)
        if len(member.writing) > before and member.node is not None:
            member.world.network += member.node.stable(member.writing.pop())

    monkeypatch.setattr(Member, "work", hasty)


@pytest.mark.parametrize(
    ("broken", "world"), [(forget_votes, electing), (lose_entries, World), (send_before_writing, World)]
)
def test_a_broken_promise_is_seen(
    broken: Callable[[pytest.MonkeyPatch], None],
    world: Callable[[int], World],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(monkeypatch)
    with pytest.raises((Violation, InvalidMessage)):
        run_all(world)


def run_all(world: Callable[[int], World]) -> None:
    for seed in range(SCHEDULES):
        world(seed).run(STEPS)
