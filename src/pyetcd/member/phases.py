"""Where the time of a write went: waiting to be proposed, agreement, the disk, or being applied.

Consensus stamps batches, never requests: when proposals went to raft, when entries were handed to the log,
when they were durable here, when they were known to be committed. From these moments the phases of a single
entry are worked out when somebody asks, which is when it was slow. What a stamp costs is one look at the
clock for each batch. The stamps of the last BATCHES_MAX batches are kept; of earlier ones nothing is known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pyetcd.raft import Entry

BATCHES_MAX: Final = 4096


class Batch:
    """Entries that were handed to the log together. `durable`: 0.0 until they are."""

    __slots__ = ("appended", "durable", "first", "last")

    def __init__(self, first: int, last: int, appended: float) -> None:
        self.first = first
        self.last = last
        self.appended = appended
        self.durable = 0.0


class Spent(NamedTuple):
    """Seconds of each phase, one after the other.

    `queue`: until proposed; `raft`: until the other members had it, and on the way from and to a leader;
    `fsync`: in this member's log; `apply`: from being known to be committed on, turns of others included.
    """

    queue: float
    raft: float
    fsync: float
    apply: float

    @property
    def longest(self) -> str:
        """The name of the phase that took most of the time."""
        return max(zip(self, self._fields, strict=True))[1]


class Phases:
    """The stamps of one member's log."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._proposed: deque[float] = deque(maxlen=BATCHES_MAX)
        self._batches: deque[Batch] = deque(maxlen=BATCHES_MAX)
        self._writing: deque[Batch] = deque()  # bounded by what is being appended
        self._committed: deque[tuple[int, float]] = deque(maxlen=BATCHES_MAX)

    def proposed(self) -> None:
        """All that waited has been proposed."""
        self._proposed.append(self._clock())

    def appended(self, entries: Sequence[Entry]) -> None:
        """These have been handed to the log; there is at least one."""
        batch = Batch(entries[0].index, entries[-1].index, self._clock())
        self._batches.append(batch)
        self._writing.append(batch)

    def durable(self) -> None:
        """So are, in their order, the ones handed over next."""
        self._writing.popleft().durable = self._clock()

    def committed(self, last: int) -> None:
        """All up to this index is known to be committed, and durable here."""
        self._committed.append((last, self._clock()))

    def of(self, index: int, since: float, ended: float) -> Spent | None:
        """The phases of an entry that was applied at `ended`. `since`: when its request came, 0.0 for one
        that nobody here has asked for. None when too much has happened since then.
        """
        batch = self._batch(index)
        if batch is None or not batch.durable:
            return None
        at = bisect_left(self._committed, (index, 0.0))
        if at == len(self._committed):
            return None
        committed = min(self._committed[at][1], ended)
        queue = 0.0
        if since:
            sent = bisect_left(self._proposed, since)
            if sent < len(self._proposed):
                queue = min(self._proposed[sent], batch.appended) - since
        else:
            since = batch.appended
        fsync = batch.durable - batch.appended
        apply = ended - committed
        raft = ended - since - queue - fsync - apply
        return Spent(max(queue, 0.0), max(raft, 0.0), fsync, apply)

    def _batch(self, index: int) -> Batch | None:
        """The last one with this index: an entry may have been replaced by another leader's."""
        for batch in reversed(self._batches):
            if batch.first <= index <= batch.last:
                return batch
        return None
