"""Majorities, single and joint: what is committed, and who has won.

A `Majority` is a set of voters of which more than half decide. A `Joint` is two of them during a membership
change: both must agree (Raft thesis, section 4.3). The second half is empty outside of changes, and the
empty majority is neutral: it commits everything and wins every vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

EVERYTHING: Final = 2**64 - 1


class Vote(Enum):
    PENDING = "VotePending"
    LOST = "VoteLost"
    WON = "VoteWon"


class Majority(frozenset[int]):
    """Voters of which a majority decides."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"({' '.join(f'{id:x}' for id in sorted(self))})"

    def committed(self, acknowledged: Mapping[int, int]) -> int:
        """The highest index acknowledged by a majority. Voters that are not in the mapping have
        acknowledged 0.
        """
        if len(self) < 2:
            for only in self:
                return acknowledged.get(only, 0)
            return EVERYTHING
        indexes = sorted([acknowledged.get(id, 0) for id in self])
        return indexes[(len(indexes) - 1) // 2]

    def vote(self, votes: Mapping[int, bool]) -> Vote:
        """The outcome of the votes cast so far; voters that are missing may still go either way."""
        needed = len(self) // 2 + 1
        if not self:
            return Vote.WON
        yes = sum(1 for id in self if votes.get(id))
        missing = sum(1 for id in self if id not in votes)
        if yes >= needed:
            return Vote.WON
        return Vote.PENDING if yes + missing >= needed else Vote.LOST


class Joint:
    """An incoming majority and, during a change, the outgoing one. Decisions need both."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self, incoming: Iterable[int] = (), outgoing: Iterable[int] = ()) -> None:
        self.incoming = Majority(incoming)
        self.outgoing = Majority(outgoing)

    def __str__(self) -> str:
        return f"{self.incoming}&&{self.outgoing}" if self.outgoing else str(self.incoming)

    def __contains__(self, id: int) -> bool:
        return id in self.incoming or id in self.outgoing

    def ids(self) -> list[int]:
        """All voters, ascending."""
        return sorted(self.incoming | self.outgoing)

    def is_joint(self) -> bool:
        return bool(self.outgoing)

    def is_singleton(self) -> bool:
        """One voter decides alone."""
        return len(self.incoming) == 1 and not self.outgoing

    def committed(self, acknowledged: Mapping[int, int]) -> int:
        if not self.outgoing:
            return self.incoming.committed(acknowledged)
        return min(self.incoming.committed(acknowledged), self.outgoing.committed(acknowledged))

    def vote(self, votes: Mapping[int, bool]) -> Vote:
        left, right = self.incoming.vote(votes), self.outgoing.vote(votes)
        if left is right:
            return left
        return Vote.LOST if Vote.LOST in (left, right) else Vote.PENDING
