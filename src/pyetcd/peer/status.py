"""Whether another member can be talked to, as far as traffic has shown, and since when."""

from __future__ import annotations

import asyncio

from pyetcd import logs
from pyetcd.peer.counters import Counters
from pyetcd.peer.headers import hex_id

_log = logs.get("peer")


class PeerStatus:
    def __init__(self, id: int, counters: Counters, loop: asyncio.AbstractEventLoop) -> None:
        self._id = id
        self._counters = counters
        self._loop = loop
        self.since: float | None = None  # loop time; None while inactive

    @property
    def active(self) -> bool:
        return self.since is not None

    def activate(self) -> None:
        """Something has gone well."""
        if self.since is not None:
            return
        _log.info("peer became active", {"peer-id": hex_id(self._id)})
        self.since = self._loop.time()
        self._counters.active = 1
        self._counters.activations += 1

    def deactivate(self, source: str, action: str, reason: str) -> None:
        """`action` on `source` has failed for `reason`."""
        fields = {
            "peer-id": hex_id(self._id),
            "error": f"failed to {action} {hex_id(self._id)} on {source} ({reason})",
        }
        if self.since is None:
            _log.debug("peer deactivated again", fields)
            return
        _log.warn("peer became inactive (message send to peer failed)", fields)
        self.since = None
        self._counters.active = 0
        self._counters.disconnected += 1

    def forget(self) -> None:
        """The peer is taken out: it is not active any more, and nobody has failed."""
        self.since = None
        self._counters.active = 0
