"""Where log lines go: descriptors, files with rotation, the systemd journal.

Rules that hold here:

* `write` never waits for a reader. A line that finds its pipe or terminal full is kept, at most 1 MiB of
  them, and goes out when the loop (see `attach`) or the next line finds room; what does not fit is dropped
  and counted.
* A descriptor that has failed (closed pipe, full disk) loses lines, never the process.
* Log files are created with permission 0600: they name keys and clients.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

PENDING_BYTES_MAX: Final = 1 << 20
# POSIX: a pipe that polls writable takes this much without blocking.
_CHUNK: Final = 4096


class WriterLoop(Protocol):
    """What is needed of an event loop."""

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> object: ...
    def remove_writer(self, fd: int, /) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> object: ...


class Sink(Protocol):
    """One output. `level` is a number of `logs` (0 debug … 4 fatal), `line` ends with a newline."""

    def write(self, level: int, line: bytes) -> None: ...
    def attach(self, loop: WriterLoop | None) -> None: ...
    def flush(self, timeout_seconds: float) -> None: ...
    def close(self) -> None: ...


class Writer:
    """A descriptor that may be a pipe or terminal with a slow reader: stdout, stderr, a FIFO. Not owned, not
    closed.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.dropped = 0
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._loop: WriterLoop | None = None
        self._watching = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, level: int, line: bytes) -> None:
        if self._pending:
            self._drain()
        if self._pending:
            self._keep(line)
            return
        rest = self._push(line)
        if rest:
            self._keep(rest)

    def attach(self, loop: WriterLoop | None) -> None:
        self._unwatch()
        self._loop = loop
        if self._pending:
            self._watch()

    def flush(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while self._pending:
            wait = deadline - time.monotonic()
            if wait <= 0:
                return
            self._poll.poll(wait * 1000)
            self._drain()

    def close(self) -> None:
        self.flush(0.1)
        self._unwatch()

    def _keep(self, data: bytes) -> None:
        if self._pending_bytes + len(data) > PENDING_BYTES_MAX:
            self.dropped += 1
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._watch()

    def _drain(self) -> None:
        while self._pending:
            data = self._pending.popleft()
            self._pending_bytes -= len(data)
            rest = self._push(data)
            if rest:
                self._pending.appendleft(rest)
                self._pending_bytes += len(rest)
                return
        self._unwatch()

    def _push(self, data: bytes) -> bytes:
        """Write what can be written without waiting; returns the rest. A broken descriptor swallows
        everything.
        """
        while data:
            events = self._poll.poll(0)
            if not events:
                return data
            if not events[0][1] & select.POLLOUT:
                return b""
            try:
                data = data[os.write(self.fd, data[:_CHUNK]) :]
            except BlockingIOError:
                return data
            except OSError:
                return b""
        return b""

    def _watch(self) -> None:
        if self._loop is not None and not self._watching:
            self._watching = True
            self._loop.add_writer(self.fd, self._drain)

    def _unwatch(self) -> None:
        if self._loop is not None and self._watching:
            self._watching = False
            self._loop.remove_writer(self.fd)
