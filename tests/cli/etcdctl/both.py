"""Real etcdctl 3.7.1 and ours, run with the same command line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ctl_runner import NOTE, Etcdctl, Ran

TOOK = re.compile(rb'(took = |"took":"|"Took" : )[^"\s]+')  # the only thing that is chance


class Both:
    """Calls both programs; `same` has them agree in exit code, output and errors, log lines aside."""

    def __init__(self, real: Path) -> None:
        self.program = str(real)
        self._ours = Etcdctl("")

    def real(self, *args: str) -> Ran:
        done = subprocess.run(
            [self.program, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self._ours.variables(),
            timeout=60,
        )
        return Ran(done.returncode, done.stdout, NOTE.sub(b"", done.stderr))

    def ours(self, *args: str) -> Ran:
        return self._ours(*args)

    def same(self, *args: str) -> Ran:
        """What both did."""
        real, ours = without_times(self.real(*args)), without_times(self.ours(*args))
        assert ours == real, args
        return real


def without_times(ran: Ran) -> Ran:
    return Ran(ran.code, TOOK.sub(rb"\1T", ran.out), TOOK.sub(rb"\1T", ran.err))


def masked(ran: Ran, names: Mapping[int, str]) -> Ran:
    """With a name in place of each ID, which differ where a member was added once by each program."""

    def name(data: bytes) -> bytes:
        for id, shown in names.items():
            for written in (f"{id:16x}", f"{id:x}", str(id)):
                data = data.replace(written.encode(), shown.encode())
        return data

    return Ran(ran.code, name(ran.out), name(ran.err))
