"""What a member may say of itself: how far it has applied, whether it is current, whether it still leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import virtual_time
from whole_member import UnsyncedFiles, configured, put, serving

from pyetcd.member.member import Member
from pyetcd.proto import errors
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest
from pyetcd.raft import ReadState

MANY = 3000  # keys that a condition looks at in several turns
TXN = InternalRaftRequest.TXN_FIELD_NUMBER
TURNS = 20  # of the loop, more than anything here takes


class Gate:
    """Jobs of a member get no slice while it is shut."""

    def __init__(self, member: Member) -> None:
        self.is_shut = True
        self._jobs = member.jobs
        self._slice = member.jobs._slice
        member.jobs._slice = self._pass  # type: ignore[method-assign]

    def _pass(self, running: Any) -> None:
        if self.is_shut:
            self._jobs._running.append(running)
        else:
            self._slice(running)


@asynccontextmanager
async def applying(directory: Path) -> AsyncIterator[tuple[Member, Gate]]:
    """A member that is in the middle of an entry, a put of `slow` under a condition on many keys, as long as
    the gate is shut."""
    async with serving(configured(directory), UnsyncedFiles()) as member:
        for number in range(MANY):
            await put(member, b"many %d" % number, b"")
        condition = Compare(key=b"many", range_end=b"n", target=Compare.VERSION, version=1)
        then = RequestOp(request_put=PutRequest(key=b"slow", value=b"done"))
        request = TxnRequest(compare=[condition], success=[then])
        gate = Gate(member)
        written = asyncio.create_task(member.request(TXN, request.SerializeToString(), request))
        while not len(member.jobs):
            await asyncio.sleep(0)
        yield member, gate
        gate.is_shut = False
        await written


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def value(member: Member, key: bytes) -> bytes:
    work = member.store.range(RangeRequest(key=key))
    kvs = RangeResponse.FromString(b"".join(work.body)).kvs  # type: ignore[union-attr]
    return kvs[0].value if kvs else b""


def test_a_read_whose_index_is_being_applied_waits_for_its_end(tmp_path: Path) -> None:
    """Another member may have applied it, and acknowledged it to whoever reads here now."""

    async def scenario() -> None:
        async with applying(tmp_path) as (member, gate):
            member.reads.set_current(False)  # as with other voters; raft answers by itself
            seen: list[bytes] = []
            member.when_current(lambda: seen.append(value(member, b"slow")), lambda error: seen.append(b"!"))
            member.end_of_turn()
            await turns()
            assert member.applied_index == member.committed_index - 1
            assert seen == []
            gate.is_shut = False
            await asyncio.wait_for(member.current(), 5)
            assert seen == [b"done"]

    asyncio.run(scenario())


def test_a_voter_that_is_left_alone_is_current_once_all_that_was_committed_is_applied(tmp_path: Path) -> None:
    """The one that has left may have acknowledged what is not applied here yet."""

    async def scenario() -> None:
        async with applying(tmp_path) as (member, gate):
            member.reads.set_current(False)  # it had others
            member._refresh_reads()  # they have left
            assert not member.reads_are_current
            gate.is_shut = False
            while member.applied_index < member.committed_index:
                await asyncio.sleep(0)
            assert member.reads_are_current
            member._refresh_reads()
            assert member.reads_are_current

    asyncio.run(scenario())


def test_who_gives_up_waiting_for_the_log_harms_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        async with applying(tmp_path) as (member, gate):
            gone = asyncio.create_task(member._until_applied())
            stays = asyncio.create_task(member._until_applied())
            await turns()
            gone.cancel()
            await turns()
            gate.is_shut = False
            await asyncio.wait_for(stays, 5)
        assert failures == []

    asyncio.run(scenario())


def test_who_gives_up_waiting_for_the_log_harms_nobody_when_time_is_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        async with applying(tmp_path) as (member, _):
            gone = asyncio.create_task(member._until_applied())
            stays = asyncio.create_task(member._until_applied())
            await turns()
            gone.cancel()
            with pytest.raises(errors.TIMEOUT_WAIT_APPLIED_INDEX):
                await stays
        assert failures == []

    asyncio.run(scenario())


class Suspended:
    """A member as a leader among others, which has to ask them what it may say. What it asks is kept."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.questions: list[bytes] = []
        member.reads.set_current(False)
        member.reads._ask = self.questions.append

    def pause(self) -> None:
        """SIGSTOP, a second, SIGCONT."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        loop._jumping.now += 1.0

    async def tick(self) -> None:
        await asyncio.sleep(1.5 * self.member.config.heartbeat_interval_ms / 1000)

    def answer(self) -> None:
        self.member.reads.answered(ReadState(self.member.committed_index, self.questions[-1]))


def test_a_leader_that_was_suspended_is_certain_again_when_a_quorum_has_spoken(tmp_path: Path) -> None:
    """Not as soon as its own clock ticks."""

    async def scenario() -> None:
        async with serving(configured(tmp_path), UnsyncedFiles()) as member:
            suspended = Suspended(member)
            await suspended.tick()
            assert member.is_certain
            suspended.pause()
            assert not member.is_certain
            await suspended.tick()
            assert not member.is_certain
            for _ in range(3):
                await suspended.tick()
            assert not member.is_certain
            suspended.answer()
            assert member.is_certain

    virtual_time.run(scenario())


def test_a_leader_that_was_suspended_asks_until_it_is_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(configured(tmp_path), UnsyncedFiles()) as member:
            suspended = Suspended(member)
            suspended.pause()
            await suspended.tick()
            member.reads.leader_changed()
            assert not member.is_certain
            await suspended.tick()
            assert len(suspended.questions) == 2
            suspended.answer()
            assert member.is_certain

    virtual_time.run(scenario())


def test_who_waits_for_a_primary_asks_elsewhere_when_another_member_leads(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with serving(configured(tmp_path), UnsyncedFiles()) as member:
            told: list[str] = []
            member.leases.lessor.demote()  # it leads, and has not committed in its term yet
            member.leases.when_primary(lambda: told.append("again"), lambda error: told.append("failed"))
            member.leases.demote()
            assert told == ["again"]
            member.leases.promote(member.term)

    asyncio.run(scenario())


def test_a_member_that_stops_tells_who_waits_for_its_leases(tmp_path: Path) -> None:
    async def scenario() -> None:
        told: list[str] = []
        async with applying(tmp_path) as (member, gate):
            member.leases.when_applied(lambda: told.append("run"), lambda error: told.append(str(error)))
            member.leases.lessor.demote()
            member.leases.when_primary(lambda: told.append("run"), lambda error: told.append(str(error)))
            member.leases.cease()
            gate.is_shut = False
        assert told == [str(errors.STOPPED())] * 2

    asyncio.run(scenario())
