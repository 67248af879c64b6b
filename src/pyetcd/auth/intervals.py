"""Sets of keys, as permissions describe them: single keys, ranges, and ranges without an end.

Permissions that touch or overlap are one range here, so a question is one search (etcd keeps a tree of them
and walks it, to the same answers).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

OPEN_END = b"\x00"  # as a range end: everything from the key on


class Intervals:
    """Disjoint ranges [begin, end) in ascending order; an end of None is none."""

    __slots__ = ("_begins", "_ends")

    def __init__(self, permissions: Iterable[tuple[bytes, bytes]]) -> None:
        """`permissions`: key and range end, as in a permission or request."""
        begins: list[bytes] = []
        ends: list[bytes | None] = []
        for begin, end in sorted(map(_interval, permissions), key=_begin):
            if begins and _reaches(ends[-1], begin):
                if not _reaches(ends[-1], end):
                    ends[-1] = end
            else:
                begins.append(begin)
                ends.append(end)
        self._begins = begins
        self._ends = ends

    def has_key(self, key: bytes) -> bool:
        at = bisect_right(self._begins, key) - 1
        if at < 0:
            return False
        end = self._ends[at]
        return end is None or key < end

    def has_range(self, key: bytes, range_end: bytes) -> bool:
        """Whether all of a request's range is in the set. An empty `range_end` means the key alone."""
        if not range_end:
            return self.has_key(key)
        at = bisect_right(self._begins, key) - 1
        if at < 0:
            return False
        end = self._ends[at]
        if end is None:
            return True
        return range_end != OPEN_END and key < end and range_end <= end


def _interval(permission: tuple[bytes, bytes]) -> tuple[bytes, bytes | None]:
    key, range_end = permission
    if not range_end:
        return key, key + b"\x00"
    return key, None if range_end == OPEN_END else range_end


def _begin(interval: tuple[bytes, bytes | None]) -> bytes:
    return interval[0]


def _reaches(end: bytes | None, other: bytes | None) -> bool:
    """Whether a range with this end goes as far as `other`."""
    return end is None or (other is not None and end >= other)


def is_range(key: bytes, range_end: bytes) -> bool:
    """Whether a permission may have this key and range end."""
    return bool(key) and (not range_end or key < range_end or range_end == OPEN_END)
