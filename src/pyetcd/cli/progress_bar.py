"""A progress bar for people who wait: on a terminal only, so that logs and pipes hold nothing of it.

It is drawn at most five times a second, on stderr, over itself. A terminal that cannot move its cursor (no
`TERM`, or `dumb`) is treated as none.
"""

from __future__ import annotations

import os
import sys
import time

from pyetcd.cli import gotext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

EVERY_SECONDS = 0.2
BAR_WIDTH_MAX = 40
COLUMNS = 80  # where the terminal does not say


class ProgressBar:
    """Of `total` units: bytes, or a plain count. May be advanced from one thread at a time."""

    def __init__(self, total: int, *, in_bytes: bool = False, out: TextIO | None = None) -> None:
        self._out = sys.stderr if out is None else out
        self._total = total
        self._in_bytes = in_bytes
        self._shown = self._out.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._started = time.monotonic()
        self._next = self._started
        self._done = 0

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to draw on, and the bar is not closed."""
        return self._shown

    def advance(self, units: int) -> None:
        self._done += units
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_SECONDS
            self._draw("")

    def expect(self, total: int) -> None:
        """The total, where it was not known at first."""
        self._total = total

    def close(self) -> None:
        """Draw it for the last time, and go to the next line."""
        if self._shown:
            self._shown = False
            self._draw("\n")

    def _draw(self, end: str) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        share = min(1.0, self._done / self._total) if self._total > 0 else 0.0
        counts = f"{self._amount(self._done)} / {self._amount(self._total)} "
        rate = f" {share * 100:6.2f}% {self._amount(int(self._done / seconds))}/s"
        try:
            columns = os.get_terminal_size(self._out.fileno()).columns or COLUMNS
        except OSError:
            columns = COLUMNS
        width = min(BAR_WIDTH_MAX, columns - 1 - len(counts) - len(rate) - 2)
        bar = ""
        if width >= 3:
            full = int(share * width)
            head = ">" if 0 < full < width else ""
            bar = "[" + ("=" * (full - len(head)) + head).ljust(width, "-") + "]"
        line = f"{counts}{bar}{rate}"[: max(columns - 1, 1)]
        self._out.write(f"\r{line}\x1b[K{end}")
        self._out.flush()

    def _amount(self, units: int) -> str:
        return gotext.bytes_size(units) if self._in_bytes else str(units)
