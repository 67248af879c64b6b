"""When the next batch of proposals may go out.

Not before the last is durable here, so what comes meanwhile shares the next fsync. A leader also waits until
the last is committed, where that follows soon: then all members have fewer and larger batches. On a network
where others take longer to answer than PATIENCE_SECONDS, that would only add to what a write waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PATIENCE_SECONDS: Final = 0.005  # between being durable here and being committed


class Pacing:
    """Of one member's proposals."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sequence = 0  # of the append that makes the last batch durable
        self._awaited = 0  # the index whose commit is waited for, or timed; 0 for none
        self._awaited_sequence = 0
        self._durable_at = 0.0
        self._is_far = False  # what is durable here is long in being committed

    def sent(self, sequence: int, last: int) -> None:
        """A batch has gone out. `last`: index of its last entry; 0 where its commit is not waited for."""
        self._sequence = sequence
        if not self._awaited:
            self._awaited, self._awaited_sequence, self._durable_at = last, sequence, 0.0

    def durable(self, sequence: int) -> None:
        if self._awaited and not self._durable_at and sequence >= self._awaited_sequence:
            self._durable_at = self._clock()

    def committed(self, last: int) -> None:
        """All up to the index `last` is."""
        if self._awaited and last >= self._awaited:
            self._is_far = bool(self._durable_at) and self._clock() - self._durable_at > PATIENCE_SECONDS
            self._awaited = 0

    def leadership_changed(self) -> None:
        """What was awaited may never be committed."""
        self._awaited = 0

    def is_open(self, oldest: int) -> bool:
        """`oldest`: the sequence number of what has been under way to the disk for longest, 0 for nothing."""
        return (not oldest or oldest > self._sequence) and (self._is_far or not self._awaited)
