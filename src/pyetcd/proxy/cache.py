"""Answers to ranges that clients may be given again: those that asked for serializable reads.

An answer at the latest revision is forgotten when a key within its range is written or deleted through this
proxy, or seen to change by a watch of it; what others write it does not know, as etcd's does not. One at an
older revision stays until that revision is compacted through this proxy. Bounded by entries, as etcd's, and
by bytes; the least recently used goes first. Answers are kept by whom they were given to, since what one
user may read another may not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from pyetcd.proto.errors import COMPACTED
from pyetcd.proto.rpc_pb2 import RangeRequest

ENTRIES_MAX: Final = 2048
BYTES_MAX: Final = 64 << 20
ENTRY_BYTES_MAX: Final = 4 << 20

Key = tuple[str, bytes]  # token, request
Span = tuple[bytes, bytes]


class RangeCache:
    """`hits`, `misses`: so far. `len()`: how many answers there are."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Key, tuple[bytes, Span | None]] = OrderedDict()
        self._by_key: dict[bytes, set[Key]] = {}
        self._by_span: dict[Span, set[Key]] = {}
        self._bytes = 0
        self._compacted = -1
        self._written = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, request: RangeRequest, token: str) -> bytes | None:
        """None: it is not known. COMPACTED where it cannot be known any more."""
        key = _key(request, token)
        if 0 < request.revision < self._compacted:
            self._remove(key)
            self.hits += 1
            raise COMPACTED
        known = self._answers.get(key)
        if known is None:
            self.misses += 1
            return None
        self.hits += 1
        self._answers.move_to_end(key)
        return known[0]

    def add(self, request: RangeRequest, token: str, answer: bytes, revision: int) -> None:
        """`revision`: the answer's. One that is older than what was written here since is not kept."""
        at_latest = request.revision <= 0
        if len(answer) > ENTRY_BYTES_MAX:
            return
        if revision < self._written if at_latest else request.revision <= self._compacted:
            return
        key = _key(request, token)
        self._remove(key)
        span = (request.key, request.range_end) if at_latest else None
        self._answers[key] = (answer, span)
        self._bytes += len(answer)
        if span is not None:
            if span[1]:
                self._by_span.setdefault(span, set()).add(key)
            else:
                self._by_key.setdefault(span[0], set()).add(key)
        while len(self._answers) > ENTRIES_MAX or self._bytes > BYTES_MAX:
            self._remove(next(iter(self._answers)))

    def invalidate(self, key: bytes, end: bytes = b"", revision: int = 0) -> None:
        """Something in this range has changed, at `revision` where that is known, or is about to."""
        self._written = max(self._written, revision)
        if not self._answers:
            return
        spans = [span for span in self._by_span if _meet(span, (key, end))]
        gone = [each for span in spans for each in self._by_span[span]]
        if end:
            for single in [single for single in self._by_key if _meet((single, b""), (key, end))]:
                gone += self._by_key[single]
        else:
            gone += self._by_key.get(key, ())
        for each in gone:
            self._remove(each)

    def compact(self, revision: int) -> None:
        self._compacted = max(self._compacted, revision)

    def _remove(self, key: Key) -> None:
        known = self._answers.pop(key, None)
        if known is None:
            return
        answer, span = known
        self._bytes -= len(answer)
        if span is None:
            return
        if span[1]:
            keys = self._by_span[span]
            keys.discard(key)
            if not keys:
                del self._by_span[span]
        else:
            keys = self._by_key[span[0]]
            keys.discard(key)
            if not keys:
                del self._by_key[span[0]]


def _key(request: RangeRequest, token: str) -> Key:
    """The same whether the request was serializable or not."""
    if request.serializable:
        return token, request.SerializeToString(deterministic=True)
    copy = RangeRequest()
    copy.CopyFrom(request)
    copy.serializable = True
    return token, copy.SerializeToString(deterministic=True)


def _meet(one: Span, other: Span) -> bool:
    """Whether two ranges have a key in common. Without an end it is one key; `\\0` is the end of all."""
    return _begins_before(one, other) and _begins_before(other, one)


def _begins_before(one: Span, other: Span) -> bool:
    """Whether `one` begins before `other` is over."""
    key, end = other
    if not end:
        return one[0] <= key
    return end == b"\0" or one[0] < end
