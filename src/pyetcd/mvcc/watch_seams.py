"""What the watch hub needs from its neighbours, as protocols: the store beside it, the wire and the loop
below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pyetcd.mvcc.change import Change


class Events(Protocol):
    """The change history from some revision on, in revision order (`events.EventReader`)."""

    @property
    def next_revision(self) -> int:
        """Every change of the revisions before this one has been read."""

    def read(self, current: int, limit: int) -> list[Change]:
        """Up to `limit` changes of revisions up to `current`; the last revision may be cut. Empty: none for
        now.
        """


class History(Protocol):
    """The part of `store.Store` that watchers need."""

    @property
    def revision(self) -> int: ...
    @property
    def compact_revision(self) -> int: ...
    def events(self, start_revision: int) -> Events: ...
    def previous_record(self, change: Change) -> bytes | None:
        """The KeyValue a changed key had before; None when it had none, or when that is compacted."""


class Wire(Protocol):
    """The part of `_native.Server` that carries responses."""

    def send_many(self, messages: Sequence[tuple[int, bytes | Sequence[bytes]]]) -> list[int]: ...
    def send_fanout(self, calls: Sequence[int], body: bytes | Sequence[bytes]) -> list[int]: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Loop(Protocol):
    """The part of the running loop that is used; times in seconds."""

    def time(self) -> float: ...
    def call_soon(self, callback: Callable[[], None]) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer: ...


class Chance(Protocol):
    """The part of `random.Random` that is used."""

    def random(self) -> float: ...


Header = Callable[[int], bytes]
"""Field 1 of a response for a revision, ready to be sent; worth caching by whoever hands it in."""
