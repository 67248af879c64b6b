"""What was written and is not committed yet: the layer of a backend that reads look into first.

Two shapes, because two kinds of writes come. Nearly all are revisions appended to the bucket `key`, each
greater than every key before: they go to `tail`, a dict that is sorted because it is filled in order.
Everything else is a put or a delete somewhere: it goes to `Changes`, one for each bucket, where None stands
for a deletion.
"""

from __future__ import annotations

from bisect import bisect_left

Row = tuple[bytes, bytes]


class Changes:
    """Puts and deletes of one bucket. Keys are put in order when somebody asks for it."""

    __slots__ = ("_keys", "_sorted", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self._keys: list[bytes] = []
        self._sorted = True

    def set(self, key: bytes, value: bytes | None) -> None:
        if key not in self.values:
            keys = self._keys
            if keys and key < keys[-1]:
                self._sorted = False
            keys.append(key)
        self.values[key] = value

    def keys(self) -> list[bytes]:
        """All changed keys in order; not to be modified."""
        if not self._sorted:
            self._keys.sort()
            self._sorted = True
        return self._keys

    def between(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The changed keys in [start, end), at most `limit` (0: all)."""
        keys = self.keys()
        first = bisect_left(keys, start)
        last = len(keys) if end is None else bisect_left(keys, end, first)
        return keys[first : min(last, first + limit) if limit else last]


class WriteBuffer:
    """One generation of writes."""

    __slots__ = ("_tail_keys", "changes", "tail")

    def __init__(self) -> None:
        self.tail: dict[bytes, bytes] = {}
        self.changes: dict[bytes, Changes] = {}
        self._tail_keys: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self.tail or self.changes)

    def change(self, bucket: bytes, key: bytes, value: bytes | None) -> None:
        changes = self.changes.get(bucket)
        if changes is None:
            changes = self.changes[bucket] = Changes()
        changes.set(key, value)

    def drop_from_tail(self, key: bytes) -> None:
        """Forget an appended key, if it is one."""
        if self.tail.pop(key, None) is not None:
            self._tail_keys = []

    def tail_keys(self) -> list[bytes]:
        """The appended keys in order; not to be modified."""
        keys = self._tail_keys
        if len(keys) != len(self.tail):
            if keys and len(keys) < len(self.tail):
                # Appended since: take over only those, from the end backwards.
                fresh = []
                for key in reversed(self.tail):
                    if key == keys[-1]:
                        break
                    fresh.append(key)
                keys += reversed(fresh)
            else:
                keys = self._tail_keys = list(self.tail)
        return keys

    def tail_between(self, start: bytes, end: bytes | None, limit: int) -> list[Row]:
        """Appended rows in [start, end), at most `limit` (0: all)."""
        tail = self.tail
        keys = self.tail_keys()
        first = bisect_left(keys, start)
        last = len(keys) if end is None else bisect_left(keys, end, first)
        if limit:
            last = min(last, first + limit)
        return [(key, tail[key]) for key in keys[first:last]]
