"""A stream that is not opened yet, because its token cannot be judged yet: what comes on it is kept."""

from __future__ import annotations

from typing import Final

from pyetcd.proto.errors import RESOURCE_EXHAUSTED, EtcdError

MESSAGES_MAX: Final = 100
TOO_MANY: Final = "etcdserver: too many requests on a stream whose token is not known yet"


class HeldStream:
    """Fulfils `dispatch.Stream` until the real one takes over."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.is_half_closed = False
        self.is_cancelled = False

    def on_message(self, payload: bytes) -> None:
        if len(self.messages) >= MESSAGES_MAX:
            raise EtcdError(RESOURCE_EXHAUSTED, TOO_MANY)
        self.messages.append(payload)

    def on_half_close(self) -> None:
        self.is_half_closed = True

    def on_cancel(self) -> None:
        self.is_cancelled = True

    def on_writable(self) -> None:
        """Nothing has been sent."""
