"""`etcd` as a forked process: the whole of it but its imports.

A start of the executable takes 0.7 s of CPU, nearly all of it imports. Damage wants many starts; so these
fork from a process that has imported what `etcd` imports, and run the same `main`. What runs is a whole
member in a process of its own, killed and waited for as any other. This module is imported there anew for
each start, so it imports little.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from subprocess import TimeoutExpired

Prepare = Callable[..., None]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["pyetcd.cli.etcd.run", "pyetcd.cli.etcd.data_dir", "pyetcd.cli.etcd.config_file", "subprocess"]
)


def _child(
    arguments: list[str], output: Connection, prepare: Prepare | None, values: Sequence[object]
) -> None:
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    if prepare is not None:
        prepare(*values)
    from pyetcd.cli.etcd import main

    sys.exit(main(arguments))


class ForkedProcess:
    """`etcd` without its imports; looks like the `Popen` that `servers` knows. `prepare` runs in it first."""

    def __init__(self, command: list[str], prepare: Prepare | None = None, *values: object) -> None:
        reader, writer = _context.Pipe(duplex=False)
        self._process = _context.Process(target=_child, args=(command, writer, prepare, values), daemon=True)
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace")
        reader.close()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        assert self.pid is not None
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # gone, and the fork server has not said so yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutExpired("etcd", timeout or 0)
        return code
