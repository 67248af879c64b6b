"""Who runs a member: a process that is there for nothing else, or a thread of somebody's program.

`run` does the same for both. What differs is whose signals end the member, who is told that it serves, whose
log lines wait for the loop, and who learns why there is none.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import Protocol

from pyetcd import logs
from pyetcd.cli.etcd.descriptors import raise_limit
from pyetcd.cli.etcd.systemd import notify_ready, passed_sockets

End = Callable[[int], None]

COLLECTED_AFTER = 20_000  # objects; after Python's 700, a put in a cluster costs two hundredths more CPU


class Host(Protocol):
    """All of these are called in the loop's thread."""

    def begins(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop runs; nothing has been touched yet."""

    def descriptors(self) -> int:
        """How many the process may have open."""

    def passed_sockets(self) -> list[socket.socket]:
        """Sockets that listen already."""

    def started(self, loop: asyncio.AbstractEventLoop, end: End) -> None:
        """From now on `end` stops the member in good order, with this exit code or minus this signal."""

    def loaded(self) -> None:
        """All that stays is there; clients are about to be served."""

    def ready(self) -> None:
        """Clients are served."""

    def failed(self, error: BaseException) -> None:
        """Why the member did not start, or cannot go on. It has been logged."""


class OwnProcess:
    """The `etcd` executable."""

    def begins(self, loop: asyncio.AbstractEventLoop) -> None:
        logs.attach(loop)

    def descriptors(self) -> int:
        return raise_limit()

    def passed_sockets(self) -> list[socket.socket]:
        return passed_sockets(os.environ)

    def started(self, loop: asyncio.AbstractEventLoop, end: End) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end, -number)

    def loaded(self) -> None:
        gc.collect()
        gc.freeze()  # the collector need not walk it again
        gc.set_threshold(COLLECTED_AFTER)

    def ready(self) -> None:
        notify_ready(os.environ)

    def failed(self, error: BaseException) -> None:
        pass  # the log line is all there is to say, and the exit code
