"""When the next batch of proposals may go out."""

from __future__ import annotations

import pytest

from pyetcd.member.pacing import PATIENCE_SECONDS, Pacing


class Leader:
    """A leader whose batches of one entry take `disk` seconds to be durable here, and `others` more until the
    others have them. `wait` tells what the next one waited for."""

    def __init__(self, disk: float, others: float) -> None:
        self.disk, self.others = disk, others
        self.now = 0.0
        self.pacing = Pacing(lambda: self.now)
        self.last = 0

    def send(self) -> None:
        self.last += 1
        self.pacing.sent(self.last, self.last)

    def wait(self) -> str:
        """Send a batch and see it through; "disk" or "commit"."""
        self.send()
        assert not self.pacing.is_open(self.last)
        self.now += self.disk
        self.pacing.durable(self.last)
        waits_for_commit = not self.pacing.is_open(0)
        self.now += self.others
        self.pacing.committed(self.last)
        assert self.pacing.is_open(0)
        return "commit" if waits_for_commit else "disk"


def test_at_first_nothing_is_waited_for() -> None:
    assert Pacing(lambda: 0.0).is_open(0)


def test_where_the_others_are_near_a_batch_waits_for_the_last_to_be_committed() -> None:
    leader = Leader(disk=0.01, others=PATIENCE_SECONDS * 0.9)
    assert [leader.wait() for _ in range(3)] == ["commit", "commit", "commit"]


def test_where_they_are_far_only_for_the_disk() -> None:
    leader = Leader(disk=0.001, others=PATIENCE_SECONDS * 1.1)
    assert [leader.wait() for _ in range(3)] == ["commit", "disk", "disk"]
    leader.others = 0.001  # they have come nearer
    assert [leader.wait() for _ in range(3)] == ["disk", "commit", "commit"]


def test_distance_is_measured_also_while_more_batches_are_under_way() -> None:
    leader = Leader(disk=0.001, others=1.0)
    leader.wait()
    for _ in range(3):  # out before the one before is committed
        leader.send()
        leader.pacing.durable(leader.last)
        assert leader.pacing.is_open(0)
    leader.pacing.committed(leader.last - 2)  # the first of them: at once
    leader.send()
    assert not leader.pacing.is_open(0)


def test_what_was_committed_before_it_was_durable_here_was_near() -> None:
    leader = Leader(disk=0.001, others=1.0)
    leader.wait()
    leader.send()
    leader.now += 10.0
    leader.pacing.committed(leader.last)
    leader.pacing.durable(leader.last)
    assert leader.wait() == "commit"


@pytest.mark.parametrize("under_way", [0, 2])
def test_what_others_append_is_not_waited_for(under_way: int) -> None:
    pacing = Pacing(lambda: 0.0)
    pacing.sent(1, 0)  # a follower's
    assert not pacing.is_open(1)
    assert pacing.is_open(under_way)


def test_a_new_leader_does_not_wait_for_what_was_lost_with_the_old_one() -> None:
    leader = Leader(disk=0.001, others=0.001)
    leader.send()
    assert not leader.pacing.is_open(0)
    leader.pacing.leadership_changed()
    assert leader.pacing.is_open(0)
    assert leader.wait() == "commit"
