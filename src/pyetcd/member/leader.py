"""What only the leader can answer, and does not go through the log: it is asked over HTTP, as etcd does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pyetcd.cluster.membership import Membership
from pyetcd.cluster.urls import Url, UrlError, parse_urls
from pyetcd.peer.calls import CallFailed
from pyetcd.proto import errors
from pyetcd.raft import Node

ASKED_AT_ONCE: Final = 64
RETRY_SECONDS: Final = 0.05

T = TypeVar("T")


class WeLead(Exception):
    """This member has become the leader: the answer is here."""


class Leader:
    """Asks whoever leads. Every method from the loop."""

    def __init__(self, cluster: Membership, node: Node, timeout_seconds: float) -> None:
        self._cluster = cluster
        self._node = node
        self._timeout_seconds = timeout_seconds
        self._changed = asyncio.Event()
        self._room = asyncio.Semaphore(ASKED_AT_ONCE)

    def changed(self) -> None:
        """Another leader is known."""
        self._changed.set()

    async def ask(self, question: Callable[[Url], Awaitable[T]]) -> T:
        """Put the question to the leader, again and again until it answers. WeLead, NO_LEADER or TIMEOUT when
        time is over, or what the question raises beside CallFailed."""
        try:
            async with asyncio.timeout(self._timeout_seconds), self._room:
                while True:
                    for url in await self._urls():
                        try:
                            return await question(url)
                        except CallFailed:
                            continue
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError:
            raise (errors.TIMEOUT if self._node.lead else errors.NO_LEADER) from None

    async def _urls(self) -> list[Url]:
        while (leader := self._cluster.members.get(self._node.lead)) is None:
            self._changed.clear()
            await self._changed.wait()
        if leader.id == self._cluster.local_id:
            raise WeLead
        try:
            urls = list(parse_urls(leader.peer_urls or ()))
        except UrlError:
            raise errors.NO_LEADER from None
        return urls
