"""What a write changed, as watchers are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

UNKNOWN: Final = -1


class Change:
    """One key put or deleted in main revision `revision`.

    `record` is the mvccpb.KeyValue an event carries: for a put as it is stored, for a deletion key and
    mod_revision. `previous` is the number of the revision the key had before this main revision, 0 when
    there was none, UNKNOWN when nobody has looked; `Store.previous_record` reads it.
    """

    __slots__ = ("deleted", "key", "previous", "record", "revision")

    def __init__(self, revision: int, deleted: bool, key: bytes, record: bytes, previous: int) -> None:
        self.revision = revision
        self.deleted = deleted
        self.key = key
        self.record = record
        self.previous = previous


class Span(NamedTuple):
    """Keys from `first` to `last`, both included."""

    first: bytes
    last: bytes


OnChange: TypeAlias = Callable[[int, Sequence[Change]], None]
"""`(main revision, its changes in order)`, when the revision has become visible; in revision order."""

OnBulk: TypeAlias = Callable[[int, Sequence[Span]], None]
"""Instead of OnChange for a revision with too many changes to hold: `(main revision, spans touched)`. The
changes are to be
read with `Store.events`, which has them once they are settled."""
