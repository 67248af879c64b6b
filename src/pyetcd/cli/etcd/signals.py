"""A proxy's end: it has nothing to save, so a signal ends it at once, and by that signal, as etcd's."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine

from pyetcd import logs


async def until_stopped(work: Coroutine[None, None, None]) -> None:
    """Run until the work is over or SIGINT or SIGTERM comes; log lines that were written get out first."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _end, number)
    await work


def _end(number: int) -> None:
    logs.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
