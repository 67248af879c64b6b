"""Which prefixes change most, counted in bounded memory.

The algorithm is Space-Saving (Metwally, Agrawal, El Abbadi 2005): a new prefix that finds no room takes the
place and the count of the one counted least, so that whatever makes up more than 1/CAPACITY of all changes is
among those kept, and is never counted too low. Counts fade with time, by a half in HALF_LIFE_SECONDS, so that
what is hot is what is hot now.
"""

from __future__ import annotations

import math
from threading import Lock

CAPACITY = 256
PREFIX_BYTES_MAX = 128
HALF_LIFE_SECONDS = 5.0
FADING = math.log(2) / HALF_LIFE_SECONDS  # a second
TOO_SMALL = 1e-3  # a count that is none any more


def prefix_of(key: bytes, depth: int) -> bytes:
    """The first `depth` parts of a key as far as `/` ends them, its first slash not counted; a key without
    parts is its own prefix."""
    end = at = 1 if key.startswith(b"/") else 0
    for _ in range(depth):
        at = key.find(b"/", at) + 1
        if not at:
            break
        end = at
    return (key if end < 2 else key[:end])[:PREFIX_BYTES_MAX]


class HotPrefixes:
    """Counts changes by prefix, from one thread, and is asked by another."""

    def __init__(self, depth: int, now: float) -> None:
        """`now` and later moments: seconds of a clock that never goes back."""
        self._depth = depth
        self._counts: dict[bytes, float] = {}
        self._all = 0.0
        self._began = self._faded = now
        self._lock = Lock()

    def count(self, keys: list[bytes]) -> None:
        with self._lock:
            for key in keys:
                self._count(prefix_of(key, self._depth))

    def _count(self, prefix: bytes) -> None:
        counts = self._counts
        self._all += 1
        if prefix in counts:
            counts[prefix] += 1
        elif len(counts) < CAPACITY:
            counts[prefix] = 1.0
        else:
            least = min(counts, key=counts.__getitem__)
            counts[prefix] = counts.pop(least) + 1

    def hottest(self, most: int, now: float) -> tuple[list[tuple[bytes, float]], float]:
        """Up to `most` prefixes with their changes a second, and those of all prefixes."""
        with self._lock:
            self._fade(now)
            # A steady rate has this count for each change a second.
            share = -math.expm1(-FADING * (now - self._began)) / FADING
            ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:most]
            if share <= 0:
                return [], 0.0
            return [(prefix, count / share) for prefix, count in ordered], self._all / share

    def _fade(self, now: float) -> None:
        factor = math.exp(-FADING * (now - self._faded))
        self._faded = now
        self._all *= factor
        faded = ((prefix, count * factor) for prefix, count in self._counts.items())
        self._counts = {prefix: count for prefix, count in faded if count > TOO_SMALL}
