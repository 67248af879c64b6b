"""Programs that `watch` and `lock` start, and what is said when one fails, in Go's words."""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.exits import ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIGNALED = 255  # what is left of the -1 that Go has for programs that a signal ended


class Failed(Exception):
    """The program could not be started, or failed. `code` is its exit code, as far as it had one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def run(program: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start the program, without an input, and wait for it. Failed."""
    import subprocess

    try:
        status = subprocess.run(program, stdin=subprocess.DEVNULL, env=environment).returncode
    except OSError as error:
        if isinstance(error, FileNotFoundError) and "/" not in program[0]:
            reason = f"exec: {gotext.quote(program[0])}: executable file not found in $PATH"
        else:
            reason = f"fork/exec {program[0]}: {(error.strerror or '').lower()}"
        raise Failed(ERROR, reason) from None
    if status > 0:
        raise Failed(status, f"exit status {status}")
    if status < 0:
        from signal import strsignal

        raise Failed(SIGNALED, f"signal: {(strsignal(-status) or str(-status)).lower()}")
