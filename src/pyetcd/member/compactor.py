"""Auto-compaction: `periodic` keeps a span of time, `revision` keeps a number of revisions.

Runs on the leader only. The periods are etcd's: in periodic mode the revision is noted ten times an
interval (an hour at most), and
what is older than the retention is compacted once an interval; in revision mode it is looked at every five
minutes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from pyetcd import logs
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError

HOUR = 3600.0
NOTES_PER_INTERVAL = 10
REVISION_INTERVAL_SECONDS = 300.0

_log = logs.get("compactor")

Compact = Callable[[int], Awaitable[object]]


class _Compactor:
    def __init__(self, revision: Callable[[], int], compact: Compact, is_leader: Callable[[], bool]) -> None:
        self._revision = revision
        self._compact = compact
        self._is_leader = is_leader

    async def _try(
        self, revision: int, kind: str, setting: Mapping[str, object], retry_seconds: float
    ) -> bool:
        fields = {"revision": revision, **setting}
        _log.info(f"starting auto {kind} compaction", fields)
        begun = asyncio.get_running_loop().time()
        try:
            await self._compact(revision)
        except EtcdError as error:
            if error.message != errors.COMPACTED.message:
                retry = {"retry-interval": timedelta(seconds=retry_seconds), "error": error.message}
                _log.warn(f"failed auto {kind} compaction", {**fields, **retry})
                return False
        took = timedelta(seconds=asyncio.get_running_loop().time() - begun)
        _log.info(f"completed auto {kind} compaction", {**fields, "took": took})
        return True


class Periodic(_Compactor):
    """Keeps `retention_seconds` of history."""

    def __init__(
        self,
        revision: Callable[[], int],
        compact: Compact,
        is_leader: Callable[[], bool],
        retention_seconds: float,
    ) -> None:
        super().__init__(revision, compact, is_leader)
        self._retention_seconds = retention_seconds

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        interval = min(self._retention_seconds, HOUR)
        pause = interval / NOTES_PER_INTERVAL
        noted: deque[int] = deque(maxlen=int(self._retention_seconds / pause) + 1)
        wait, last, last_time = self._retention_seconds, 0, loop.time()
        while True:
            noted.append(self._revision())
            await asyncio.sleep(pause)
            oldest = noted[0]
            if not self._is_leader() or loop.time() - last_time < wait or oldest == last:
                continue
            wait = interval
            period = {"compact-period": timedelta(seconds=self._retention_seconds)}
            if await self._try(oldest, "periodic", period, pause):
                last, last_time = oldest, loop.time()


class Revision(_Compactor):
    """Keeps the latest `retention` revisions."""

    def __init__(
        self, revision: Callable[[], int], compact: Compact, is_leader: Callable[[], bool], retention: int
    ) -> None:
        super().__init__(revision, compact, is_leader)
        self._retention = retention

    async def run(self) -> None:
        last = 0
        while True:
            await asyncio.sleep(REVISION_INTERVAL_SECONDS)
            target = self._revision() - self._retention
            if not self._is_leader() or target <= 0 or target == last:
                continue
            kept = {"revision-compaction-retention": self._retention}
            if await self._try(target, "revision", kept, REVISION_INTERVAL_SECONDS):
                last = target
