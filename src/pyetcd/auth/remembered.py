"""`--password-cache-ttl`: passwords that were right lately, for clients that log in on every connection.

Comparing a password with its bcrypt hash takes tens of milliseconds on purpose. What is remembered saves the
second comparison, and gives away as little as that can: a keyed hash with a salt of its own, in memory alone,
for a short time, a bounded number. It holds for one auth revision: whatever changes about users or roles
makes all of it worthless. Only passwords that were right are remembered, so a guess takes as long as ever.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable
from typing import Final

ENTRIES_MAX: Final = 10_000
SALT_BYTES: Final = 16
KEY_BYTES: Final = 32


class Remembered:
    """`chance`: one that cannot be guessed. `clock`: monotonic seconds; `later` calls after so many."""

    def __init__(
        self,
        ttl_seconds: float,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        chance: random.Random,
    ) -> None:
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._later = later
        self._chance = chance
        self._key = chance.randbytes(KEY_BYTES)
        self._known: dict[str, tuple[bytes, bytes, float]] = {}  # name -> salt, hash, end; oldest first
        self._revision = 0
        self._is_swept = False

    def has(self, revision: int, name: str, password: str) -> bool:
        """Whether this was the user's password, lately and at this auth revision."""
        self._forget_unless(revision)
        known = self._known.get(name)
        if known is None or known[2] <= self._clock():
            return False
        return hmac.compare_digest(known[1], self._hash(known[0], name, password))

    def note(self, revision: int, name: str, password: str) -> None:
        """It is the user's password, at this auth revision."""
        self._forget_unless(revision)
        self._known.pop(name, None)
        if len(self._known) >= ENTRIES_MAX:
            del self._known[next(iter(self._known))]
        salt = self._chance.randbytes(SALT_BYTES)
        self._known[name] = salt, self._hash(salt, name, password), self._clock() + self._ttl_seconds
        self._sweep_later()

    def __len__(self) -> int:
        return len(self._known)

    def _forget_unless(self, revision: int) -> None:
        if revision != self._revision:
            self._known.clear()
            self._revision = revision

    def _sweep_later(self) -> None:
        if not self._is_swept:
            self._is_swept = True
            self._later(self._ttl_seconds, self._sweep)

    def _sweep(self) -> None:
        now = self._clock()
        self._is_swept = False
        self._known = {name: known for name, known in self._known.items() if known[2] > now}
        if self._known:
            self._sweep_later()

    def _hash(self, salt: bytes, name: str, password: str) -> bytes:
        encoded = name.encode()
        told = b"%d:" % len(encoded) + encoded + password.encode()
        return hashlib.blake2b(told, key=self._key, salt=salt).digest()
