"""RangeStream: one range in many messages.

The messages are cut as etcd cuts them (server/etcdserver/v3_server.go): the first holds up to 10 keys, and
each next one twice or half as many as long as a message stays below half, or above twice, the request size
limit. The revision is fixed with the first. Only the last message has a header, `more` and `count`; `count`
is that of the whole range from the start key on.

A sort target without an order sorts each message for itself. (etcd then goes on behind the key that happens
to be last, so that its later messages repeat or miss keys; here none is repeated or missed.)

A stream may be slow, so it pins nothing: when a compaction overtakes it, it fails with COMPACTED, as etcd's
does.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeAlias

from pyetcd.mvcc.ranges import KEY, MAX_INT64, Parts, kvs, resolve, sort_key, upper_end
from pyetcd.mvcc.reader import SLICE_KEYS, Reader
from pyetcd.mvcc.record import MORE
from pyetcd.mvcc.revision import bound_of
from pyetcd.proto import errors
from pyetcd.proto.rpc_pb2 import RangeRequest
from pyetcd.proto.splice import varint

FIRST_LIMIT = 10


class StreamMessage(NamedTuple):
    """One RangeResponse. `revision` is that of its header, 0 for a message without one (all but the last)."""

    revision: int
    body: Parts
    size: int  # of body, bytes


Stream: TypeAlias = Generator[StreamMessage | None, None, None]
"""Yields a message when it is complete, and None between slices."""


def range_stream(reader: Reader, request: RangeRequest, current: int, target_bytes: int) -> Stream:
    """Answer `request` at its revision, or at `current`. `target_bytes`: the request size limit.

    Raises COMPACTED or FUTURE_REVISION, at the start or when a compaction comes in between.
    """
    revision = resolve(request.revision, current, reader.compact_revision)
    bound = bound_of(revision)
    start, end = request.key, _end_of(request)
    if request.count_only:
        counting = reader.count(start, end, bound)
        count = yield from _unpinned(counting, revision, reader)
        parts = [b"\x20" + varint(count)] if count else []
        yield StreamMessage(current, parts, sum(map(len, parts)))
        return
    total_limit = request.limit if request.limit > 0 else MAX_INT64
    limit = (
        MAX_INT64 if request.limit < 0 else min(FIRST_LIMIT, total_limit)
    )  # negative: one message, as etcd
    sent = 0
    rows = _Rows(reader, start, end, bound, total_limit + 1)
    while True:
        while rows.slice_is_needed(limit):
            if revision < reader.compact_revision:
                raise errors.COMPACTED
            rows.read_slice()
            if len(rows.revisions) > SLICE_KEYS:
                yield None
        last_key, revisions = rows.take(limit)
        more = bool(rows.revisions)
        parts = []
        found: list[bytes] = []
        for at in range(0, len(revisions), SLICE_KEYS):
            if at:
                yield None
            if revision < reader.compact_revision:
                raise errors.COMPACTED
            records = reader.records(revisions[at : at + SLICE_KEYS])
            if request.sort_target == KEY:
                parts += kvs(request, records)
            else:
                found += records
        if found:
            order = [
                sort_key(request.sort_target, b"", revision, record)
                for revision, record in zip(revisions, found, strict=True)
            ]
            parts += kvs(request, [found[at] for at in sorted(range(len(found)), key=order.__getitem__)])
        size = sum(map(len, parts))
        sent += len(revisions)
        if not more or sent == total_limit:
            count = sent
            if more:
                parts.append(MORE)
                rest = reader.count(last_key + b"\0", end, bound)
                count += yield from _unpinned(rest, revision, reader)
            if count:
                parts.append(b"\x20" + varint(count))
            yield StreamMessage(current, parts, sum(map(len, parts)))
            return
        yield StreamMessage(0, parts, size)
        response_bytes = size + len(varint(current)) + len(varint(len(revisions) + 1)) + 6
        limit = min(_next_limit(limit, response_bytes, target_bytes), total_limit - sent)


class _Rows:
    """Rows read ahead: one more than a message takes, to know whether it is the last."""

    __slots__ = ("_exhausted", "_keys", "_rows", "revisions")

    def __init__(self, reader: Reader, start: bytes, end: bytes | None, bound: int, limit: int) -> None:
        self._rows = reader.rows(start, end, bound, limit)
        self._keys: list[bytes] = []
        self.revisions: list[int] = []
        self._exhausted = False

    def slice_is_needed(self, limit: int) -> bool:
        return not self._exhausted and len(self.revisions) <= limit

    def read_slice(self) -> None:
        found = next(self._rows, None)
        if found is None:
            self._exhausted = True
        else:
            self._keys += found[0]
            self.revisions += found[1]

    def take(self, limit: int) -> tuple[bytes, list[int]]:
        """The first `limit` rows: the last key of them, and their revision numbers."""
        revisions = self.revisions[:limit]
        last_key = self._keys[len(revisions) - 1] if revisions else b""
        del self.revisions[:limit], self._keys[:limit]
        return last_key, revisions


def _end_of(request: RangeRequest) -> bytes | None:
    return upper_end(request.range_end) if request.range_end else request.key + b"\0"


def _unpinned(job: Generator[None, None, int], revision: int, reader: Reader) -> Generator[None, None, int]:
    """Run a count that a compaction may overtake."""
    while True:
        try:
            next(job)
        except StopIteration as stop:
            count: int = stop.value
            return count
        yield None
        if revision < reader.compact_revision:
            raise errors.COMPACTED


def _next_limit(limit: int, last_bytes: int, target_bytes: int) -> int:
    if last_bytes < target_bytes // 2:
        return limit * 2
    if last_bytes > target_bytes * 2:
        return max(limit // 2, 1)
    return limit
