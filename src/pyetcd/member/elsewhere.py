"""Leases on a member that does not lead: the leader is asked how long they live, and to let them live on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

from pyetcd.cluster.urls import Url
from pyetcd.member.leader import Leader, WeLead
from pyetcd.member.leases import Fail, Leases, Run
from pyetcd.peer.calls import Calls
from pyetcd.proto.rpc_pb2 import LeaseTimeToLiveResponse
from pyetcd.raft import Node

ASK_SECONDS = 2.0  # for one answer, before another URL is tried

T = TypeVar("T")


class Elsewhere:
    """Every method from the loop. Each calls exactly one of what it is given: `answered` with what the leader
    says, `again` where this member has become the one to know, or `fail`."""

    def __init__(
        self,
        leases: Leases,
        node: Node,
        leader: Leader,
        calls: Calls,
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        self._leases = leases
        self._node = node
        self._leader = leader
        self._calls = calls
        self._spawn = spawn

    def renew(self, lease_id: int, again: Run, answered: Callable[[int], object], fail: Fail) -> None:
        """`answered` with the time to live in seconds; `fail` with LEASE_NOT_FOUND, too."""
        self._ask(lambda url: self._calls.renew(url, lease_id, ASK_SECONDS), again, answered, fail)

    def time_to_live(
        self,
        lease_id: int,
        keys: bool,
        again: Run,
        answered: Callable[[LeaseTimeToLiveResponse], object],
        fail: Fail,
    ) -> None:
        """The answer has no header."""
        self._ask(
            lambda url: self._calls.time_to_live(url, lease_id, keys, ASK_SECONDS), again, answered, fail
        )

    def _ask(
        self,
        question: Callable[[Url], Awaitable[T]],
        again: Run,
        answered: Callable[[T], object],
        fail: Fail,
    ) -> None:
        if self._node.is_leader or self._leases.lessor.is_primary:
            self._leases.when_primary(again, fail)
        else:
            self._spawn(self._put(question, again, answered, fail))

    async def _put(
        self,
        question: Callable[[Url], Awaitable[T]],
        again: Run,
        answered: Callable[[T], object],
        fail: Fail,
    ) -> None:
        try:
            answer = await self._leader.ask(question)
        except WeLead:
            self._leases.when_primary(again, fail)
        except Exception as error:  # whatever it is, somebody waits for an answer
            fail(error)
        else:
            answered(answer)
