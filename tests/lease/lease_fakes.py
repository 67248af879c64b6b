"""What the lease tests put around the lessor: a loop on virtual time, a bucket in a dict, keys in a dict."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence

from pyetcd.lease.lessor import Lessor

MIN_TTL = 2


class Timer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualLoop:
    """The loop's clock and queue; nothing runs but in `settle` and `advance`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.soon: deque[Callable[[], object]] = deque()
        self.timers: list[tuple[float, int, Timer]] = []
        self.set_timers = 0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self.soon.append(callback)

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        self.set_timers += 1
        timer = Timer(callback)
        heapq.heappush(self.timers, (when, self.set_timers, timer))
        return timer

    @property
    def live_timers(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self.timers)

    def settle(self) -> None:
        """Run what is queued, until nothing is."""
        for _ in range(100_000):
            if not self.soon:
                return
            self.soon.popleft()()
        raise AssertionError("the loop never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, timers in order."""
        until = self.now + seconds
        self.settle()
        for _ in range(1_000_000):
            if not self.timers or self.timers[0][0] > until:
                break
            when, _, timer = heapq.heappop(self.timers)
            self.now = max(self.now, when)
            if timer.callback is not None:
                timer.callback()
            self.settle()
        else:
            raise AssertionError("the loop never comes to rest")
        self.now = until


class Bucket:
    """The backend's bucket of leases."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        assert bucket == b"lease"
        rows = sorted(row for row in self.rows.items() if row[0] >= start)
        return rows[:limit] if limit else rows

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        assert bucket == b"lease"
        self.rows[key] = value

    def delete(self, bucket: bytes, key: bytes) -> None:
        assert bucket == b"lease"
        del self.rows[key]


class World:
    """A lessor with what is around it. `deleted` gathers the keys of revoked leases."""

    def __init__(
        self, bucket: Bucket | None = None, *, checkpoints: bool = False, persists: bool = True
    ) -> None:
        self.loop = VirtualLoop()
        self.checkpoints = checkpoints
        self.bucket = Bucket() if bucket is None else bucket
        self.deleted: list[list[bytes]] = []
        self.lessor = Lessor(
            self.bucket,
            self.loop.time,
            self.delete_keys,
            min_ttl=MIN_TTL,
            checkpoints=checkpoints,
            persists_checkpoints=lambda: persists,
        )
        self.lessor.load()

    def delete_keys(self, keys: Sequence[bytes]) -> int:
        """As the store does: detach each key it deletes."""
        self.deleted.append(list(keys))
        for key in keys:
            self.lessor.detach(self.lessor.lease_of(key), key)
        return len(keys)

    def promote(self, extend_seconds: float = 0.0) -> None:
        for _ in self.lessor.promote(extend_seconds):
            self.loop.settle()

    def restarted(self) -> World:
        """Another member's life on the same database; keys come back as the store restores them."""
        again = World(self.bucket, checkpoints=self.checkpoints)
        again.lessor.attach_all(self.lessor._lease_of)
        return again
