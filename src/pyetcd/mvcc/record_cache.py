"""The records last written or read, by revision number: what a get or the next put of the same key needs.

Two generations of bounded bytes: new records go to the young one; when it is full it becomes the old one
and the old one is dropped. So every operation is a dict operation, nothing is moved, and memory stays below
twice `GENERATION_BYTES` plus one record.
"""

from __future__ import annotations

from typing import Final

GENERATION_BYTES = 8 << 20
OVERHEAD_BYTES: Final = 160  # bytes object, int and dict entry beside the payload


class RecordCache:
    """revision number → record bytes."""

    __slots__ = ("_left", "generation_bytes", "old", "young")

    def __init__(self, generation_bytes: int = GENERATION_BYTES) -> None:
        self.generation_bytes = generation_bytes
        self.young: dict[int, bytes] = {}
        self.old: dict[int, bytes] = {}
        self._left = generation_bytes

    def put(self, revision: int, record: bytes) -> None:
        """0.2 us."""
        self.young[revision] = record
        self._left -= len(record) + OVERHEAD_BYTES
        if self._left < 0:
            self.old = self.young
            self.young = {}
            self._left = self.generation_bytes

    def get(self, revision: int) -> bytes | None:
        """0.1 us."""
        return self.young.get(revision) or self.old.get(revision)
