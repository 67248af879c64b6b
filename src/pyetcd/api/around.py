"""A stream around another: what a subclass does not look at goes through as it is."""

from __future__ import annotations

from pyetcd.api.dispatch import Stream


class Around:
    """Fits `dispatch.Stream`."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def on_message(self, payload: bytes) -> None:
        self.stream.on_message(payload)

    def on_half_close(self) -> None:
        self.stream.on_half_close()

    def on_cancel(self) -> None:
        self.stream.on_cancel()

    def on_writable(self) -> None:
        self.stream.on_writable()
