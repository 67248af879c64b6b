"""Passwords and bcrypt.

A hash takes tens of milliseconds on purpose, so it is made and compared in threads of its own, a bounded
number at a time: who logs in waits for others who log in, nobody else does. Whether there is a user of a name
is not to be told by the time an answer takes: where there is nothing to compare with, something is compared
that costs as much as root's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar, TypeVarTuple, Unpack

import bcrypt

from pyetcd import logs
from pyetcd.proto import errors
from pyetcd.proto.errors import UNKNOWN, EtcdError

COST_MIN: Final = 4
COST_MAX: Final = 31
COST_DEFAULT: Final = 10
DECOY_COST_MAX: Final = 14  # unless new passwords cost more: everybody waits for a decoy
BYTES_MAX: Final = 72  # of a password; bcrypt looks no further
WAITING_MAX: Final = 1000
TOO_LONG: Final = "bcrypt: password length exceeds 72 bytes"

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_log = logs.get("auth")


def effective_cost(given: int) -> int:
    """The cost in force; one that bcrypt does not know is replaced, as by etcd."""
    if COST_MIN <= given <= COST_MAX:
        return given
    _log.warn(
        "use default bcrypt cost instead of the invalid given cost",
        {"min-cost": COST_MIN, "max-cost": COST_MAX, "default-cost": COST_DEFAULT, "given-cost": given},
    )
    return COST_DEFAULT


def check_length(password: bytes) -> None:
    """EtcdError when it is too long for bcrypt."""
    if len(password) > BYTES_MAX:
        raise EtcdError(UNKNOWN, TOO_LONG)


def hashed(password: bytes, cost: int) -> bytes:
    """In the form Go writes. EtcdError."""
    check_length(password)
    return bcrypt.hashpw(password, bcrypt.gensalt(cost, b"2a"))


def matches(password: bytes, stored: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:BYTES_MAX], stored)
    except ValueError:  # what is stored is no hash
        return False


def cost_of(stored: bytes) -> int | None:
    """Of a hash, as it says itself; None: it is none."""
    parts = stored.split(b"$")
    if len(parts) != 4 or not parts[2].isdigit() or not COST_MIN <= int(parts[2]) <= COST_MAX:
        return None
    return int(parts[2])


class Passwords:
    """Hashes in `executor`, `width` at a time."""

    def __init__(self, executor: Executor, width: int, cost: int) -> None:
        self._executor = executor
        self._cost = cost
        self._slots = asyncio.Semaphore(width)
        self._waiting = 0
        self._decoys: dict[int, bytes] = {}  # by cost

    async def hash(self, password: str) -> bytes:
        return await self._run(hashed, password.encode(), self._cost)

    async def check(self, password: str, stored: bytes | None, example: bytes | None) -> bool:
        """Whether this is the password. `stored` None: there is none, which takes as long to tell as of the
        cost of `example`, the hash of somebody's."""
        cost = self._cost if example is None else cost_of(example) or self._cost
        decoy = await self._decoy(min(cost, max(self._cost, DECOY_COST_MAX)))
        right = await self._run(matches, password.encode(), decoy if stored is None else stored)
        return right and stored is not None

    async def _decoy(self, cost: int) -> bytes:
        """A hash of this cost. Whoever comes first waits for it, be there such a user or not."""
        decoy = self._decoys.get(cost)
        if decoy is None:
            decoy = self._decoys[cost] = await self._run(hashed, b"", cost)
        return decoy

    async def _run(self, work: Callable[[Unpack[Arguments]], Result], *arguments: *Arguments) -> Result:
        if self._waiting >= WAITING_MAX:
            raise errors.TOO_MANY_REQUESTS
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        finally:
            self._waiting -= 1
