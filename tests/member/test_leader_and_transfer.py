"""Asking whoever leads, and having another one lead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import virtual_time
from small_cluster import member, membership

from pyetcd.cluster.members import Member
from pyetcd.cluster.urls import Url
from pyetcd.member.elsewhere import Elsewhere
from pyetcd.member.leader import ASKED_AT_ONCE, Leader, WeLead
from pyetcd.member.transfer import TOOK_TOO_LONG, Transfer
from pyetcd.peer.calls import CallFailed
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError

T = TypeVar("T")
TIMEOUT_SECONDS = 7.0
URLS = ("http://m2:1", "http://m2:2")


class FakeNode:
    def __init__(self) -> None:
        self.lead = 2
        self.transferee = 0
        self.asked_for: list[int] = []

    @property
    def is_leader(self) -> bool:
        return self.lead == 1

    def transfer_leader(self, to: int) -> None:
        self.asked_for.append(to)
        self.transferee = to


def play(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return virtual_time.run(scenario())


# Asking


class Asking:
    """Member 1. Of the leader's URLs those in `answers` answer, with what stands there."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.cluster = membership(member(1), member(2, *URLS), member(3))
        self.leader = Leader(self.cluster, self.node, TIMEOUT_SECONDS)  # type: ignore[arg-type]
        self.answers: dict[str, object] = {}
        self.asked: list[str] = []

    async def question(self, url: Url) -> object:
        self.asked.append(url.text)
        answer = self.answers.get(url.text, CallFailed("connection refused"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leads(self, id: int) -> None:
        self.node.lead = id
        self.leader.changed()


def now() -> float:
    return asyncio.get_running_loop().time()


def test_the_leader_is_asked_at_one_url_after_another() -> None:
    async def scenario() -> None:
        asking = Asking()
        asking.answers[URLS[1]] = "yes"
        assert await asking.leader.ask(asking.question) == "yes"
        assert asking.asked == list(URLS)

    play(scenario)


def test_it_is_asked_until_it_answers() -> None:
    async def scenario() -> None:
        asking = Asking()
        asyncio.get_running_loop().call_later(3.0, asking.answers.update, {URLS[0]: "yes"})
        assert await asking.leader.ask(asking.question) == "yes"
        assert 2.9 < now() < 3.1

    play(scenario)


def test_what_it_says_no_to_is_not_asked_again() -> None:
    async def scenario() -> None:
        asking = Asking()
        asking.answers[URLS[0]] = errors.LEASE_NOT_FOUND()
        with pytest.raises(errors.LEASE_NOT_FOUND):
            await asking.leader.ask(asking.question)
        assert asking.asked == [URLS[0]]

    play(scenario)


def test_without_a_leader_one_is_waited_for() -> None:
    async def scenario() -> None:
        asking = Asking()
        asking.node.lead = 0
        asking.answers["http://m3:2380"] = "third"
        waiting = [asyncio.create_task(asking.leader.ask(asking.question)) for _ in range(3)]
        await asyncio.sleep(1.0)
        asking.leads(0)
        await asyncio.sleep(1.0)
        assert asking.asked == []
        asking.leads(3)
        assert await asyncio.gather(*waiting) == ["third"] * 3

    play(scenario)


def test_a_leader_that_is_no_member_here_yet_is_waited_for() -> None:
    async def scenario() -> None:
        asking = Asking()
        asking.node.lead = 4
        waiting = asyncio.create_task(asking.leader.ask(asking.question))
        await asyncio.sleep(1.0)
        asking.cluster.members[4] = member(4)
        asking.answers["http://m4:2380"] = "fourth"
        asking.leader.changed()
        assert await waiting == "fourth"

    play(scenario)


def test_an_answer_of_the_next_leader_will_do() -> None:
    async def scenario() -> None:
        asking = Asking()
        asking.answers["http://m3:2380"] = "third"
        asyncio.get_running_loop().call_later(2.0, asking.leads, 3)
        assert await asking.leader.ask(asking.question) == "third"

    play(scenario)


def test_who_has_become_the_leader_itself_is_told_so() -> None:
    async def scenario() -> None:
        asking = Asking()
        asyncio.get_running_loop().call_later(2.0, asking.leads, 1)
        with pytest.raises(WeLead):
            await asking.leader.ask(asking.question)

    play(scenario)


@pytest.mark.parametrize(("lead", "error"), [(0, errors.NO_LEADER), (2, errors.TIMEOUT)])
def test_nobody_waits_longer_than_a_request_may_take(lead: int, error: type[EtcdError]) -> None:
    async def scenario() -> None:
        asking = Asking()
        asking.node.lead = lead
        with pytest.raises(error):
            await asking.leader.ask(asking.question)
        assert now() == pytest.approx(TIMEOUT_SECONDS)

    play(scenario)


def test_a_leader_that_does_not_answer_is_asked_little_at_once_and_all_end_in_time() -> None:
    async def scenario() -> None:
        asking = Asking()
        at_once = most = 0

        async def hang(url: Url) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            try:
                await asyncio.sleep(2.0)
            finally:
                at_once -= 1
            raise CallFailed("timeout")

        asks = [asking.leader.ask(hang) for _ in range(4 * ASKED_AT_ONCE)]
        told = await asyncio.gather(*asks, return_exceptions=True)
        assert {type(each) for each in told} == {errors.TIMEOUT}
        assert most == ASKED_AT_ONCE
        assert at_once == 0
        assert now() == pytest.approx(TIMEOUT_SECONDS)

    play(scenario)


def test_a_leader_that_nobody_can_dial_is_none() -> None:
    async def scenario() -> None:
        asking = Asking()
        for urls in ((), ("nowhere",)):
            asking.cluster.members[2] = Member(2, urls, False, "m2")
            with pytest.raises(errors.NO_LEADER):
                await asking.leader.ask(asking.question)
        assert now() == 0

    play(scenario)


class FakeCalls:
    def __init__(self, answer: object) -> None:
        self._answer = answer

    async def renew(self, url: Url, lease_id: int, seconds: float) -> object:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class FakeLeases:
    def __init__(self) -> None:
        self.lessor = self
        self.is_primary = False

    def when_primary(self, run: Callable[[], object], fail: Callable[[Exception], object]) -> None:
        run()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (12, "12"),
        (errors.LEASE_NOT_FOUND(), "LEASE_NOT_FOUND"),
        (WeLead(), "again"),
        (RuntimeError("nobody foresaw it"), "RuntimeError"),
    ],
)
def test_who_asks_elsewhere_is_told_exactly_once(answer: object, told: str) -> None:
    async def scenario() -> None:
        asking = Asking()
        heard: list[str] = []
        tasks: list[asyncio.Task[None]] = []
        elsewhere = Elsewhere(
            FakeLeases(),  # type: ignore[arg-type]
            asking.node,  # type: ignore[arg-type]
            asking.leader,
            FakeCalls(answer),  # type: ignore[arg-type]
            lambda work: tasks.append(asyncio.get_running_loop().create_task(work)),
        )
        elsewhere.renew(
            7,
            lambda: heard.append("again"),
            lambda ttl: heard.append(str(ttl)),
            lambda error: heard.append(type(error).__name__),
        )
        await asyncio.gather(*tasks)
        assert heard == [told]

    play(scenario)


# Moving


class Moving:
    """Member 1, which leads two voters and a learner."""

    def __init__(self, *members: Member) -> None:
        self.node = FakeNode()
        self.node.lead = 1
        members = members or (member(1), member(2), member(3), member(9, learner=True))
        self.active: dict[int, float] = {2: 20.0, 3: 10.0}
        self.flushed = 0
        self.transfer = Transfer(membership(*members), self, self, TIMEOUT_SECONDS)  # type: ignore[arg-type]

    def active_since(self, id: int) -> float | None:
        return self.active.get(id)

    def flush(self) -> None:
        self.flushed += 1

    def leads(self, id: int) -> None:
        self.node.lead, self.node.transferee = id, 0
        self.transfer.look()


def test_a_move_ends_when_the_other_one_leads() -> None:
    async def scenario() -> None:
        moving = Moving()
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, moving.leads, 0)
        loop.call_later(0.2, moving.leads, 2)
        await moving.transfer.move(2)
        assert now() == pytest.approx(0.2)
        assert moving.node.asked_for == [2]
        assert moving.flushed == 1

    play(scenario)


def test_only_the_leader_moves_leadership_and_only_to_a_voter() -> None:
    async def scenario() -> None:
        moving = Moving()
        for target in (9, 77, 0):
            with pytest.raises(errors.BAD_LEADER_TRANSFEREE):
                await moving.transfer.move(target)
        moving.node.lead = 3
        with pytest.raises(errors.NOT_LEADER):
            await moving.transfer.move(2)
        assert moving.node.asked_for == []

    play(scenario)


def test_a_move_to_the_leader_itself_is_done_already() -> None:
    async def scenario() -> None:
        await Moving().transfer.move(1)
        assert now() == 0

    play(scenario)


def test_a_move_that_ends_with_somebody_else_or_nobody_takes_too_long() -> None:
    async def scenario() -> None:
        for lead in (0, 3):
            moving, began = Moving(), now()
            asyncio.get_running_loop().call_later(0.1, moving.leads, lead)
            with pytest.raises(EtcdError, match=TOOK_TOO_LONG):
                await moving.transfer.move(2)
            assert now() - began == pytest.approx(TIMEOUT_SECONDS)

    play(scenario)


def test_before_a_stop_who_has_been_connected_the_longest_is_to_lead() -> None:
    async def scenario() -> None:
        moving = Moving()
        asyncio.get_running_loop().call_later(0.1, moving.leads, 3)
        await moving.transfer.before_stop()
        assert moving.node.asked_for == [3]

    play(scenario)


def test_a_stop_waits_for_nobody_who_cannot_lead() -> None:
    """Without a leader, as a follower, alone, and when all others are gone."""

    async def scenario() -> None:
        none, follower, alone, last = Moving(), Moving(), Moving(member(1), member(9, learner=True)), Moving()
        none.node.lead, follower.node.lead = 0, 2
        last.active.clear()
        for moving in (none, follower, alone, last):
            await moving.transfer.before_stop()
            assert moving.node.asked_for == []
        assert now() == 0

    play(scenario)


def test_a_successor_that_goes_too_is_not_waited_for() -> None:
    async def scenario() -> None:
        moving = Moving()
        loop = asyncio.get_running_loop()
        loop.call_later(0.5, moving.active.clear)
        loop.call_later(0.6, moving.transfer.look)
        await moving.transfer.before_stop()
        assert now() == pytest.approx(0.6)

    play(scenario)
