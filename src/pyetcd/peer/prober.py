"""`GET /raft/probing` to each peer every four seconds: how far away it is, and how its clock differs.

etcd has two probers, one for each of its HTTP clients; here one stands for both, and what it finds is logged
under both names, since people look for either. Nothing is decided by it.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pyetcd import logs
from pyetcd.cluster.urls import Url
from pyetcd.logs import duration
from pyetcd.peer.clock import parse_time, wall_time
from pyetcd.peer.context import Link
from pyetcd.peer.counters import observe
from pyetcd.peer.headers import hex_id
from pyetcd.peer.posting import status_text
from pyetcd.peer.wire import Unreachable

if TYPE_CHECKING:
    from pyetcd._native import HttpResponse

PROBING_PATH: Final = "/raft/probing"
INTERVAL_SECONDS: Final = 4.0
TIMEOUT_SECONDS: Final = 5.0
REPORT_ERROR_SECONDS: Final = 5.0
REPORT_SECONDS: Final = 30.0
DRIFT_SECONDS_MAX: Final = 1.0
NAMES: Final = ("ROUND_TRIPPER_SNAPSHOT", "ROUND_TRIPPER_RAFT_MESSAGE")
_WEIGHT: Final = 0.125  # of the newest round trip in their mean

_log = logs.get("peer")


class Prober:
    """Of one peer, at these URLs, until `stop`."""

    def __init__(self, link: Link, urls: tuple[Url, ...]) -> None:
        self._link = link
        self._urls = urls
        self._pinned = 0
        self.healthy = False
        self.error: str | None = None
        self.round_trip_seconds = 0.0
        self.drift_seconds = 0.0
        self._task = link.loop.create_task(self._run())
        self._timer = link.loop.call_later(REPORT_ERROR_SECONDS, self._report)

    def stop(self) -> asyncio.Task[None]:
        """The task is to be awaited."""
        self._timer.cancel()
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        loop = self._link.loop
        due = loop.time()
        while True:
            due = max(due + INTERVAL_SECONDS, loop.time())
            await asyncio.sleep(due - loop.time())
            started = loop.time()
            error = await self._probe(started)
            self.error, self.healthy = error, error is None
            if error is not None:
                self._pinned = (self._pinned + 1) % len(self._urls)

    async def _probe(self, started: float) -> str | None:
        """Why it has failed, None when it has not."""
        url = self._urls[self._pinned]
        try:
            response = await self._link.wire.request(
                url, "GET", PROBING_PATH, timeout_seconds=TIMEOUT_SECONDS
            )
        except Unreachable as error:
            return str(error)
        if response.status != 200:
            status = f"{response.status} {status_text(response.status)}"
            return f"got unexpected HTTP status code {status} from {url.text}{PROBING_PATH}"
        now = _their_time(response)
        if isinstance(now, str):
            return now
        took = self._link.loop.time() - started
        last = self.round_trip_seconds or took
        self.round_trip_seconds = (1 - _WEIGHT) * last + _WEIGHT * took
        self.drift_seconds = (wall_time() - now).total_seconds() - self.round_trip_seconds / 2
        return None

    def _report(self) -> None:
        fields: dict[str, object] = {"remote-peer-id": hex_id(self._link.id)}
        rtt = duration(self.round_trip_seconds)
        error = {} if self.error is None else {"error": self.error}
        for name in NAMES:
            who = {"round-tripper-name": name, **fields}
            if not self.healthy:
                _log.warn("prober detected unhealthy status", {**who, "rtt": rtt, **error})
            if self.drift_seconds > DRIFT_SECONDS_MAX:
                drift = duration(self.drift_seconds)
                _log.warn("prober found high clock drift", {**who, "clock-drift": drift, "rtt": rtt, **error})
            observe(self._link.counters.round_trip_seconds, self.round_trip_seconds)
        wait = REPORT_SECONDS if self.healthy else REPORT_ERROR_SECONDS
        self._timer = self._link.loop.call_later(wait, self._report)


def _their_time(response: HttpResponse) -> datetime | str:
    """What the other side's clock says, or why that cannot be told."""
    try:
        answer = json.loads(response.body)
    except (ValueError, RecursionError) as error:
        return f"invalid probing answer: {error}"
    if not isinstance(answer, dict) or answer.get("OK") is not True:
        return "probing answer is not OK"
    now = parse_time(str(answer.get("Now")))
    return "probing answer has no time" if now is None else now


def probing_answer() -> bytes:
    """What we tell who probes us."""
    return json.dumps({"OK": True, "Now": wall_time().isoformat()}, separators=(",", ":")).encode() + b"\n"
