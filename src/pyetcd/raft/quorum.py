"""Majorities, single and joint: what is committed, and who has won.

A `Majority` is a set of voters of which more than half decide. A `Joint` is two of them during a membership
change: both must agree (Raft thesis, section 4.3). The second half is empty outside of changes, and the
empty majority is neutral: it commits everything and wins every vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final, TypeAlias

EVERYTHING: Final = 2**64 - 1


Majority: TypeAlias = frozenset[int]


class Vote(Enum):
    PENDING = "VotePending"
    LOST = "VoteLost"
    WON = "VoteWon"


def described(voters: Iterable[int]) -> str:
    return f"({' '.join(f'{id:x}' for id in sorted(voters))})"


def committed(voters: Majority, acknowledged: Mapping[int, int]) -> int:
    """The highest index acknowledged by a majority. Voters that are not in the mapping have
    acknowledged 0.
    """
    if len(voters) < 2:
        for only in voters:
            return acknowledged.get(only, 0)
        return EVERYTHING
    indexes = sorted([acknowledged.get(id, 0) for id in voters])
    return indexes[(len(indexes) - 1) // 2]


def outcome(voters: Majority, votes: Mapping[int, bool]) -> Vote:
    """Of the votes cast so far; voters that are missing may still go either way."""
    needed = len(voters) // 2 + 1
    if not voters:
        return Vote.WON
    yes = sum(1 for id in voters if votes.get(id))
    missing = sum(1 for id in voters if id not in votes)
    if yes >= needed:
        return Vote.WON
    return Vote.PENDING if yes + missing >= needed else Vote.LOST


class Joint:
    """An incoming majority and, during a change, the outgoing one. Decisions need both."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self, incoming: Iterable[int] = (), outgoing: Iterable[int] = ()) -> None:
        self.incoming: Majority = frozenset(incoming)
        self.outgoing: Majority = frozenset(outgoing)

    def __str__(self) -> str:
        incoming = described(self.incoming)
        return f"{incoming}&&{described(self.outgoing)}" if self.outgoing else incoming

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
            return committed(self.incoming, acknowledged)
        return min(committed(self.incoming, acknowledged), committed(self.outgoing, acknowledged))

    def vote(self, votes: Mapping[int, bool]) -> Vote:
        left, right = outcome(self.incoming, votes), outcome(self.outgoing, votes)
        if left is right:
            return left
        return Vote.LOST if Vote.LOST in (left, right) else Vote.PENDING
