"""Loop lag: measured against the loop's own clock."""

import asyncio
from collections.abc import Callable

import pytest

from pyetcd.member.loop_lag import INTERVAL_SECONDS, LoopLag
from pyetcd.metrics import Registry


class Clock:
    """A loop of which only time and one timer are looked at."""

    def __init__(self) -> None:
        self.now = 5.0
        self.timer: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "Clock":
        self.timer = (when, callback)
        return self

    def cancel(self) -> None:
        self.timer = None


def test_what_a_timer_is_overdue_is_observed(capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    histogram = Registry().histogram("lag", "Lag.", (0.01, 1))
    lag = LoopLag(clock, histogram)  # type: ignore[arg-type]
    lag.start()
    for late in (0.001, 0.5):
        assert clock.timer is not None
        when, callback = clock.timer
        clock.now = when + late
        callback()
    assert histogram.counts == [1, 1, 0]
    assert lag.worst_seconds == pytest.approx(0.5)
    assert capfd.readouterr().err.count("the event loop was held up") == 1
    lag.stop()
    assert clock.timer is None


def test_it_runs_on_a_real_loop() -> None:
    histogram = Registry().histogram("lag", "Lag.", (10,))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        lag = LoopLag(loop, histogram)
        lag.start()
        seen = loop.create_future()
        loop.call_later(INTERVAL_SECONDS * 1.5, seen.set_result, None)
        await seen
        lag.stop()

    asyncio.run(run())
    assert sum(histogram.counts) == 1
