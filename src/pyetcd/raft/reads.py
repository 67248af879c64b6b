"""Linearizable reads that wait for a quorum to confirm that we still lead (Raft thesis, section 6.4).

Reads queue up in the order they came. Every round of heartbeats carries the queue's length so far, counted
from the start of the term, as its context: unique to the round, since the count only grows, and whatever
contexts the readers chose. A follower echoes it, which confirms every read queued before that heartbeat was
sent. So one round confirms many reads, and what a quorum has echoed is found as a committed index is.

etcd-raft sends heartbeats for every read. With `Config.gather_reads` a leader has one round under way at a
time, and the reads that come meanwhile share the next; should it be lost, the next tick's heartbeat is one.

Bounded: beyond `MAX_WAITING` reads the newest are refused, and their readers ask again, as they do when a
message is lost.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from pyetcd.raft.quorum import Joint
from pyetcd.raft.types import Message

MAX_WAITING: Final = 65_536


class ReadQueue:
    """Reads of one term. `_confirmed` is how many have left the front, `_asked` the last round sent out."""

    __slots__ = ("_acknowledged", "_asked", "_confirmed", "_waiting")

    def __init__(self) -> None:
        self._acknowledged: dict[int, int] = {}
        self._waiting: deque[tuple[Message, int]] = deque()
        self._confirmed = 0
        self._asked = 0

    def add(self, request: Message, commit: int) -> bool:
        """Queue a read that may see everything up to `commit`. False if there is no room."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append((request, commit))
        return True

    def round(self) -> int:
        """Where the queue ends: what a follower confirms that has echoed it."""
        return self._confirmed + len(self._waiting)

    def context(self) -> bytes:
        """The round as it travels in the heartbeats that are about to be sent; nothing if nobody waits."""
        if not self._waiting:
            return b""
        self._asked = self.round()
        return self._asked.to_bytes(8, "little")

    def wants_round(self) -> bool:
        """Somebody waits, and no round is under way."""
        return bool(self._waiting) and self._asked <= self._confirmed

    def acknowledge(self, id: int, round: int) -> None:
        self._acknowledged[id] = max(self._acknowledged.get(id, 0), round)

    def confirmed(self, voters: Joint) -> list[tuple[Message, int]]:
        """Reads, each with its index, that a quorum has confirmed since the last time."""
        reached = voters.committed(self._acknowledged)
        ready = [self._waiting.popleft() for _ in range(min(reached - self._confirmed, len(self._waiting)))]
        self._confirmed += len(ready)
        return ready


def round_of(context: bytes) -> int:
    """The round in a heartbeat's echo. Raises ValueError for what is no such context."""
    if len(context) != 8:
        raise ValueError(f"a read context has 8 bytes, not {len(context)}")
    return int.from_bytes(context, "little")
