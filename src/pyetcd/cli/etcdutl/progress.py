"""A word now and then while something takes long: one log line every ten seconds, none in short runs."""

from __future__ import annotations

import time
from typing import Final

from pyetcd import logs

EVERY_SECONDS: Final = 10.0

_log = logs.get("etcdutl")


class Progress:
    """Of something that has `total` bytes or other units."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._next = time.monotonic() + EVERY_SECONDS

    def reached(self, done: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY_SECONDS
            percent = 100 * done // max(self._total, 1)
            _log.info(self._what, {"done": done, "of": self._total, "percent": percent})
