"""What can be wrong with a write-ahead log. Every message names the file, and the offset where there is
one.
"""

from __future__ import annotations


class WalError(Exception):
    """The log cannot be used; nothing was changed on disk."""


class WalMissing(WalError):
    """There is no log at all in the directory."""


class WalLocked(WalError):
    """Another process holds the log."""


class WalCorrupt(WalError):
    """The log was damaged after it had been written, or parts of it are gone. It is left as it was found."""

    def __init__(self, path: str, offset: int | None, reason: str) -> None:
        at = "" if offset is None else f" at offset {offset}"
        super().__init__(f"wal: {path} is corrupt{at}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason
