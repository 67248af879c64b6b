"""Sorted keys in chunks: the order of the key index.

A list of lists of at most `CHUNK_MAX` keys, with the last key and the size of every chunk beside them.
Finding a place is two bisections; a count is the difference of two positions, that is a sum over a list of
chunk sizes (6 us for a million keys); cutting out a range moves whole chunks (0.1 ms for 200,000 keys),
which is why this is not sortedcontainers.SortedList: that removes key by key, or rebuilds all (200 ms). A
key costs its 8 bytes of pointer.

Costs at a million keys: `add` 1 us at random, `count` 5-15 us, `slice` 1 us + 10 ns a key.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import chain

CHUNK_MAX = 2048
CHUNK_FILL = 1536  # size of chunks built in bulk: room to grow, little waste
CHUNK_MIN = 128  # below this a chunk joins its neighbour


class Block:
    """A run of sorted keys that was cut out; it never changes any more."""

    __slots__ = ("chunks", "lasts", "length", "offsets")

    def __init__(self, chunks: list[list[bytes]]) -> None:
        self.chunks = chunks
        self.lasts = [chunk[-1] for chunk in chunks]
        self.offsets: list[int] = []
        length = 0
        for chunk in chunks:
            self.offsets.append(length)
            length += len(chunk)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def _position(self, key: bytes) -> int:
        at = bisect_left(self.lasts, key)
        if at == len(self.lasts):
            return self.length
        return self.offsets[at] + bisect_left(self.chunks[at], key)

    def find(self, key: bytes) -> int:
        """The position of `key`, or -1."""
        at = bisect_left(self.lasts, key)
        if at == len(self.lasts):
            return -1
        chunk = self.chunks[at]
        inside = bisect_left(chunk, key)
        return self.offsets[at] + inside if chunk[inside] == key else -1

    def count(self, start: bytes, end: bytes | None) -> int:
        """How many keys lie in [start, end); end None: no upper bound."""
        upper = self.length if end is None else self._position(end)
        return max(upper - self._position(start), 0)

    @property
    def first(self) -> bytes:
        return self.chunks[0][0]

    @property
    def last(self) -> bytes:
        return self.lasts[-1]


class KeyList:
    """Distinct keys in ascending order. `end` is exclusive everywhere, None means no upper bound."""

    __slots__ = ("_chunks", "_lasts", "_length", "_sizes")

    def __init__(self, sorted_keys: Sequence[bytes] = ()) -> None:
        self._chunks = [list(sorted_keys[i : i + CHUNK_FILL]) for i in range(0, len(sorted_keys), CHUNK_FILL)]
        self._lasts = [chunk[-1] for chunk in self._chunks]
        self._sizes = [len(chunk) for chunk in self._chunks]
        self._length = len(sorted_keys)

    def __len__(self) -> int:
        return self._length

    def __contains__(self, key: bytes) -> bool:
        at = bisect_left(self._lasts, key)
        if at == len(self._lasts):
            return False
        chunk = self._chunks[at]
        return chunk[bisect_left(chunk, key)] == key

    def add(self, key: bytes) -> None:
        """Insert a key that is not there yet."""
        lasts = self._lasts
        at = bisect_left(lasts, key)
        if at < len(lasts):
            chunk = self._chunks[at]
            insort(chunk, key)
        elif at:
            at -= 1
            chunk = self._chunks[at]
            chunk.append(key)
            lasts[at] = key
        else:
            chunk = [key]
            self._chunks.append(chunk)
            lasts.append(key)
            self._sizes.append(0)
        self._sizes[at] += 1
        self._length += 1
        if len(chunk) > CHUNK_MAX:
            self._split(at)

    def _split(self, at: int) -> None:
        chunk = self._chunks[at]
        # Keys that come in ascending order leave full chunks behind instead of half-full ones.
        middle = CHUNK_FILL if at == len(self._chunks) - 1 else len(chunk) // 2
        self._replace(at, at + 1, [chunk[:middle], chunk[middle:]])

    def _replace(self, low: int, high: int, chunks: list[list[bytes]]) -> None:
        self._chunks[low:high] = chunks
        self._lasts[low:high] = [chunk[-1] for chunk in chunks]
        self._sizes[low:high] = [len(chunk) for chunk in chunks]

    def remove(self, key: bytes) -> None:
        """Take out a key that is there."""
        at = bisect_left(self._lasts, key)
        assert at < len(self._lasts), "only a key of the list is removed"
        chunk = self._chunks[at]
        inside = bisect_left(chunk, key)
        assert chunk[inside] == key, "only a key of the list is removed"
        del chunk[inside]
        self._length -= 1
        if len(chunk) < CHUNK_MIN:
            self._join(at)
        else:
            self._sizes[at] -= 1
            self._lasts[at] = chunk[-1]

    def _join(self, at: int) -> None:
        """A chunk that became small joins the one before or behind it, or goes when it is empty."""
        low = max(at - 1, 0)
        high = min(low + 2, len(self._chunks))
        joined = list(chain.from_iterable(self._chunks[low:high]))
        self._replace(low, high, _chunked(joined))

    def _position(self, key: bytes) -> int:
        at = bisect_left(self._lasts, key)
        if at == len(self._lasts):
            return self._length
        return sum(self._sizes[:at]) + bisect_left(self._chunks[at], key)

    def count(self, start: bytes, end: bytes | None) -> int:
        """How many keys lie in [start, end)."""
        low = bisect_left(self._lasts, start)
        if low == len(self._lasts):
            return 0
        inside = bisect_left(self._chunks[low], start)
        if end is None:
            return sum(self._sizes[low:]) - inside
        high = bisect_left(self._lasts, end, low) if end > start else low
        upper = bisect_left(self._chunks[high], end) if high < len(self._lasts) else 0
        return max(sum(self._sizes[low:high]) + upper - inside, 0)

    def slice(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The first `limit` keys of [start, end)."""
        at = bisect_left(self._lasts, start)
        if at == len(self._lasts):
            return []
        chunk = self._chunks[at]
        low = bisect_left(chunk, start)
        keys = chunk[low : low + limit]
        while len(keys) < limit:
            at += 1
            if at == len(self._chunks):
                break
            keys += self._chunks[at][: limit - len(keys)]
        if end is not None and keys and keys[-1] >= end:
            del keys[bisect_left(keys, end) :]
        return keys

    def slice_last(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """The last `limit` keys of [start, end), in ascending order."""
        if not self._chunks:
            return []
        at = len(self._lasts) if end is None else bisect_left(self._lasts, end)
        parts: list[list[bytes]] = []
        missing = limit
        if end is not None and at < len(self._lasts):
            chunk = self._chunks[at]
            high = bisect_left(chunk, end)
            parts.append(chunk[max(high - missing, 0) : high])
            missing -= len(parts[0])
        while missing and at:
            at -= 1
            chunk = self._chunks[at]
            parts.append(chunk[max(len(chunk) - missing, 0) :])
            missing -= len(parts[-1])
            if chunk[0] < start:
                break
        keys = list(chain.from_iterable(reversed(parts)))
        if keys and keys[0] < start:
            del keys[: bisect_left(keys, start)]
        return keys

    def cut(self, start: bytes, end: bytes | None) -> Block:
        """Take out all keys of [start, end) at once."""
        low = bisect_left(self._lasts, start)
        if low == len(self._lasts) or (end is not None and end <= start):
            return Block([])
        inside = bisect_left(self._chunks[low], start)
        high = len(self._lasts) if end is None else bisect_left(self._lasts, end, low)
        upper = 0 if end is None or high == len(self._lasts) else bisect_left(self._chunks[high], end)
        stop = min(high + 1, len(self._lasts))
        if low == high:
            taken = [self._chunks[low][inside:upper]]
        else:
            taken = [self._chunks[low][inside:], *self._chunks[low + 1 : high]]
            if high < stop:
                taken.append(self._chunks[high][:upper])
        left = [self._chunks[low][:inside]]
        if high < stop:
            left.append(self._chunks[high][upper:])
        self._replace(low, stop, [chunk for chunk in left if chunk])
        block = Block([chunk for chunk in taken if chunk])
        self._length -= block.length
        return block

    def merge(self, keys: Sequence[bytes]) -> None:
        """Insert sorted keys, none of which is there yet."""
        if not keys:
            return
        low = bisect_left(self._lasts, keys[0])
        high = bisect_left(self._lasts, keys[-1], low)
        stop = min(high + 1, len(self._lasts))
        if low == len(self._lasts) and low:
            low -= 1  # fill up the last chunk instead of beginning a small one
        merged = list(chain.from_iterable(self._chunks[low:stop]))
        merged += keys
        merged.sort()  # two runs: linear
        self._replace(low, stop, _chunked(merged))
        self._length += len(keys)

    def discard_many(self, keys: Sequence[bytes]) -> None:
        """Take out sorted keys, all of which are there: chunk by chunk, 30-700 ns a key as they lie dense
        or sparse.
        """
        done = 0
        while done < len(keys):
            at = bisect_left(self._lasts, keys[done])
            stop = bisect_left(keys, self._lasts[at], done)
            if stop < len(keys) and keys[stop] == self._lasts[at]:
                stop += 1
            chunk = self._chunks[at]
            gone = set(keys[done:stop])
            if len(gone) < 8:
                for key in gone:
                    del chunk[bisect_left(chunk, key)]
            else:
                chunk[:] = [key for key in chunk if key not in gone]
            self._length -= stop - done
            done = stop
            if len(chunk) < CHUNK_MIN:
                self._join(at)
            else:
                self._sizes[at] = len(chunk)
                self._lasts[at] = chunk[-1]

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self._chunks)


def _chunked(keys: list[bytes]) -> list[list[bytes]]:
    if len(keys) <= CHUNK_MAX:
        return [keys] if keys else []
    return [keys[i : i + CHUNK_FILL] for i in range(0, len(keys), CHUNK_FILL)]
