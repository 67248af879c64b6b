"""The cluster's endpoints as this proxy knows them: which can be reached, and whose turn it is.

Each has one connection. Whether it answers is asked before calls are given to it, and again after a failure,
with pauses that grow: calls go round those that answered, and none waits for one that does not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from pyetcd._native import Calls, Channel
from pyetcd.cluster.endpoints import Target
from pyetcd.proto.errors import UNAVAILABLE

HEALTH: Final = "/grpc.health.v1.Health/Check"  # any answer will do, also that there is no such method
NOT_CONNECTED: Final = "connection error: "  # how the wire begins when a call has never left
PROBE_SECONDS: Final = 20.0
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 20.0
PAUSE_GROWS: Final = 1.6

Dial = Callable[[Target], Channel]


class Endpoint:
    """One of them. `failure`: why it did not answer last time; empty while it is not known."""

    __slots__ = ("channel", "failure", "is_ready", "name", "pause", "problem", "timer")

    def __init__(self, name: str, channel: Channel | None, problem: str) -> None:
        self.name = name
        self.channel = channel
        self.problem = problem
        self.is_ready = False
        self.failure = ""
        self.pause = FIRST_PAUSE_SECONDS
        self.timer: asyncio.TimerHandle | None = None


class Endpoints:
    """All of them. `changed` is called when one has become ready, or has failed."""

    def __init__(
        self, calls: Calls, dial: Dial, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]
    ) -> None:
        self._calls = calls
        self._dial = dial
        self._loop = loop
        self._changed = changed
        self._all: list[Endpoint] = []
        self._probes: dict[int, Endpoint] = {}
        self._turn = 0

    @property
    def names(self) -> list[str]:
        return [endpoint.name for endpoint in self._all]

    def set(self, names: Sequence[str]) -> None:
        """Know these from now on. Calls under way at others go on."""
        known = {endpoint.name: endpoint for endpoint in self._all}
        wanted = dict.fromkeys(names)
        self._all = [known.pop(name) if name in known else self._new(name) for name in wanted]
        for endpoint in known.values():
            if endpoint.timer is not None:
                endpoint.timer.cancel()
        for endpoint in self._all:
            if not endpoint.is_ready and not endpoint.failure and endpoint not in self._probes.values():
                self._probe(endpoint)

    def _new(self, name: str) -> Endpoint:
        target = Target(name)
        if target.problem:
            return Endpoint(
                name, None, f'{NOT_CONNECTED}desc = "transport: Error while dialing: {target.problem}"'
            )
        return Endpoint(name, self._dial(target), "")

    def renew(self) -> None:
        """Certificates have changed: what is dialled from now on is as `dial` makes it now."""
        for endpoint in self._all:
            if endpoint.channel is None:
                continue
            endpoint.channel.adopt(self._dial(Target(endpoint.name)))
            if endpoint.timer is not None:
                endpoint.timer.cancel()
                self._probe(endpoint)

    def pick(self) -> Endpoint | None:
        """The next that is ready; None: none is."""
        for _ in self._all:
            self._turn = (self._turn + 1) % len(self._all)
            if self._all[self._turn].is_ready:
                return self._all[self._turn]
        return None

    @property
    def failure(self) -> str:
        """Why none can be reached; empty while that is not sure."""
        if not self._all:
            return "no endpoints available"
        return self._all[0].failure if all(endpoint.failure for endpoint in self._all) else ""

    def lost(self, endpoint: Endpoint) -> None:
        """Its connection has failed a call: ask whether it still answers."""
        if endpoint.is_ready and endpoint in self._all:
            endpoint.is_ready = False
            self._probe(endpoint)

    def told(self, number: int, code: int, text: str) -> bool:
        """How a call has ended. False: it was no probe."""
        endpoint = self._probes.pop(number, None)
        if endpoint is None:
            return False
        if endpoint not in self._all:
            return True
        if code == UNAVAILABLE and text.startswith(NOT_CONNECTED):
            self._failed(endpoint, text)
        else:
            endpoint.is_ready, endpoint.failure, endpoint.pause = True, "", FIRST_PAUSE_SECONDS
        self._changed()
        return True

    def _failed(self, endpoint: Endpoint, text: str) -> None:
        endpoint.is_ready, endpoint.failure = False, text
        pause = endpoint.pause * random.uniform(0.8, 1.2)
        endpoint.pause = min(endpoint.pause * PAUSE_GROWS, LONGEST_PAUSE_SECONDS)
        endpoint.timer = self._loop.call_later(pause, self._probe, endpoint)

    def _probe(self, endpoint: Endpoint) -> None:
        endpoint.timer = None
        if endpoint.channel is None:
            endpoint.failure = endpoint.problem
            self._loop.call_soon(self._changed)
            return
        number = self._calls.unary(endpoint.channel, HEALTH, b"", [], PROBE_SECONDS)
        self._probes[number] = endpoint
