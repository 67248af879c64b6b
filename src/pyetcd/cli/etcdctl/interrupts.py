"""SIGINT and SIGTERM as a wish to leave in good order, for commands that have something to give back.

The first signal is remembered. It cuts short only what runs inside `cancelable`; what must be finished, as
giving back a lock, is outside. Further signals change nothing.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Canceled(Exception):
    """A signal came. `str()` is what Go says of a context that ended so."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class Interrupts:
    """Takes the signals over, for the rest of the run. For the main thread."""

    def __init__(self, numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self.came = False
        self._cancels = False
        for number in numbers:
            signal.signal(number, self._on_signal)

    @contextmanager
    def cancelable(self) -> Iterator[None]:
        """What runs inside ends with Canceled when a signal comes, or has come."""
        self._cancels = True
        try:
            if self.came:
                raise Canceled
            yield
        finally:
            self._cancels = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first, self.came = not self.came, True
        if first and self._cancels:
            raise Canceled
