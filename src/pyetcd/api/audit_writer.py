"""The audit log's file: lines gather on the loop and are written by a thread, one batch after the other.

What waits is bounded. Lines that do not fit, or that the disk does not take, are lost for the file, never for
the operator: their number stands in a line of its own as soon as one can be written, and in the member's log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from pyetcd import logs
from pyetcd.logs.files import File

WAITING_BYTES_MAX: Final = 16 << 20
CHUNK_BYTES: Final = 64 << 10  # written at once; a file is rotated between chunks

_log = logs.get("audit")


class AuditWriter:
    """`wall`: the time now, as it stands in lines."""

    def __init__(
        self,
        file: File,
        executor: Executor,
        loop: asyncio.AbstractEventLoop,
        wall: Callable[[], str],
        waiting_bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        self._file = file
        self._executor = executor
        self._loop = loop
        self._wall = wall
        self._waiting_bytes_max = waiting_bytes_max
        self._lines: list[bytes] = []
        self._bytes = 0
        self._writing: asyncio.Future[int] | None = None
        self._lost = 0  # not told in the file yet
        self.lost_total = 0

    def write(self, line: bytes) -> None:
        """One line, without its end."""
        if self._bytes + len(line) > self._waiting_bytes_max:
            self._lose(1)
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self._append(json.dumps({"ts": self._wall(), "lost_lines": lost}).encode())
        self._append(line)
        if self._writing is None:
            self._start()

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)

    def _lose(self, count: int) -> None:
        if not self._lost:
            _log.warn("lines of the audit log are being lost", {"lost-so-far": self.lost_total})
        self._lost += count
        self.lost_total += count

    def _start(self) -> None:
        lines, self._lines = self._lines, []
        size = sum(map(len, lines))  # counts as waiting until it is written
        self._writing = self._loop.run_in_executor(self._executor, self._write, lines)
        self._writing.add_done_callback(lambda done: self._written(done, size))

    def _write(self, lines: list[bytes]) -> int:
        """In the thread; returns how many lines the file did not take."""
        lost = 0
        chunk: list[bytes] = []
        size = 0
        for line in lines:
            chunk.append(line)
            size += len(line) + 1
            if size >= CHUNK_BYTES:
                lost += self._write_chunk(chunk)
                chunk, size = [], 0
        return lost + (self._write_chunk(chunk) if chunk else 0)

    def _write_chunk(self, lines: list[bytes]) -> int:
        return 0 if self._file.write_all(b"\n".join(lines) + b"\n") else len(lines)

    def _written(self, done: asyncio.Future[int], size: int) -> None:
        self._writing = None
        self._bytes -= size
        lost = done.result()
        if lost:
            self._lose(lost)
        if self._lines:
            self._start()

    async def close(self) -> None:
        """Everything that was taken is in the file."""
        while self._writing is not None:
            await asyncio.wait((self._writing,))
            await asyncio.sleep(0)  # for its callback
        self._file.close()
