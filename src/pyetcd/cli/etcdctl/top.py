"""`top`: what a cluster is doing, on a screen that is drawn anew every few seconds, or printed once."""

from __future__ import annotations

import os
import sys
import time

from pyetcd.cli.etcdctl.client import Deadline
from pyetcd.cli.etcdctl.interrupts import Canceled, Interrupts
from pyetcd.cli.etcdctl.maintenance import asked_endpoints, settings_of
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.top_samples import Asker, ChangeWatch, Worker
from pyetcd.cli.etcdctl.top_view import View
from pyetcd.cli.exits import BAD_ARGS, BAD_FEATURE, ERROR, Exit
from pyetcd.cli.screen import NoScreen, Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation
    from pyetcd.cli.etcdctl.settings import Settings

NS = 1e-9
INTERVAL_MIN = 0.1
FIRST_SECONDS = 0.25  # between two looks, until all have answered
HOTTEST_MAX = 100
ONCE_COLUMNS, ONCE_ROWS, ONCE_HOTTEST = 200, 1000, 10
LEAVE_SECONDS = 1.0
QUIT = ("q", "Q")


def top(call: Invocation) -> None:
    interval, depth = call.number("interval") * NS, call.number("depth")
    if call.args:
        raise Exit(BAD_ARGS, "top command accepts no arguments")
    if interval < INTERVAL_MIN:
        raise Exit(BAD_ARGS, "--interval must not be shorter than 100ms")
    if depth < 1:
        raise Exit(BAD_ARGS, "--depth must not be less than 1")
    settings = settings_of(call)
    if settings.format != "simple":
        raise Exit(BAD_FEATURE, f"{settings.format} not supported as output format")
    look = _Look(settings, asked_endpoints(call, settings), interval, depth if call.on("prefixes") else 0)
    if call.on("once"):
        code = _once(look, interval + settings.command_timeout)
    else:
        code = _live(look, interval)
    look.end(code)


class _Look:
    """All that is asked, from `start` on."""

    def __init__(self, settings: Settings, endpoints: list[str], interval: float, depth: int) -> None:
        """`depth` 0: the changes of keys are not watched."""
        self._settings = settings
        self._endpoints = endpoints
        self._interval = interval
        self._depth = depth
        self.askers: list[Asker] = []
        self._changes: ChangeWatch | None = None

    def start(self) -> None:
        self.askers = [Asker(self._settings, endpoint, self._interval) for endpoint in self._endpoints]
        if self._depth:
            self._changes = ChangeWatch(self._settings, self._depth, self._interval)

    def view(self, hottest_max: int) -> View:
        seen = [asker.seen for asker in self.askers]
        clock = time.strftime("%H:%M:%S")
        if self._changes is None:
            return View(seen, None, clock)
        if self._changes.failure:
            return View(seen, None, clock, note=self._changes.failure)
        return View(seen, self._changes.prefixes.hottest(hottest_max, time.monotonic()), clock)

    def end(self, code: int) -> None:
        """End the command. A thread that waits for an answer is not waited for, and must not meet the end of
        the interpreter."""
        workers: list[Worker] = [*self.askers, *([] if self._changes is None else [self._changes])]
        for worker in workers:
            worker.stop()
        deadline = Deadline(LEAVE_SECONDS)
        for worker in workers:
            worker.thread.join(deadline.left())
        if any(worker.thread.is_alive() for worker in workers):
            sys.stdout.flush()
            os._exit(code)
        if code:
            raise Exit(code)


def _once(look: _Look, seconds: float) -> int:
    """Print one view, once rates are known or the time is over. The exit code: whether anybody answers."""
    look.start()
    deadline = Deadline(seconds)
    for asker in look.askers:
        asker.twice.wait(deadline.left())
    for _, text in look.view(ONCE_HOTTEST).lines(ONCE_COLUMNS, ONCE_ROWS):
        emit(f"{text.rstrip()}\n")
    return 0 if any(asker.seen.status for asker in look.askers) else ERROR


def _live(look: _Look, interval: float) -> int:
    """Draw until somebody quits. The exit code."""
    interrupts = Interrupts()
    try:
        with Screen() as screen, interrupts.cancelable():
            look.start()
            while True:
                columns, rows = screen.size()
                screen.draw(look.view(HOTTEST_MAX).lines(columns, rows))
                waiting = any(asker.seen.last is None for asker in look.askers)
                if screen.key(min(interval, FIRST_SECONDS) if waiting else interval) in QUIT:
                    break
    except NoScreen as why:
        raise Exit(BAD_FEATURE, f"{why}; `--once` prints one view") from None
    except Canceled:
        pass
    return 0
