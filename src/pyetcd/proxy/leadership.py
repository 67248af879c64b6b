"""Whether the cluster has a leader, for streams that want to end where it has none (`hasleader`).

etcd's way: a watch of a key nobody writes, at a revision that never comes, which the cluster ends when the
member behind it has lost its leader.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from pyetcd._native import Meta
from pyetcd.proto.errors import NO_LEADER
from pyetcd.proto.rpc_pb2 import WatchCreateRequest, WatchResponse
from pyetcd.proxy.watch_line import WatchLine

KEY: Final = b"__lostleader"
NEVER: Final = (1 << 63) - 3
RETRY_SECONDS: Final = 0.1


class Ending(Protocol):
    """A client's stream."""

    def end(self, code: int, text: str) -> None: ...


def wants_leader(meta: Meta) -> bool:
    return ("hasleader", "true") in meta.headers


class Leadership:
    """Ends `streams` when the leader is lost."""

    def __init__(self, line: WatchLine, loop: asyncio.AbstractEventLoop) -> None:
        self._line = line
        self._loop = loop
        self.has_leader = True  # until the contrary is known
        self.streams: set[Ending] = set()
        self._line.add(self)

    def creation(self) -> WatchCreateRequest:
        return WatchCreateRequest(key=KEY, start_revision=NEVER)

    def told(self, response: WatchResponse) -> None:
        if response.canceled:
            self.lost(response.cancel_reason)
        elif response.created:
            self.has_leader = True

    def lost(self, reason: str) -> None:
        if reason == NO_LEADER.message:
            self.has_leader = False
            streams, self.streams = self.streams, set()
            for stream in streams:
                stream.end(NO_LEADER.code, NO_LEADER.message)
        self._loop.call_later(RETRY_SECONDS, self._line.add, self)
