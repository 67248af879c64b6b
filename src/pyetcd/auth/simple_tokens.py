"""Simple tokens: sixteen random letters, and an index of the log.

The index is that of the entry before the one that made it, as in etcd: the same token on every member.

Every member keeps them in memory, so a restart forgets them, and each one forgets a token that it has not
seen for the time to live. The index lets a member that is behind wait for the entry before it calls a token
wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from pyetcd.auth.caller import Caller

LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
LENGTH: Final = 16
DEFAULT_TTL_SECONDS: Final = 300
TOKENS_MAX: Final = 500_000  # beyond, the one not used for longest is forgotten
MAX_UINT64: Final = (1 << 64) - 1


class SimpleTokens:
    """`chance` must be one that cannot be guessed. Tokens lie in the order of their last use."""

    def __init__(self, clock: Callable[[], float], chance: random.Random, ttl_seconds: float) -> None:
        self._clock = clock
        self._chance = chance
        self._ttl_seconds = ttl_seconds if ttl_seconds > 0 else DEFAULT_TTL_SECONDS
        self._enabled = False
        self._names: dict[str, str] = {}
        self._ends: dict[str, float] = {}
        self._callers: dict[str, Caller] = {}  # by name, of `_revision`
        self._revision = 0

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False
        self._names.clear()
        self._ends.clear()
        self._callers.clear()

    def invalidate(self, name: str) -> None:
        for token in [token for token, owner in self._names.items() if owner == name]:
            self._forget(token)

    def prefix(self) -> str:
        return "".join(self._chance.choice(LETTERS) for _ in range(LENGTH))

    def assign(self, name: str, revision: int, prefix: str, index: int, told: bool) -> str:
        token = f"{prefix}.{index - 1}"
        if self._enabled:
            if len(self._names) >= TOKENS_MAX:
                self._forget(next(iter(self._ends)))
            self._names[token] = name
            self._ends.pop(token, None)
            self._ends[token] = self._clock() + self._ttl_seconds
        return token

    def caller(self, token: str, revision: int) -> Caller | None:
        name = self._names.get(token)
        if name is None:
            return None
        now = self._clock()
        if self._ends.pop(token) <= now:
            del self._names[token]
            return None
        self._ends[token] = now + self._ttl_seconds
        if revision != self._revision:
            self._callers.clear()
            self._revision = revision
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = Caller(name, revision)
        return caller

    def index_of(self, token: str) -> int:
        if token in self._names:
            return 0
        _, dot, index = token.partition(".")
        if not dot or not index.isascii() or not index.isdecimal() or len(index) > 20:
            return 0
        number = int(index)
        return number + 1 if number <= MAX_UINT64 else 0

    def sweep(self) -> None:
        now = self._clock()
        expired = []
        for token, end in self._ends.items():
            if end > now:
                break
            expired.append(token)
        for token in expired:
            self._forget(token)

    def _forget(self, token: str) -> None:
        del self._names[token]
        del self._ends[token]
