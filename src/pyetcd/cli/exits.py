"""How the client programs end: the exit codes scripts test for, and the exception that carries one."""

from __future__ import annotations

ERROR = 1
BAD_CONNECTION = 2
PANIC = 2  # where Go panics
INVALID_INPUT = 3  # in what txn and watch read from stdin
BAD_FEATURE = 4  # a flag's value is well-formed but not supported
INTERRUPTED = 5
BAD_ARGS = 128
CANCELED_PROMPT = 255  # Ctrl-C where a password is asked for


class Exit(Exception):
    """End the program with `code`, after `Error: message` on stderr where there is a message."""

    def __init__(self, code: int, message: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
