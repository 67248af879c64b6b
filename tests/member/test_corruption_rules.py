"""Who is blamed for which hash: the rules by which members compare what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from small_cluster import member, membership

from pyetcd.cluster.urls import Url
from pyetcd.member.corruption import Corruption, Inconsistent
from pyetcd.mvcc.hash import KeyValueHash
from pyetcd.peer.calls import CallFailed, PeerHash
from pyetcd.proto import errors
from pyetcd.storage.bolt import DatabaseError

Told = PeerHash | Exception
REVISION = 10


def told(hash: int, compacted: int = 3, revision: int = REVISION) -> PeerHash:
    return PeerHash(0, revision, hash, compacted, revision)


class Compared:
    """Member 1 of as many as `others` has, and one more. Its hash is 7, compacted at 3."""

    def __init__(self, *others: Told) -> None:
        self.others = dict(enumerate(others, 2))
        self.cluster = membership(*(member(id) for id in range(1, len(others) + 2)))
        self.own = [KeyValueHash(7, 3, REVISION)]  # one after another; the last stays
        self.failures: list[Exception] = []  # of its own hash, one after another
        self.compactions = [KeyValueHash(5, 1, 4), KeyValueHash(6, 4, 8)]
        self.of_compactions: Mapping[int, Sequence[Told]] = {}
        self.alarms: list[int] = []
        self.asked: list[int] = []
        self.asked_of_own: list[int] = []
        self.corruption = Corruption(
            self.cluster,
            self,  # type: ignore[arg-type]
            self.hash_kv_of_own,
            lambda: REVISION,
            lambda: self.compactions,
            lambda: asyncio.sleep(0),
            lambda: True,
            self.alarms.append,
            1.0,
        )

    async def hash_kv_of_own(self, revision: int) -> KeyValueHash:
        self.asked_of_own.append(revision)
        if self.failures:
            raise self.failures.pop(0)
        return self.own.pop(0) if len(self.own) > 1 else self.own[0]

    async def hash_kv(self, url: Url, cluster_id: int, revision: int, timeout_seconds: float) -> PeerHash:
        id = int(url.text.removeprefix("http://m").partition(":")[0])
        self.asked.append(revision)
        answers = self.of_compactions.get(revision)
        answer = self.others[id] if answers is None else answers[id - 2]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def initially(self) -> None:
        asyncio.run(self.corruption.check_initially(1.0))

    def now(self) -> list[int]:
        asyncio.run(self.corruption.check())
        return self.alarms

    def compactions_now(self) -> list[int]:
        asyncio.run(self.corruption.check_compactions())
        return self.alarms


@pytest.mark.parametrize(
    "others",
    [
        [],
        [told(7), told(7)],
        [told(8, compacted=4), told(7)],  # has compacted further
        [errors.FUTURE_REVISION(), errors.COMPACTED()],
        [CallFailed("refused"), CallFailed("refused")],
    ],
)
def test_a_start_goes_on(others: list[Told]) -> None:
    Compared(*others).initially()


def test_a_start_ends_when_one_of_the_others_holds_something_else() -> None:
    with pytest.raises(Inconsistent, match=r"^1 found data inconsistency with peers$"):
        Compared(told(7), told(8)).initially()


def test_at_a_start_all_are_compared_at_the_same_revision_whatever_is_applied_meanwhile() -> None:
    compared = Compared(told(7), told(7))
    compared.initially()
    assert compared.asked + compared.asked_of_own == [REVISION] * 3


def test_a_start_goes_on_when_what_would_be_compared_is_compacted_meanwhile() -> None:
    compared = Compared(told(8), told(8))
    compared.failures.append(errors.COMPACTED())
    compared.initially()


@pytest.mark.parametrize(
    ("others", "blamed"),
    [
        ([told(7), told(7)], []),
        ([told(7), told(8)], [3]),
        ([told(8), told(8)], [2]),  # one alarm at most
        ([told(8, compacted=2), told(7)], []),  # it compacts later: nothing to compare
        ([told(7, compacted=4), told(7)], [2]),
        ([told(7, revision=REVISION + 1), told(7)], [2]),
        ([CallFailed("refused"), errors.COMPACTED()], []),
    ],
)
def test_the_leader_blames_whoever_cannot_be_right(others: list[Told], blamed: list[int]) -> None:
    assert Compared(*others).now() == blamed


def test_the_leader_blames_itself_for_a_hash_that_changes() -> None:
    compared = Compared(told(7), told(8))
    compared.own = [KeyValueHash(7, 3, REVISION), KeyValueHash(9, 3, REVISION)]
    assert compared.now() == [1]
    compared = Compared(told(7), told(7))
    compared.own = [KeyValueHash(7, 3, REVISION), KeyValueHash(9, 3, REVISION + 1)]
    assert compared.now() == []


@pytest.mark.parametrize(
    ("answers", "blamed"),
    [
        ([told(6, 4), told(6, 4)], []),
        ([told(6, 4), told(9, 4)], [3]),
        ([told(9, 4), told(9, 4)], [1]),  # the leader is the minority
        ([told(8, 4), told(9, 4)], [0]),  # nobody knows who is right
        ([told(6, 4), told(6, 4), told(8, 4), told(9, 4)], [4, 5]),
        ([told(9, 4)], [0]),
    ],
)
def test_the_minority_is_blamed_for_a_compaction(answers: list[Told], blamed: list[int]) -> None:
    compared = Compared(*answers)
    compared.of_compactions = {8: answers}
    assert compared.compactions_now() == blamed
    assert set(compared.asked) == {8}, "older ones need not be looked at"


def test_an_older_compaction_is_looked_at_when_not_all_tell_of_the_latest() -> None:
    compared = Compared(told(7), told(7))
    compared.of_compactions = {8: [told(6, 4), CallFailed("refused")], 4: [told(5, 1), told(9, 1)]}
    assert compared.compactions_now() == [3]
    compared.of_compactions = {8: [told(6, 4), told(9, 2)], 4: [told(5, 1), told(5, 1)]}
    compared.alarms.clear()
    assert compared.compactions_now() == []
    assert compared.asked == [8, 8, 4, 4] * 2


def test_what_all_have_agreed_on_is_not_asked_again() -> None:
    compared = Compared(told(6, 4), told(6, 4))
    compared.of_compactions = {8: [told(6, 4), told(6, 4)]}
    for _ in range(3):
        assert compared.compactions_now() == []
    assert compared.asked == [8, 8]


def test_a_start_ends_when_the_members_own_data_cannot_be_read() -> None:
    compared = Compared(told(7), told(7))
    compared.failures = [DatabaseError("db", "page 3: invalid")]
    with pytest.raises(Inconsistent, match=r"^1 failed to fetch hash \(page 3: invalid\)$"):
        compared.initially()


def test_comparisons_go_on_after_one_that_failed() -> None:
    async def until_blamed(compared: Compared) -> None:
        task = asyncio.create_task(compared.corruption.check_for_ever(0.001))
        async with asyncio.timeout(10):
            while not compared.alarms:
                await asyncio.sleep(0)
        task.cancel()

    compared = Compared(told(7), told(8))
    compared.failures = [DatabaseError("db", "page 3: invalid"), errors.STOPPED(), OSError("read")]
    asyncio.run(until_blamed(compared))
    assert (set(compared.alarms), compared.failures) == ({3}, [])
