"""What the store needs from its neighbours, as protocols: the backend below it and the lease book beside
it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeAlias


class Backend(Protocol):
    """The part of `storage.backend.Backend` that mvcc uses. Reads see what is buffered."""

    @property
    def full(self) -> bool: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def size_in_use_bytes(self) -> int: ...
    def get(self, bucket: bytes, key: bytes) -> bytes | None: ...
    def get_many(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]: ...
    def put(self, bucket: bytes, key: bytes, value: bytes) -> None: ...
    def append(self, key: bytes, value: bytes) -> None: ...
    def delete(self, bucket: bytes, key: bytes) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    async def drained(self) -> None: ...


class LeaseBook(Protocol):
    """Which lease a key hangs on; `lease.Lessor` keeps it. Lease 0 is no lease."""

    def exists(self, lease: int) -> bool: ...
    def lease_of(self, key: bytes) -> int: ...
    def attach(self, lease: int, key: bytes) -> None: ...
    def detach(self, lease: int, key: bytes) -> None: ...


class NoLeases:
    """The lease book of a store without leases: for tools and tests."""

    def exists(self, lease: int) -> bool:
        return False

    def lease_of(self, key: bytes) -> int:
        return 0

    def attach(self, lease: int, key: bytes) -> None:
        return

    def detach(self, lease: int, key: bytes) -> None:
        return


Background: TypeAlias = Callable[[Generator[None, None, None]], None]
"""Hands a job to whoever runs jobs (`member.jobs`): a slice a turn until it ends."""
