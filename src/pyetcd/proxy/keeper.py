"""A lease of the proxy's own, kept alive until it is lost."""

from __future__ import annotations

import asyncio
from typing import Final

from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from pyetcd.proxy.calls import NOBODY
from pyetcd.proxy.leases import KEEP_ALIVE
from pyetcd.proxy.upstream import Line, Upstream

LONGEST_PAUSE_SECONDS: Final = 10.0


class Keeper:
    """Renews a lease three times in its life."""

    def __init__(self, upstream: Upstream, lease: int, ttl: int) -> None:
        self._upstream = upstream
        self._lease = lease
        self._ttl = ttl
        self._line: Line | None = None
        self._answered = asyncio.Event()

    async def lost(self) -> None:
        """Comes to its end when the lease is gone, or was not renewed for as long as it lives."""
        loop = self._upstream.loop
        end = loop.time() + self._ttl
        try:
            while loop.time() < end and self._ttl > 0:
                asked_at = loop.time()
                self._ask()
                try:
                    pause = min(self._ttl / 3, LONGEST_PAUSE_SECONDS, max(end - loop.time(), 0.01))
                    await asyncio.wait_for(self._answered.wait(), pause)
                except TimeoutError:
                    continue
                self._answered.clear()
                end = asked_at + self._ttl
                await asyncio.sleep(self._ttl / 3)
        finally:
            if self._line is not None:
                self._line.cancel()

    def _ask(self) -> None:
        try:
            if self._line is None:
                self._line = self._upstream.open(KEEP_ALIVE, NOBODY, self)
        except EtcdError:
            return
        self._line.send(LeaseKeepAliveRequest(ID=self._lease).SerializeToString())

    def on_message(self, message: bytes) -> None:
        if self._line is not None:
            self._line.read()
        self._ttl = LeaseKeepAliveResponse.FromString(message).TTL
        self._answered.set()

    def on_end(self, code: int, text: str) -> None:
        self._line = None
