"""The loop that members run on keeps what asyncio promises of time."""

from __future__ import annotations

import asyncio
import time

from pyetcd.loop import Loop, run


def test_timers_are_never_early() -> None:
    async def early() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        found = []
        for number in range(60):
            time.sleep(number * 0.00001)  # begin anywhere within a millisecond
            fired = loop.create_future()
            due = loop.time() + 0.0014
            loop.call_at(due, fired.set_result, None)
            await fired
            found.append(loop.time() - due)
        return [late for late in found if late < 0]

    assert run(early()) == []


def test_time_goes_on_within_a_turn_and_is_finer_than_milliseconds() -> None:
    async def seen() -> list[float]:
        loop, times = asyncio.get_running_loop(), []
        for _ in range(20):
            time.sleep(0.0001)
            times.append(loop.time())
        return times

    times = run(seen())
    assert times == sorted(set(times))
