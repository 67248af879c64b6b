"""What stands for a user's name on a request. Which kind there is, `--auth-token` says.

A token is assigned where an entry of Authenticate is applied. Simple tokens are known to every member
because every member applies it; signed ones say themselves whom they stand for.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from pyetcd.auth.caller import Caller
from pyetcd.proto import errors


class BadTokenOptions(Exception):
    """`--auth-token` cannot be used; the text is etcd's."""


class Tokens(Protocol):
    """One kind of token."""

    def enable(self) -> None:
        """Authentication is on."""

    def disable(self) -> None:
        """It is off: no token is good any more."""

    def invalidate(self, name: str) -> None:
        """This user's tokens are not good any more."""

    def prefix(self) -> str:
        """What makes the next token one that nobody guesses; it goes through the log."""

    def assign(self, name: str, revision: int, prefix: str, index: int, told: bool) -> str:
        """A token for this user, by the entry at `index`. `told`: somebody here waits for it. EtcdError."""

    def caller(self, token: str, revision: int) -> Caller | None:
        """Whom a token stands for, None: nobody. `revision`: that of the store now."""

    def index_of(self, token: str) -> int:
        """The entry that must be applied before one can say; 0: none."""

    def sweep(self) -> None:
        """Forget what has expired."""


def fingerprint(token: str) -> str:
    """A token in a log line, as etcd's."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]


class NoTokens:
    """`--auth-token=` without a kind: there are none, and all that are sent are wrong."""

    def enable(self) -> None: ...
    def disable(self) -> None: ...
    def invalidate(self, name: str) -> None: ...
    def sweep(self) -> None: ...

    def prefix(self) -> str:
        return ""

    def assign(self, name: str, revision: int, prefix: str, index: int, told: bool) -> str:
        raise errors.AUTH_FAILED

    def caller(self, token: str, revision: int) -> Caller | None:
        return None

    def index_of(self, token: str) -> int:
        return 0
