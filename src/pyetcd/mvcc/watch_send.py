"""From batches of events to messages on streams, without ever holding much for a stream that does not read.

The wire says after each message how many bytes a stream has not taken yet. Past the backlog bound a stream
is *full* until the wire reports it writable; what a watcher on a full stream would get is not kept
anywhere: the watcher is *stalled* at the revision it has not been sent and catches up from the backend
later. So a slow stream costs its backlog bound and one message, however many watchers it has and however
long it sleeps.

Rules that hold here:

* Everything for one stream leaves in the order it was decided: control messages wait in a list that is sent
  before any events.
* A message to many streams is handed to the wire once (`send_fanout`); messages to single streams gather
  and go in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyetcd.mvcc.watch_group import Audience, Batch, Cohort, Group, Watcher
from pyetcd.mvcc.watch_seams import Header, Wire
from pyetcd.proto.splice import field_varint

GATHER_MESSAGES = 256  # messages to single streams in one call of the wire
GATHER_BYTES = 1 << 20
OVERRUN_FACTOR = 16  # a client that asks and asks but never reads is cut off at so many backlogs
TIMES_KEPT = 1000

_FRAGMENT = b"\x38\x01"  # WatchResponse.fragment = true

Stall = Callable[[Watcher, int], None]


class Sent(NamedTuple):
    """What left together, and what that took. `events` counts those of every message; 0: no events."""

    seconds: float
    messages: int
    events: int


class Sender:
    """The one who talks to the wire. `message_bytes_max` is where fragments are cut, `backlog_bytes_max`
    the wire's own bound.
    """

    def __init__(
        self,
        wire: Wire,
        header: Header,
        backlog_bytes_max: int,
        message_bytes_max: int,
        clock: Callable[[], float],
    ) -> None:
        self.full: set[int] = set()  # calls of streams that do not take more
        self.flushes = 0
        self.events_sent = 0
        self.messages_sent = 0
        self.times: list[Sent] = []  # for the metrics, which take them away; bounded
        self._clock = clock
        self.on_overrun: Callable[[int], object] = lambda call: None
        self._wire = wire
        self._header = header
        self._backlog_bytes_max = backlog_bytes_max
        self._message_bytes_max = message_bytes_max
        self._controls: list[tuple[int, bytes]] = []
        self._single: list[tuple[int, Sequence[bytes]]] = []
        self._single_bytes = 0

    @property
    def has_controls(self) -> bool:
        return bool(self._controls)

    def control(self, call: int, revision: int, fields: bytes) -> None:
        """Queue a message without events; `fields` follow the header."""
        self._controls.append((call, self._header(revision) + fields))

    def flush_controls(self) -> None:
        if self._controls:
            begun = self._clock()
            controls, self._controls = self._controls, []
            self.messages_sent += len(controls)
            overrun = self._backlog_bytes_max * OVERRUN_FACTOR
            for (call, _), backlog in zip(controls, self._wire.send_many(controls), strict=True):
                if backlog > self._backlog_bytes_max:
                    self.full.add(call)
                    if backlog > overrun:
                        self.on_overrun(call)
            self._note(begun, len(controls), 0)

    def _note(self, begun: float, messages: int, events: int) -> None:
        if messages and len(self.times) < TIMES_KEPT:
            self.times.append(Sent(self._clock() - begun, messages, events))

    def send(self, audience: Audience, stall: Stall, revision: int = 0, before: int = 0) -> None:
        """Send what an audience's groups have gathered.

        `revision` is the one in the header of each group's last message, the last event's if 0. With
        `before`, events of that revision and later are held back: it is not complete yet. `stall(watcher,
        revision)` is called for each watcher that is not sent the events from `revision` on, since its
        stream is full; it must leave the audience.
        """
        self.flush_controls()
        self.flushes += 1
        begun, messages, events = self._clock(), self.messages_sent, self.events_sent
        for group in audience.take_dirty():
            batches, group.batches = group.batches, []
            if before and batches[-1].last_revision >= before:
                group.batches.append(batches.pop())
                audience.dirty.append(group)
                audience.pending_bytes += group.batches[0].size
            for at, batch in enumerate(batches):
                last = at + 1 == len(batches) and not group.batches
                self._send_batch(group, batch, (revision if last else 0) or batch.last_revision, stall)
        self._send_singles()
        self._note(begun, self.messages_sent - messages, self.events_sent - events)

    def _send_batch(self, group: Group, batch: Batch, revision: int, stall: Stall) -> None:
        head = self._header(revision)
        group.sent = self.flushes
        if len(group.cohorts) > 1 and len(batch.parts) > 8 and not group.fragment:
            batch.parts = [b"".join(batch.parts)]
        for watch_id, cohort in list(group.cohorts.items()):
            if self.full:
                _stall_full(cohort, self.full, batch.first_revision, stall)
            calls = cohort.calls
            if not calls:
                continue
            self.events_sent += batch.count * len(calls)
            start = head + field_varint(2, watch_id)
            if group.fragment and len(start) + batch.size >= self._message_bytes_max:
                for body in fragments(start, batch.parts, self._message_bytes_max):
                    self._send_body(calls, body)
            else:
                self._send_body(calls, [start, *batch.parts])

    def _send_body(self, calls: list[int], body: list[bytes]) -> None:
        if len(calls) == 1:
            self._single.append((calls[0], body))
            self._single_bytes += sum(map(len, body))
            if len(self._single) >= GATHER_MESSAGES or self._single_bytes >= GATHER_BYTES:
                self._send_singles()
            return
        self.messages_sent += len(calls)
        backlogs = self._wire.send_fanout(calls, body)
        if max(backlogs) > self._backlog_bytes_max:
            self._note_full(calls, backlogs)

    def _send_singles(self) -> None:
        if self._single:
            single, self._single = self._single, []
            self._single_bytes = 0
            self.messages_sent += len(single)
            backlogs = self._wire.send_many(single)
            if max(backlogs) > self._backlog_bytes_max:
                self._note_full([call for call, _ in single], backlogs)

    def _note_full(self, calls: Sequence[int], backlogs: Sequence[int]) -> None:
        bound = self._backlog_bytes_max
        self.full.update(call for call, backlog in zip(calls, backlogs, strict=True) if backlog > bound)


def _stall_full(cohort: Cohort, full: set[int], revision: int, stall: Stall) -> None:
    for call in cohort.members.keys() & full:
        stall(cohort.members[call], revision)


def fragments(start: bytes, events: Sequence[bytes], message_bytes_max: int) -> list[list[bytes]]:
    """Split a response: as many events in each part as leave it below the bound, at least one; all parts
    but the last are marked. The bound and the marks are as in etcd's sendFragments
    (server/etcdserver/api/v3rpc/watch.go).
    """
    if len(events) < 2:
        return [[start, *events]]
    bodies: list[list[bytes]] = []
    body = [start, _FRAGMENT]
    size = len(start) + len(_FRAGMENT)
    for event in events:
        if len(body) > 2 and size + len(event) >= message_bytes_max:
            bodies.append(body)
            body = [start, _FRAGMENT]
            size = len(start) + len(_FRAGMENT)
        body.append(event)
        size += len(event)
    del body[1]
    bodies.append(body)
    return bodies
