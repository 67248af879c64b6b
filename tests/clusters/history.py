"""What clients of a cluster asked and were told, and the check that one single history explains all of it.

etcd gives every write a revision and tells with every answer the revision it was made at. So no order has to
be searched for, as Wing and Gong or Porcupine do: the order is told, and has only to be believed or not.
`check` takes the log of all changes, as watchers have seen it, and raises `Violation` unless

* every acknowledged write stands in the log at the revision it was told, once, and nothing else does but
  writes whose outcome is unknown; a write that is known to have failed does not;
* every answer is what follows from the log at the revision it tells: values, versions, revisions of a key,
  all keys of a range at once, whether a compare held;
* revisions respect real time over all keys and members: what is asked after an answer has come is told no
  earlier revision, and a write a later one (serializable reads may be late).

Ordered by revision, writes before what was read there, the operations are thus one legal sequential history
that contains real-time order: strict serializability, of which linearizability of every key is a part.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

NEVER = float("inf")


class Violation(AssertionError):
    """A cluster broke a promise."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key as a read shows it."""

    key: bytes
    value: bytes
    created: int
    modified: int
    version: int


class Kind(Enum):
    PUT = "put"
    DELETE = "delete"
    SWAP = "put if the key was last modified at a revision"  # 0: if there is no key
    READ = "read"
    READ_ALL = "read of all keys"
    STALE_READ = "serializable read"


class Outcome(Enum):
    OK = "ok"
    FAILED = "failed"  # certainly without any effect
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Operation:
    """One request. `value` is unique among all requests. Times are of one clock; what has no answer has no
    `returned`. `changed`: whether the answer says that something was written. `found`: what it shows."""

    kind: Kind
    key: bytes
    invoked: float
    value: bytes = b""
    expected: int = 0
    asked: str = ""
    outcome: Outcome = Outcome.UNKNOWN
    returned: float = NEVER
    revision: int = 0
    changed: bool = False
    found: tuple[KeyState, ...] = ()
    error: str = ""


Changes = dict[bytes, bytes | None]
"""What one revision did: values put, None for keys deleted."""


class Log:
    """Every change after revision `first`, when none of the keys existed. Revisions have no gaps."""

    def __init__(self, first: int, revisions: Sequence[Changes]) -> None:
        self.first = first
        self.last = first + len(revisions)
        self._changes = {first + 1 + at: changes for at, changes in enumerate(revisions)}
        self._states: dict[bytes, list[tuple[int, KeyState | None]]] = defaultdict(list)
        for revision, changes in self._changes.items():
            for key, value in changes.items():
                self._note(revision, key, value)

    def _note(self, revision: int, key: bytes, value: bytes | None) -> None:
        history = self._states[key]
        old = history[-1][1] if history else None
        if value is None:
            if old is None:
                raise Violation(f"revision {revision} deletes {key!r}, which does not exist")
            history.append((revision, None))
        elif old is None:
            history.append((revision, KeyState(key, value, revision, revision, 1)))
        else:
            history.append((revision, KeyState(key, value, old.created, revision, old.version + 1)))

    def changes(self, revision: int) -> Changes:
        return self._changes.get(revision, {})

    def state(self, key: bytes, revision: int) -> KeyState | None:
        history = self._states.get(key, [])
        at = bisect.bisect_right(history, revision, key=lambda item: item[0])
        return history[at - 1][1] if at else None

    def states(self, prefix: bytes, revision: int) -> tuple[KeyState, ...]:
        found = (self.state(key, revision) for key in sorted(self._states) if key.startswith(prefix))
        return tuple(state for state in found if state is not None)

    def revisions(self) -> Iterable[tuple[int, Changes]]:
        return self._changes.items()


def check(log: Log, operations: Sequence[Operation], prefix: bytes) -> None:
    """Raises Violation unless `log` explains all `operations`. They are the only ones that write to keys with
    `prefix`."""
    floors = _floors(operations)
    written: dict[tuple[int, bytes], Operation] = {}
    by_value = {operation.value: operation for operation in operations if operation.value}
    for operation in operations:
        if operation.outcome is Outcome.OK:
            _check_time(operation, floors[id(operation)])
            _check_answer(log, operation, prefix)
            if operation.changed:
                place = operation.revision, operation.key
                if place in written:
                    raise Violation(f"one revision for two writes: {written[place]} and {operation}")
                written[place] = operation
    unexplained: dict[bytes, list[int]] = defaultdict(list)
    seen: dict[bytes, int] = {}
    for revision, changes in log.revisions():
        for key, value in changes.items():
            if not key.startswith(prefix):
                continue
            if value is not None:
                if value in seen:
                    raise Violation(
                        f"{by_value.get(value, value)} was done at {seen[value]} and at {revision}"
                    )
                seen[value] = revision
            if (revision, key) in written:
                continue  # `_check_answer` has compared it
            if value is None:
                unexplained[key].append(revision)
            else:
                _check_unacknowledged(by_value.get(value), key, value, revision, log, floors)
    for key, revisions in unexplained.items():
        _check_deletions(key, revisions, operations, floors)


def _floors(operations: Sequence[Operation]) -> dict[int, int]:
    """By `id` of the operation, the highest revision that anybody had been told when it was asked."""
    answers = sorted((o.returned, o.revision) for o in operations if o.outcome is Outcome.OK)
    floors: dict[int, int] = {}
    highest = at = 0
    for operation in sorted(operations, key=lambda o: o.invoked):
        while at < len(answers) and answers[at][0] < operation.invoked:
            highest = max(highest, answers[at][1])
            at += 1
        floors[id(operation)] = highest
    return floors


def _check_time(operation: Operation, floor: int) -> None:
    if operation.kind is Kind.STALE_READ:
        return
    if operation.revision < floor or (operation.changed and operation.revision == floor):
        raise Violation(f"revision {floor} had been told before this was asked: {operation}")


def _check_answer(log: Log, operation: Operation, prefix: bytes) -> None:
    """An answer follows from the log at its revision."""
    kind, key, revision = operation.kind, operation.key, operation.revision
    if not log.first <= revision <= log.last:
        raise Violation(f"the log ends at {log.last}, beyond which is {operation}")
    before = log.state(key, revision - 1)
    if operation.changed:
        wanted = None if kind is Kind.DELETE else operation.value
        if log.changes(revision).get(key, b"") != wanted:
            raise Violation(f"lost or altered: {operation}; at {revision} is {log.changes(revision)}")
        if kind is Kind.SWAP and (before.modified if before else 0) != operation.expected:
            raise Violation(f"its compare cannot have held, before it was {before}: {operation}")
        return
    now = log.states(prefix, revision) if kind is Kind.READ_ALL else _alone(log.state(key, revision))
    if operation.found != now:
        raise Violation(f"at revision {revision} there was {now}, but: {operation}")
    if kind is Kind.SWAP and (now[0].modified if now else 0) == operation.expected:
        raise Violation(f"its compare must have held: {operation}")
    if kind is Kind.PUT:
        raise Violation(f"a put is always a change: {operation}")


def _alone(state: KeyState | None) -> tuple[KeyState, ...]:
    return () if state is None else (state,)


def _check_unacknowledged(
    operation: Operation | None, key: bytes, value: bytes, revision: int, log: Log, floors: Mapping[int, int]
) -> None:
    """A value nobody was told of is that of a write of unknown outcome, which may have been done."""
    if operation is None or operation.key != key:
        raise Violation(f"nobody has written {value!r} to {key!r}, which stands at revision {revision}")
    if operation.outcome is not Outcome.UNKNOWN:
        raise Violation(f"stands at revision {revision}: {operation}")
    if revision <= floors[id(operation)]:
        raise Violation(f"stands at {revision}, before it was asked: {operation}")
    before = log.state(key, revision - 1)
    if operation.kind is Kind.SWAP and (before.modified if before else 0) != operation.expected:
        raise Violation(f"its compare cannot have held at {revision}: {operation}")


def _check_deletions(
    key: bytes, revisions: Sequence[int], operations: Sequence[Operation], floors: Mapping[int, int]
) -> None:
    """Deletions nobody was told of: for each there is a request of unknown outcome, asked early enough."""
    asked = sorted(
        floors[id(o)]
        for o in operations
        if o.kind is Kind.DELETE and o.key == key and o.outcome is Outcome.UNKNOWN
    )
    for count, revision in enumerate(sorted(revisions), 1):
        if bisect.bisect_left(asked, revision) < count:
            raise Violation(f"nobody has asked for the deletion of {key!r} at revision {revision}")


Watched = Sequence[tuple[int, Changes]]
"""Revisions and their changes, as one watcher was told them, over all its connections."""


def merge(first: int, last: int, complete: Mapping[str, Watched], others: Mapping[str, Watched]) -> Log:
    """The log that all watchers have seen from revision `first` + 1 on: each revision once, in order, none
    left out, the same by all. `complete` must have come to `last`; `others` may have ended anywhere."""
    longest: Watched = ()
    for name, watched in {**complete, **others}.items():
        for at, (revision, changes) in enumerate(watched):
            if revision != first + 1 + at:
                raise Violation(f"the watcher of {name} was told {revision} where {first + 1 + at} is due")
            if at < len(longest) and longest[at][1] != changes:
                told = f"the watcher of {name} was told {changes}, others {longest[at][1]}"
                raise Violation(f"at revision {revision} {told}")
        if len(watched) > len(longest):
            longest = watched
    for name, watched in complete.items():
        if len(watched) < last - first:
            raise Violation(f"the watcher of {name} came to {first + len(watched)} instead of {last}")
    return Log(first, [changes for _, changes in longest])
