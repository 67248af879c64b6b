"""Which endpoint the gateway sends a new connection to.

As etcd's does: among the live endpoints of the best priority, those with a weight by chance in proportion to
it, those without in turn. Endpoints that were given by hand all have neither, so they take turns. An endpoint
that could not be reached counts as dead until somebody has tried it again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pyetcd.cluster.urls import join_host_port

UNWEIGHTED_ONE_IN = 100  # beside endpoints with weights, one without is hardly ever chosen


@dataclass(slots=True)
class Remote:
    """One endpoint."""

    host: str
    port: int
    priority: int = 0
    weight: int = 0
    is_live: bool = True

    @property
    def address(self) -> str:
        return join_host_port(self.host, self.port)


class Remotes:
    """All endpoints, and whose turn it is."""

    def __init__(self, remotes: list[Remote], chance: random.Random) -> None:
        self._remotes = remotes
        self._chance = chance
        self._turn = 0

    def pick(self) -> Remote | None:
        """None: all are dead."""
        live = [remote for remote in self._remotes if remote.is_live]
        if not live:
            return None
        priority = min(remote.priority for remote in live)
        best = [remote for remote in live if remote.priority == priority]
        weighted = [remote for remote in best if remote.weight]
        unweighted = [remote for remote in best if not remote.weight]
        if weighted and (not unweighted or self._chance.randrange(UNWEIGHTED_ONE_IN)):
            return self._chance.choices(weighted, [remote.weight for remote in weighted])[0]
        return self._in_turn(unweighted)

    def dead(self) -> list[Remote]:
        return [remote for remote in self._remotes if not remote.is_live]

    def _in_turn(self, candidates: list[Remote]) -> Remote:
        """The next of all endpoints that is a candidate: who follows a dead one does not take all its turns
        when others are alive."""
        while True:
            remote = self._remotes[self._turn % len(self._remotes)]
            self._turn += 1
            if remote in candidates:
                return remote
