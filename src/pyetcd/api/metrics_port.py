"""`--listen-metrics-urls`: addresses that serve metrics and health to operators, and nothing to clients.

They answer from the moment they listen, before the member has a leader, so that a probe sees a member that
does not get up. They have a wire of their own: scrapes do not queue behind requests, nor the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pyetcd import logs
from pyetcd._native import HTTP, REJECTED, HttpRequest, Limits, Server, Tls, Wake
from pyetcd.api.http import HttpRoutes
from pyetcd.api.http_health import HealthChecks, HealthSource
from pyetcd.api.http_metrics import Scrapes
from pyetcd.cluster.urls import Url
from pyetcd.logs.rejected import log_rejected

EVENTS_PER_TURN = 64

_log = logs.get("api")


class MetricsPort:
    """All the addresses of one member. Make it, `listen`, and `close` it."""

    def __init__(
        self,
        member: HealthSource,
        checks: HealthChecks,
        scrapes: Scrapes,
        loop: asyncio.AbstractEventLoop,
        reuse_port: bool,
    ) -> None:
        self._loop = loop
        self._wake = Wake()
        self._server = Server(self._wake, [], Limits(), reuse_port=reuse_port)
        self._http = HttpRoutes(self._server, member, checks, scrapes)

    def listen(self, urls: Sequence[Url], tls: Tls | None) -> None:
        """Bind and serve. OSError when an address cannot be had. `tls` is needed where a URL is secure."""
        for url in urls:
            secured = tls if url.is_secure else None
            assert secured is not None or not url.is_secure, "an https URL is never served in plain text"
            if url.is_unix:
                self._server.listen_unix(url.socket_path, secured, grpc=False)
            else:
                self._server.listen_tcp(url.hostname, int(url.port), secured, grpc=False)
            _log.info("serving metrics", {"address": url.text})
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
