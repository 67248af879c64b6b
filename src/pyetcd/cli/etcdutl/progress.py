"""A word now and then while something takes long: a bar on a terminal, elsewhere a log line every ten
seconds, which short runs do not reach.
"""

from __future__ import annotations

import time
from typing import Final

from pyetcd import logs
from pyetcd.cli.progress_bar import ProgressBar

EVERY_SECONDS: Final = 10.0

_log = logs.get("etcdutl")


class Progress:
    """Of something that has `total` bytes. It is over when they are reached, or closed before."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._bar = ProgressBar(total, in_bytes=True)
        self._next = time.monotonic() + EVERY_SECONDS

    def reached(self, done: int) -> None:
        self._bar.advance(done - self._done)
        self._done = done
        if done >= self._total:
            self.close()
            return
        now = time.monotonic()
        if not self._bar.is_shown and now >= self._next:
            self._next = now + EVERY_SECONDS
            percent = 100 * done // max(self._total, 1)
            _log.info(self._what, {"done": done, "of": self._total, "percent": percent})

    def close(self) -> None:
        """Leave the line, before anybody else writes."""
        self._bar.close()
