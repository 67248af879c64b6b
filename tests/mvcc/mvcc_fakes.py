"""Neighbours of a store in memory: a backend, a lease book, and a runner of background jobs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Generator, Sequence


class MemoryBackend:
    """The part of a backend that mvcc uses: sorted dicts. `committed` is what a crash would leave."""

    def __init__(self) -> None:
        self.buckets: dict[bytes, dict[bytes, bytes]] = {b"key": {}, b"meta": {}}
        self.order: dict[bytes, list[bytes]] = {b"key": [], b"meta": []}
        self.held = 0
        self.full = False
        self.size_bytes = 20480
        self.size_in_use_bytes = 16384

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self.buckets[bucket].get(key)

    def get_many(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.buckets[bucket].get(key) for key in keys]

    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        order = self.order[bucket]
        low = bisect_left(order, start)
        high = len(order) if end is None else bisect_left(order, end)
        if limit:
            high = min(high, low + limit)
        return [(key, self.buckets[bucket][key]) for key in order[low:high]]

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        if key not in self.buckets[bucket]:
            insort(self.order[bucket], key)
        self.buckets[bucket][key] = value

    def append(self, key: bytes, value: bytes) -> None:
        order = self.order[b"key"]
        assert not order or order[-1] < key, "appended keys ascend"
        order.append(key)
        self.buckets[b"key"][key] = value

    def delete(self, bucket: bytes, key: bytes) -> None:
        del self.buckets[bucket][key]
        del self.order[bucket][bisect_left(self.order[bucket], key)]

    def hold(self) -> None:
        assert not self.held, "held once"
        self.held = 1

    def release(self) -> None:
        assert self.held == 1, "released once"
        self.held = 0

    async def drained(self) -> None:
        return


class Book:
    """A lease book that knows a few leases."""

    def __init__(self, *leases: int) -> None:
        self.leases = set(leases)
        self.keys: dict[bytes, int] = {}

    def exists(self, lease: int) -> bool:
        return lease in self.leases

    def lease_of(self, key: bytes) -> int:
        return self.keys.get(key, 0)

    def attach(self, lease: int, key: bytes) -> None:
        assert lease in self.leases, "only a lease that exists is attached"
        self.keys[key] = lease

    def detach(self, lease: int, key: bytes) -> None:
        assert self.keys[key] == lease, "only an attached lease is detached"
        del self.keys[key]


class Background:
    """Jobs that wait until a test runs them."""

    def __init__(self) -> None:
        self.jobs: list[Generator[None, None, None]] = []

    def __call__(self, job: Generator[None, None, None]) -> None:
        self.jobs.append(job)

    def step(self) -> None:
        """One slice of the oldest job, if there is one."""
        if self.jobs and next(self.jobs[0], "ended") == "ended":
            del self.jobs[0]

    def run(self) -> None:
        while self.jobs:
            self.step()
