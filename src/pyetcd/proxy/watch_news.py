"""One answer of a watch of ours, and the forms in which watchers are told of it.

Watchers of one broadcast differ in what they want (previous values, puts, deletions) and in how far they are.
Most want the same, so the encoded events are made once for each difference and shared.
"""

from __future__ import annotations

from typing import Final

from pyetcd.proto.kv_pb2 import Event
from pyetcd.proto.rpc_pb2 import WatchCreateRequest, WatchResponse
from pyetcd.proto.splice import field_bytes, field_varint, varint

NO_PUTS: Final = 1
NO_DELETES: Final = 2
NO_WATCH_ID: Final = -1


def filters_of(request: WatchCreateRequest) -> int:
    """As a mask of NO_PUTS and NO_DELETES."""
    mask = 0
    for each in request.filters:
        if each == WatchCreateRequest.NOPUT:
            mask |= NO_PUTS
        elif each == WatchCreateRequest.NODELETE:
            mask |= NO_DELETES
    return mask


class News:
    """`last_revision`: of its events; 0 without any."""

    __slots__ = (
        "_events",
        "_forms",
        "canceled",
        "compact_revision",
        "created",
        "events",
        "header",
        "last_revision",
        "reason",
        "revision",
    )

    def __init__(self, response: WatchResponse, hidden: int) -> None:
        """`hidden`: bytes of the namespace, which begins every key."""
        self.header = field_bytes(1, response.header.SerializeToString())
        self.revision = response.header.revision
        self.created = response.created
        self.canceled = response.canceled
        self.compact_revision = response.compact_revision
        self.reason = response.cancel_reason
        self.events: list[Event] = list(response.events)
        if hidden:
            for event in self.events:
                event.kv.key = event.kv.key[hidden:]
                if event.HasField("prev_kv"):
                    event.prev_kv.key = event.kv.key
        self.last_revision = self.events[-1].kv.mod_revision if self.events else 0
        self._forms: dict[tuple[bool, int, int], bytes] = {}

    @property
    def is_progress(self) -> bool:
        """It only says how far the watch has come."""
        return (
            not (self.events or self.created or self.canceled or self.compact_revision) and self.revision > 0
        )

    def form(self, previous: bool, filters: int, first_revision: int) -> bytes:
        """The events from a revision on that a watcher wants, encoded; empty when there are none."""
        oldest = self.events[0].kv.mod_revision
        key = (previous, filters, max(first_revision, oldest))
        known = self._forms.get(key)
        if known is None:
            known = self._forms[key] = b"".join(
                field_bytes(11, _encoded(event, previous))
                for event in self.events
                if event.kv.mod_revision >= first_revision and not _is_filtered(event, filters)
            )
        return known


def message(
    header: bytes,
    watch_id: int,
    *,
    created: bool = False,
    canceled: bool = False,
    compact_revision: int = 0,
    reason: str = "",
    events: bytes = b"",
) -> list[bytes]:
    """A WatchResponse in parts. `header`: with its tag."""
    said = field_varint(2, watch_id) + field_varint(3, created) + field_varint(4, canceled)
    if compact_revision or reason:
        said += field_varint(5, compact_revision)
        said += field_bytes(6, reason.encode()) if reason else b""
    return [header + said, events] if events else [header + said]


def header_at(revision: int) -> bytes:
    """A header that says nothing but a revision."""
    inner = field_varint(3, revision)
    return b"\x0a" + varint(len(inner)) + inner


def _is_filtered(event: Event, filters: int) -> bool:
    return bool(filters & (NO_DELETES if event.type == Event.DELETE else NO_PUTS))


def _encoded(event: Event, previous: bool) -> bytes:
    if previous or not event.HasField("prev_kv"):
        return event.SerializeToString()
    return Event(type=event.type, kv=event.kv).SerializeToString()
