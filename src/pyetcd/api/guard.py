"""What streams must pass whose services do not look at leadership themselves: real etcd has an interceptor in
front of every stream, whatever it is for.

A stream that wants a leader is ended when there has been none for long, but for a snapshot: what that sends
it has already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyetcd._native import Meta
from pyetcd.api.dispatch import OpenStream, Outbox, Stream
from pyetcd.api.leadership import SNAPSHOT, Leadership, requires_leader
from pyetcd.proto.errors import CANCELED_CODE, EtcdError

HEALTH: Final = "/grpc.health.v1.Health/Watch"
HEALTH_ENDS: Final = "Stream has ended."


class Guard:
    """Stands in front of streams."""

    def __init__(self, leadership: Leadership, outbox: Outbox) -> None:
        self._leadership = leadership
        self._outbox = outbox
        self._wanting: dict[int, Stream] = {}  # those that want a leader; ended ones until the next comes

    def guarded(self, streams: Mapping[str, OpenStream]) -> dict[str, OpenStream]:
        return {name: self._guarded(name, opener) for name, opener in streams.items()}

    def _guarded(self, name: str, opener: OpenStream) -> OpenStream:
        def open_stream(call: int, meta: Meta) -> Stream:
            self._leadership.check_stream(name, meta)
            stream = opener(call, meta)
            if name != SNAPSHOT and requires_leader(meta):
                self._sweep()
                self._wanting[call] = stream
                self._leadership.keep(call, lambda error: self._end(name, call, error))
            return stream

        return open_stream

    def _sweep(self) -> None:
        """Forget those that have ended."""
        for call, stream in list(self._wanting.items()):
            if self._outbox.streams.get(call) is not stream:
                del self._wanting[call]
                self._leadership.forget(call)

    def _end(self, name: str, call: int, error: EtcdError) -> None:
        stream = self._wanting.pop(call)
        if self._outbox.streams.get(call) is not stream:
            return
        stream.on_cancel()
        if name == HEALTH:  # gRPC's own service knows nothing of leaders
            error = EtcdError(CANCELED_CODE, HEALTH_ENDS)
        self._outbox.fail(call, error)
