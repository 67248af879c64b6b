"""How late the event loop is: a timer ten times a second, and the time it is overdue.

Whatever holds the loop shows here, whoever it was: `pyetcd_loop_lag_seconds` is the first metric to look at
when requests are slow and the disk is not. A delay of more than `WARN_SECONDS` is logged, since heartbeats
wait with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pyetcd import logs
from pyetcd.metrics import Histogram

INTERVAL_SECONDS: Final = 0.1
WARN_SECONDS: Final = 0.1

_log = logs.get("member")


class LoopLag:
    """Observes into `histogram` from `start` to `stop`. `worst_seconds` is the longest delay so far.

    `also` is called each time, for what has to be done now and then.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        histogram: Histogram,
        also: Callable[[], object] = lambda: None,
    ) -> None:
        self._loop = loop
        self._histogram = histogram
        self._also = also
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.worst_seconds = 0.0

    def start(self) -> None:
        assert self._timer is None, "started twice"
        self._schedule()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._due = self._loop.time() + INTERVAL_SECONDS
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        late = max(0.0, self._loop.time() - self._due)
        self._histogram.observe(late)
        self.worst_seconds = max(self.worst_seconds, late)
        if late > WARN_SECONDS:
            _log.warn("the event loop was held up", {"took": logs.duration(late)})
        self._schedule()
        self._also()
