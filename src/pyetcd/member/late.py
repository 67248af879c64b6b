"""Calls that wait until an entry is applied here: their token was made by it, on another member.

A simple token says which entry made it. A member that is behind cannot tell such a token from a wrong one
yet, so it waits; a token that names an entry there never was is wrong once the time is over. Few may wait,
since anybody can make up a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pyetcd._native import Meta
from pyetcd.member.identity import Identity
from pyetcd.proto import errors

WAITING_MAX: Final = 1000

Run = Callable[[], None]
Fail = Callable[[Exception], None]


class LateTokens:
    """`applied_index`: how far entries are applied. `soon`: call it from the loop; `flush`: send out what was
    proposed."""

    def __init__(
        self,
        identity: Identity,
        applied_index: Callable[[], int],
        clock: Callable[[], float],
        timeout_seconds: float,
        soon: Callable[[Run], object],
        flush: Run,
    ) -> None:
        self._identity = identity
        self._applied_index = applied_index
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._soon = soon
        self._flush = flush
        self.waiting: list[tuple[int, float, Run, Fail]] = []

    def hold(self, meta: Meta, run: Run, fail: Fail) -> bool:
        """Whether a call has to wait; then `run` is called once it need not, or `fail`."""
        index = self._identity.awaited_index(meta)
        if index <= self._applied_index() or len(self.waiting) >= WAITING_MAX:
            return False
        self.waiting.append((index, self._clock() + self._timeout_seconds, run, fail))
        return True

    def applied(self) -> None:
        """Entries were applied."""
        index = self._applied_index()
        ready = [held for held in self.waiting if held[0] <= index]
        if ready:
            self.waiting = [held for held in self.waiting if held[0] > index]
            self._soon(lambda: self._go_on([held[2] for held in ready]))

    def _go_on(self, ready: list[Run]) -> None:
        for run in ready:
            run()
        self._flush()

    def expire(self, now: float) -> None:
        late = [held for held in self.waiting if held[1] <= now]
        if late:
            self.waiting = [held for held in self.waiting if held[1] > now]
            for held in late:
                held[3](errors.INVALID_AUTH_TOKEN())

    def stop(self) -> None:
        waiting, self.waiting = self.waiting, []
        for held in waiting:
            held[3](errors.STOPPED())
