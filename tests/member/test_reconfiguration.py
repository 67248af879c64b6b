"""Which changes of members are asked for, refused at once, waited for; by etcd's rules, in its words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import virtual_time
from small_cluster import member, membership

from pyetcd.cluster.members import Member
from pyetcd.member.config import ServerConfig
from pyetcd.member.reconfigure import HEALTH_SECONDS, Reconfiguration
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError
from pyetcd.raft import AnyConfChange, ConfChange, ConfChangeType, ProposalDropped

T = TypeVar("T")

URL = "http://new:2380"
LEARNER = member(9, learner=True)


class Progress:
    def __init__(self, match: int) -> None:
        self.match = match


class FakeNode:
    id = 1

    def __init__(self) -> None:
        self.matches: dict[int, int] = {}  # a leader's

    def progress(self) -> dict[int, Progress]:
        return {id: Progress(match) for id, match in self.matches.items()}


class World:
    """Member 1 of some. All are connected for long, but those in `lost` and `fresh`. What is proposed is
    applied at once unless `applies` is false; while `dropping`, raft takes nothing."""

    def __init__(self, *members: Member, strict: bool = True) -> None:
        self.cluster = membership(*members)
        self.node = FakeNode()
        self.lost: set[int] = set()
        self.fresh: set[int] = set()
        self.proposed: list[ConfChange] = []
        self.applies = True
        self.dropping = False
        self.refusal: EtcdError | None = None
        self.behind: Exception | None = None
        self._ids = 100
        config = replace(ServerConfig(), strict_reconfig_check=strict)
        self.timeout_seconds = config.request_timeout_seconds
        self.changing = Reconfiguration(
            config,
            self.cluster,
            self.node,  # type: ignore[arg-type]
            self,
            lambda: 1000.0 + asyncio.get_running_loop().time(),
            self._next_id,
            self._propose,
            self._when_applied,
            lambda since: errors.TIMEOUT_LEADER_FAIL(),
        )

    def active_since(self, id: int) -> float | None:
        if id in self.lost or id not in self.cluster.members:
            return None
        return 1000.0 - HEALTH_SECONDS + (1.0 if id in self.fresh else -1.0)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _propose(self, change: AnyConfChange) -> None:
        if self.dropping:
            raise ProposalDropped
        assert isinstance(change, ConfChange)
        self.proposed.append(change)
        if self.applies:
            asyncio.get_running_loop().call_soon(self.changing.applied, change.id, self.refusal)

    async def _when_applied(self) -> None:
        if self.behind is not None:
            raise self.behind


def play(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return virtual_time.run(scenario())


def outcome(work: Callable[[], Coroutine[Any, Any, object]]) -> str:
    """Empty, or the error's text."""
    try:
        play(work)
    except EtcdError as error:
        return error.message
    return ""


def trio(**flags: bool) -> World:
    return World(member(1), member(2), member(3), **flags)


# Additions

UNHEALTHY = errors.UNHEALTHY.message
NOT_STARTED = errors.MEMBER_NOT_ENOUGH_STARTED.message


def add(world: World, *, learner: bool = False) -> str:
    return outcome(lambda: world.changing.add([URL], learner, 1_700_000_000))


def test_a_voter_is_added_to_a_healthy_cluster() -> None:
    world = trio()
    assert add(world) == ""
    assert [change.type for change in world.proposed] == [ConfChangeType.ConfChangeAddNode]
    assert add(world, learner=True) == ""
    assert world.proposed[1].type == ConfChangeType.ConfChangeAddLearnerNode


def test_a_cluster_of_one_grows_and_not_again_before_the_second_has_started() -> None:
    assert add(World(member(1))) == ""
    two = World(member(1), member(2, started=False))
    two.lost.add(2)
    assert add(two) == NOT_STARTED
    assert two.proposed == []


def test_an_addition_needs_a_quorum_of_the_larger_cluster_that_is_connected_for_a_while() -> None:
    for lost, fresh in ((2, 3), (3, 2)):
        world = trio()
        world.lost.add(lost)
        assert add(world) == UNHEALTHY  # two of three, of four three are wanted
        world.lost.clear()
        world.fresh.add(fresh)
        assert add(world) == UNHEALTHY
        world.fresh.clear()
        assert add(world) == ""


def test_a_learner_too_is_not_added_without_that_quorum_but_who_has_started_does_not_matter() -> None:
    world = World(member(1), member(2, started=False))
    assert add(world, learner=True) == ""
    world.lost.add(2)
    assert add(world, learner=True) == UNHEALTHY


def test_learners_are_no_part_of_a_quorum() -> None:
    world = World(member(1), LEARNER)
    world.lost.add(LEARNER.id)
    assert add(world) == ""


def test_an_addition_without_a_url_to_dial_is_refused() -> None:
    for urls in ([], ["nowhere"], [URL, "http://"], ["http://a:1/path"]):
        world = trio(strict=False)
        assert outcome(lambda w=world, u=urls: w.changing.add(u, False, 1)) == errors.MEMBER_BAD_URLS.message  # type: ignore[misc]
        assert world.proposed == []


def test_without_strict_checks_anything_may_be_added() -> None:
    world = World(member(1), member(2, started=False), strict=False)
    world.lost.add(2)
    assert add(world) == ""


# Removals


def remove(world: World, id: int) -> str:
    return outcome(lambda: world.changing.remove(id))


def test_any_member_of_a_healthy_cluster_may_be_removed_itself_too() -> None:
    for id in (1, 2, 3):
        assert remove(trio(), id) == ""


def test_a_removal_leaves_a_quorum_that_has_started() -> None:
    world = World(member(1), member(2, started=False), member(3))
    assert remove(world, 3) == NOT_STARTED
    assert remove(world, 2) == ""


def test_a_member_that_is_down_may_be_removed_and_one_that_is_needed_may_not() -> None:
    world = trio()
    world.lost.add(3)
    assert remove(world, 2) == UNHEALTHY
    assert remove(world, 1) == UNHEALTHY
    assert remove(world, 3) == ""


def test_a_member_that_has_just_come_back_does_not_count_yet() -> None:
    world = trio()
    world.fresh.add(3)
    assert remove(world, 2) == UNHEALTHY


def test_a_learner_may_always_be_removed() -> None:
    world = World(member(1), member(2, started=False), LEARNER)
    assert remove(world, LEARNER.id) == ""


def test_who_is_no_member_is_found_out_when_the_change_is_applied() -> None:
    world = trio()
    world.refusal = errors.MEMBER_NOT_FOUND()
    assert remove(world, 77) == errors.MEMBER_NOT_FOUND.message
    assert len(world.proposed) == 1


def test_without_strict_checks_anybody_may_be_removed() -> None:
    world = World(member(1), member(2, started=False), member(3, started=False), strict=False)
    world.lost |= {2, 3}
    assert remove(world, 1) == ""


# Updates


def test_an_update_to_urls_that_cannot_be_dialled_is_refused() -> None:
    """Real etcd logs it, and ends wherever it is applied."""
    for strict in (True, False):
        for urls in ([], ["nowhere"], ["http://a:1", "garbage"]):
            world = trio(strict=strict)
            told = outcome(lambda w=world, u=urls: w.changing.update(2, u))  # type: ignore[misc]
            assert told == errors.MEMBER_BAD_URLS.message
            assert world.proposed == []


def test_an_update_is_not_checked_otherwise() -> None:
    world = trio()
    world.lost |= {2, 3}
    assert outcome(lambda: world.changing.update(2, [URL])) == ""


# Promotions


def promote(world: World, id: int = LEARNER.id) -> str:
    return outcome(lambda: world.changing.promote_here(id))


def led(*members: Member, strict: bool = True) -> World:
    world = World(*members, strict=strict)
    world.node.matches = dict.fromkeys(world.cluster.members, 1000)
    return world


def test_a_learner_in_step_is_promoted() -> None:
    world = led(member(1), LEARNER)
    world.node.matches[LEARNER.id] = 900
    assert promote(world) == ""
    assert world.changing.promotions == 1


@pytest.mark.parametrize("strict", [True, False])
def test_a_learner_that_is_behind_is_not(strict: bool) -> None:
    world = led(member(1), LEARNER, strict=strict)
    world.node.matches[LEARNER.id] = 899
    assert promote(world) == errors.LEARNER_NOT_READY.message
    world.node.matches[LEARNER.id] = 0
    assert promote(world) == errors.LEARNER_NOT_READY.message
    assert world.proposed == []
    assert world.changing.failed_promotions == {errors.LEARNER_NOT_READY.message: 2}


def test_only_the_leader_can_tell() -> None:
    world = World(member(1), LEARNER)
    assert promote(world) == errors.NOT_LEADER.message
    world.node.matches = {LEARNER.id: 1000}  # it leads, and has just been removed
    assert promote(world) == errors.NOT_LEADER.message
    assert world.changing.failed_promotions == {}


def test_a_leader_whose_log_is_not_applied_cannot_tell_either() -> None:
    world = led(member(1), LEARNER)
    world.behind = errors.TIMEOUT_WAIT_APPLIED_INDEX()
    assert promote(world) == errors.TIMEOUT_WAIT_APPLIED_INDEX.message
    assert world.proposed == []


def test_who_is_unknown_to_the_leader_is_not_promoted() -> None:
    assert promote(led(member(1), LEARNER), 77) == errors.MEMBER_NOT_FOUND.message


def test_a_promotion_too_leaves_a_quorum_that_has_started() -> None:
    members = (member(1), member(2, started=False), member(3, started=False), LEARNER)
    assert promote(led(*members)) == NOT_STARTED
    assert promote(led(*members, strict=False)) == ""


# Through the log


def test_a_change_waits_for_a_leader() -> None:
    world = trio()
    world.dropping = True

    async def scenario() -> float:
        loop = asyncio.get_running_loop()

        def elect() -> None:
            world.dropping = False

        loop.call_later(2.0, elect)
        await world.changing.remove(2)
        return loop.time()

    assert 2.0 <= play(scenario) < 2.5
    assert len(world.proposed) == 1


@pytest.mark.parametrize("dropping", [True, False])
def test_a_change_that_is_not_applied_ends_in_time_and_a_late_one_is_nobodys(dropping: bool) -> None:
    world = trio()
    world.applies, world.dropping = False, dropping

    async def scenario() -> float:
        with pytest.raises(errors.TIMEOUT_LEADER_FAIL):
            await world.changing.remove(2)
        for change in world.proposed:
            world.changing.applied(change.id, None)
        return asyncio.get_running_loop().time()

    assert play(scenario) == pytest.approx(world.timeout_seconds)


def test_changes_that_are_applied_in_another_order_are_told_to_their_own() -> None:
    world = trio()
    world.applies = False

    async def scenario() -> None:
        first = asyncio.create_task(world.changing.remove(2))
        second = asyncio.create_task(world.changing.update(3, [URL]))
        await asyncio.sleep(0.1)
        world.changing.applied(world.proposed[1].id, errors.PEER_URL_EXISTS())
        world.changing.applied(world.proposed[1].id, None)
        with pytest.raises(errors.PEER_URL_EXISTS):
            await second
        assert not first.done()
        world.changing.applied(world.proposed[0].id, None)
        assert [each.id for each in await first] == [1, 2, 3]

    play(scenario)


@pytest.mark.parametrize("dropping", [True, False])
def test_a_stop_tells_who_waits(dropping: bool) -> None:
    world = trio()
    world.applies, world.dropping = False, dropping

    async def scenario() -> None:
        waits = asyncio.create_task(world.changing.remove(2))
        await asyncio.sleep(0.1)
        world.changing.stop()
        with pytest.raises(errors.STOPPED):
            await waits
        assert asyncio.get_running_loop().time() < 0.5

    play(scenario)
