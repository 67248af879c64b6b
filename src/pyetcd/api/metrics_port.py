"""`--listen-metrics-urls`: addresses that serve metrics and health to operators, and nothing to clients.

They answer from the moment they listen, before the member has a leader, so that a probe sees a member that
does not get up. They have a wire of their own: scrapes do not queue behind requests, nor the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pyetcd import logs
from pyetcd._native import HTTP, REJECTED, HttpRequest, Limits, Server, Wake
from pyetcd.api.http import HttpRoutes
from pyetcd.api.http_health import HealthChecks, HealthSource
from pyetcd.api.http_metrics import Scrapes
from pyetcd.listen import Entrance
from pyetcd.logs.rejected import log_rejected

EVENTS_PER_TURN = 64
CONNECTIONS_MAX = 64

_log = logs.get("api")


class MetricsPort:
    """All the addresses of one member. Make it, `listen`, and `close` it."""

    def __init__(
        self,
        member: HealthSource,
        checks: HealthChecks,
        scrapes: Scrapes,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._wake = Wake()
        self._server = Server(self._wake, [], Limits(connections=CONNECTIONS_MAX))
        self._http = HttpRoutes(self._server, member, checks, scrapes)

    def listen(self, entrances: Sequence[Entrance]) -> None:
        """Serve from now on."""
        for entrance in entrances:
            entrance.open(self._server)
            _log.info("serving metrics", {"address": entrance.url.text})
        self._loop.add_reader(self._wake.fileno(), self._turn)

    def _turn(self) -> None:
        self._wake.clear()
        events = self._server.drain(EVENTS_PER_TURN)
        for kind, call, _, payload, meta in events:
            if kind == HTTP:
                assert isinstance(payload, HttpRequest)
                assert meta is not None
                self._http.handle(call, payload, meta)
            elif kind == REJECTED:
                assert isinstance(payload, bytes)
                log_rejected(_log, "client", payload)
        if len(events) == EVENTS_PER_TURN:
            self._loop.call_soon(self._turn)

    async def close(self) -> None:
        """Answer nothing more."""
        self._server.stop_accepting()
        self._loop.remove_reader(self._wake.fileno())
        await self._http.close()
        await self._loop.run_in_executor(None, self._server.shutdown, 0.0)
