"""Auto-compaction on virtual time: what is compacted, and when.

In periodic mode the oldest note is a tenth of an interval older than the period, in etcd too: it is taken
before the pause after which it is looked at.
"""

from __future__ import annotations

import asyncio

import pytest
from virtual_time import run

from pyetcd.member.compactor import Periodic, Revision
from pyetcd.proto import errors

MINUTE = 60.0
HOUR = 60 * MINUTE


class Store:
    """A revision for every second that has passed; compactions with the time they came at."""

    def __init__(self) -> None:
        self.compacted: list[tuple[int, float]] = []
        self.refuse = 0
        self.is_leader = True

    def revision(self) -> int:
        return round(asyncio.get_running_loop().time()) + 1

    async def compact(self, revision: int) -> None:
        if self.refuse:
            self.refuse -= 1
            raise errors.TIMEOUT()
        self.compacted.append((revision, asyncio.get_running_loop().time()))


async def running(compactor: Periodic | Revision, seconds: float) -> None:
    task = asyncio.ensure_future(compactor.run())
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def periodic(store: Store, retention: float) -> Periodic:
    return Periodic(store.revision, store.compact, lambda: store.is_leader, retention)


def test_a_short_period_is_compacted_once_a_period_to_where_it_was_a_period_ago() -> None:
    store = Store()
    run(running(periodic(store, 10 * MINUTE), 35 * MINUTE))
    assert [(revision, round(at)) for revision, at in store.compacted] == [
        (1, 600),
        (541, 1200),
        (1141, 1800),
    ]


def test_a_long_period_is_waited_for_once_and_then_compacted_every_hour() -> None:
    store = Store()
    run(running(periodic(store, 24 * HOUR), 26.5 * HOUR))
    assert [round(at / HOUR) for _, at in store.compacted] == [24, 25, 26]
    assert [revision for revision, _ in store.compacted] == [1, 3241, 6841]


def test_a_failure_is_tried_again_after_a_tenth_of_the_period() -> None:
    store = Store()
    store.refuse = 1
    run(running(periodic(store, 10 * MINUTE), 12 * MINUTE))
    assert [round(at) for _, at in store.compacted] == [660]


def test_a_follower_compacts_nothing() -> None:
    store = Store()
    store.is_leader = False
    run(running(periodic(store, MINUTE), HOUR))
    run(running(Revision(store.revision, store.compact, lambda: store.is_leader, 10), HOUR))
    assert store.compacted == []


def test_revision_mode_keeps_so_many_and_looks_every_five_minutes() -> None:
    store = Store()
    run(running(Revision(store.revision, store.compact, lambda: True, 400), 16 * MINUTE))
    assert [(revision, round(at)) for revision, at in store.compacted] == [(201, 600), (501, 900)]


def test_nothing_new_is_not_compacted_again() -> None:
    store = Store()
    standing = Revision(lambda: 500, store.compact, lambda: True, 100)
    run(running(standing, HOUR))
    assert [revision for revision, _ in store.compacted] == [400]
