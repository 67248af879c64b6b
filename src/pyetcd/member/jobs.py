"""Long work on the loop, a slice at a time.

A `Job` (see `mvcc`) is a generator that yields at least every 2 ms or so. The runner gives each running job
one slice a turn of the
loop, so that requests are answered in between however many jobs there are. Rules that hold here:

* At most `MAX_RUNNING` jobs run at once, the others wait in order; a turn spends at most `TURN_SECONDS` on
  jobs.
* A job ends exactly once: its result or its error goes to the callbacks it was started with.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
Job = Generator[None, None, Result]

MAX_RUNNING = 32
TURN_SECONDS = 0.003


class _Running(Generic[Result]):
    __slots__ = ("cancelled", "done", "failed", "job")

    def __init__(
        self, job: Job[Result], done: Callable[[Result], None], failed: Callable[[Exception], None]
    ) -> None:
        self.job = job
        self.done = done
        self.failed = failed
        self.cancelled = False


class Handle:
    """Lets its owner cancel a job whose result nobody wants any more."""

    __slots__ = ("_running",)

    def __init__(self, running: _Running[Any]) -> None:
        self._running = running

    def cancel(self) -> None:
        self._running.cancelled = True


class Jobs:
    """The runner; one for each member."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: deque[_Running[Any]] = deque()
        self._waiting: deque[_Running[Any]] = deque()
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    def start(
        self, job: Job[Result], done: Callable[[Result], None], failed: Callable[[Exception], None]
    ) -> Handle:
        """Run `job` in slices; then call `done(result)` or `failed(error)`, unless it was cancelled."""
        running = _Running(job, done, failed)
        (self._running if len(self._running) < MAX_RUNNING else self._waiting).append(running)
        self._schedule()
        return Handle(running)

    async def run(self, job: Job[Result]) -> Result:
        """Run `job` and await its result."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def done(result: Result) -> None:
            if not future.done():
                future.set_result(result)

        def failed(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        handle = self.start(job, done, failed)
        try:
            return await future
        except asyncio.CancelledError:
            handle.cancel()
            raise

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        until = self._loop.time() + TURN_SECONDS
        for _ in range(len(self._running)):
            self._slice(self._running.popleft())
            if self._loop.time() >= until:
                break
        while self._waiting and len(self._running) < MAX_RUNNING:
            self._running.append(self._waiting.popleft())
        if self._running:
            self._schedule()

    def _slice(self, running: _Running[Any]) -> None:
        if running.cancelled:
            running.job.close()
            return
        try:
            next(running.job)
        except StopIteration as stop:
            running.done(stop.value)
        except Exception as error:
            running.failed(error)
        else:
            self._running.append(running)

    def abort(self, error: Exception) -> None:
        """End all jobs with `error`."""
        aborted = (*self._running, *self._waiting)
        self.close()
        for running in aborted:
            if not running.cancelled:
                running.failed(error)

    def close(self) -> None:
        """Drop all jobs; nobody is told."""
        for running in (*self._running, *self._waiting):
            running.job.close()
        self._running.clear()
        self._waiting.clear()
