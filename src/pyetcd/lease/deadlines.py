"""Leases by the time at which something is due, and the timer that wakes for the first of them.

Times are rounded up to ticks of an eighth of a second, and leases that are due at one tick lie in one dict,
so adding and taking away cost a dict access each and nothing dead is kept; only the ticks themselves are in
a heap. A million leases that were granted together are one tick.

A tick is a power of two of a second, so that `tick_of(time)` and back are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Protocol

TICK_SECONDS = 0.125
SWEEP_MIN = 1024


class Timer(Protocol):
    def cancel(self) -> object: ...


class Loop(Protocol):
    """The part of the event loop that is used in this room; tests hand in virtual time."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer: ...
    def call_soon(self, callback: Callable[[], object], /) -> object: ...


def tick_of(when: float) -> int:
    """The first tick that is not before `when`."""
    return math.ceil(when / TICK_SECONDS)


class Deadlines:
    """Lease IDs by tick. Who adds one remembers the tick, to take it away again."""

    def __init__(self) -> None:
        self._due: dict[int, dict[int, None]] = {}
        self._ticks: list[int] = []  # a heap of all ticks in `_due`, and of some that are empty by now

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    @property
    def first(self) -> float | None:
        """The earliest time at which anything is due."""
        ticks = self._ticks
        while ticks and ticks[0] not in self._due:
            heappop(ticks)
        return ticks[0] * TICK_SECONDS if ticks else None

    def add(self, when: float, lease_id: int) -> int:
        """Let a lease be due at the first tick from `when` on, which is returned."""
        tick = tick_of(when)
        leases = self._due.get(tick)
        if leases is None:
            leases = self._due[tick] = {}
            heappush(self._ticks, tick)
            if len(self._ticks) > SWEEP_MIN + 2 * len(self._due):
                self._ticks = list(self._due)
                heapify(self._ticks)
        leases[lease_id] = None
        return tick

    def discard(self, tick: int, lease_id: int) -> None:
        """The lease is not due at `tick` any more; none there is no error."""
        leases = self._due.get(tick)
        if leases is not None and lease_id in leases:
            del leases[lease_id]
            if not leases:
                del self._due[tick]

    def take_due(self, now: float) -> int | None:
        """Take away one lease whose time has come; None: there is none."""
        first = self.first
        if first is None or first > now:
            return None
        tick = self._ticks[0]
        leases = self._due[tick]
        lease_id, _ = leases.popitem()
        if not leases:
            del self._due[tick]
        return lease_id

    def clear(self) -> None:
        self._due.clear()
        self._ticks.clear()


class WakeUp:
    """One timer for many times: it runs `run` at the earliest of those asked for."""

    def __init__(self, loop: Loop, run: Callable[[], object]) -> None:
        self._loop = loop
        self._run = run
        self._timer: Timer | None = None
        self._when = math.inf
        self._stopped = False

    def at(self, when: float | None) -> None:
        """Run at `when`, or earlier if that was asked for before; None asks for nothing."""
        if when is not None and when < self._when and not self._stopped:
            if self._timer is not None:
                self._timer.cancel()
            self._when = when
            self._timer = self._loop.call_at(when, self._fire)

    def stop(self) -> None:
        """Never run again."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._when = math.inf
        self._run()
