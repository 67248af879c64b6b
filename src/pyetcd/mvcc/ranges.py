"""Range: every option of a RangeRequest, answered as bytes.

The order of things is etcd's (server/etcdserver/txn/range.go), since its quirks are visible:

* the limit is applied while reading only when the order is the default one and no revision filter is given;
  else everything is read, filtered, sorted and then cut;
* a sort target other than KEY with no order means: first cut at limit + 1 in key order, then sort ascending
  by the target;
* `count` is the number of keys in the range at the revision, whatever filters and limit say;
* `more` is set only when a positive limit cut something off;
* keys_only is answered from the index, which knows no lease, unless the sort target is VALUE.

A range is one generator. The first slices run at once, so a small range never becomes a job.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from pyetcd.mvcc.answer import Answer, Job, Work
from pyetcd.mvcc.reader import MAX_ROWS, SLICE_KEYS, Reader
from pyetcd.mvcc.record import COUNT_ONE, KVS, MORE, without_value
from pyetcd.mvcc.revision import main_of, whole_main
from pyetcd.mvcc.sorting import SortedRows, TopRows
from pyetcd.proto import errors
from pyetcd.proto.rpc_pb2 import RangeRequest
from pyetcd.proto.splice import varint, view

AT_ONCE_SLICES = 4  # 1,024 keys, about 3 ms
TOP_ROWS = 1024  # up to this limit only the best rows so far are held while sorting
MAX_INT64: Final = (1 << 63) - 1

Parts: TypeAlias = list[bytes]
Row: TypeAlias = tuple[bytes | int, int]
"""Sort key and revision number."""

NONE, ASCEND, DESCEND = 0, 1, 2
KEY, VERSION, CREATE, MOD, VALUE = 0, 1, 2, 3, 4


def upper_end(range_end: bytes) -> bytes | None:
    """The exclusive end of a range of more than one key: None for "from key on" ("\\0")."""
    return None if range_end == b"\0" else range_end


def default_order(request: RangeRequest) -> bool:
    return request.sort_order == NONE or (request.sort_target == KEY and request.sort_order == ASCEND)


def has_filters(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def resolve(revision: int, current: int, compacted: int) -> int:
    """The main revision a request reads at. Raises COMPACTED or FUTURE_REVISION."""
    if revision > current:
        raise errors.FUTURE_REVISION
    if revision <= 0:
        revision = current
    if revision < compacted:
        raise errors.COMPACTED
    return revision


def run_at_once(job: Job[Parts], slices: int = AT_ONCE_SLICES) -> Parts | Job[Parts]:
    """The result if it takes few slices, else the job, begun."""
    try:
        for _ in range(slices):
            next(job)
    except StopIteration as stop:
        parts: Parts = stop.value
        return parts
    return job


def as_answer(revision: int, work: Parts | Job[Parts]) -> Work:
    if isinstance(work, list):
        return Answer(revision, work)
    return _answer_later(revision, work)


def _answer_later(revision: int, job: Job[Parts]) -> Job[Answer]:
    parts = yield from job
    return Answer(revision, parts)


class Ranges:
    """Answers ranges over one reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def body(self, request: RangeRequest, bound: int) -> Parts | Job[Parts]:
        """The fields of the RangeResponse behind its header, for the state at `bound`."""
        if not request.range_end:
            return self._single(request, bound)
        return run_at_once(self._range(request, bound))

    def _single(self, request: RangeRequest, bound: int) -> Parts:
        revision = self._reader.revision_of(request.key, bound)
        if not revision:
            return []
        if request.count_only:
            return [COUNT_ONE]
        records = self._reader.records([revision])
        if has_filters(request) and not _passes(request, records[0]):
            return [COUNT_ONE]
        return [*kvs(request, records), COUNT_ONE]

    def _range(self, request: RangeRequest, bound: int) -> Job[Parts]:
        reader = self._reader
        pin = whole_main(bound)
        reader.pins.add(pin)
        try:
            if request.count_only:
                count = yield from reader.count(request.key, upper_end(request.range_end), bound)
                return [b"\x20" + varint(count)] if count else []
            if default_order(request) and request.sort_target == KEY and not has_filters(request):
                return (yield from self._plain(request, bound))
            last = self._last(request, bound)
            if last is not None:
                return last
            return (yield from self._selected(request, bound))
        finally:
            reader.pins.remove(pin)

    def _plain(self, request: RangeRequest, bound: int) -> Job[Parts]:
        """Keys in order, cut at the limit: nothing is held but what is answered."""
        reader = self._reader
        start, end, limit = request.key, upper_end(request.range_end), request.limit
        total = reader.known_count(start, end, bound)
        if total is None and limit > 0:
            total = yield from reader.count(start, end, bound)
        wanted = MAX_ROWS if total is None else min(limit, total) if limit > 0 else total
        parts: Parts = []
        last = start
        found = 0
        for keys, revisions in reader.rows(start, end, bound, wanted):
            if keys:
                parts += kvs(request, reader.records(revisions))
                found += len(keys)
                last = keys[-1]
            if found < wanted:
                yield
        if total is None:
            total = found
        elif found < total:
            parts.append(MORE)
            reader.keep_count(last + b"\0", end, bound, total - found)
        if total:
            parts.append(b"\x20" + varint(total))
        return parts

    def _last(self, request: RangeRequest, bound: int) -> Parts | None:
        """The last few keys as of now, without reading those before them; None when that is not what is
        asked for.
        """
        index = self._reader.index
        limit = request.limit
        if (
            request.sort_target != KEY
            or not 0 < limit <= SLICE_KEYS
            or bound < index.top
            or has_filters(request)
        ):
            return None
        start, end = request.key, upper_end(request.range_end)
        total = index.keys.count(start, end)
        keys = index.keys.slice_last(start, end, min(limit, total))
        keys.reverse()
        parts = kvs(request, self._reader.records([index.live[key] for key in keys])) if keys else []
        if limit < total:
            parts.append(MORE)
        if total:
            parts.append(b"\x20" + varint(total))
        return parts

    def _selected(self, request: RangeRequest, bound: int) -> Job[Parts]:
        """The general way: read, filter, sort, cut."""
        reader = self._reader
        start, end, limit = request.key, upper_end(request.range_end), request.limit
        filtered = has_filters(request)
        total = yield from reader.count(start, end, bound)
        cut_early = default_order(request) and not filtered and 0 < limit < MAX_INT64
        descending = request.sort_order == DESCEND
        rows: TopRows[Row] | SortedRows[Row]
        rows = TopRows(limit, descending) if 0 < limit <= TOP_ROWS else SortedRows(descending)
        for keys, revisions in reader.rows(start, end, bound, limit + 1 if cut_early else MAX_ROWS):
            if keys:
                rows.add(self._sort_rows(request, keys, revisions, filtered))
            yield
        more = 0 < limit < rows.added
        left = limit if more else rows.added
        parts: Parts = []
        while left:
            taken = rows.take(min(left, SLICE_KEYS))
            left -= len(taken)
            parts += kvs(request, reader.records([revision for _, revision in taken]))
            yield
        while isinstance(rows, SortedRows) and rows.drop():
            yield
        if more:
            parts.append(MORE)
        if total:
            parts.append(b"\x20" + varint(total))
        return parts

    def _sort_rows(
        self, request: RangeRequest, keys: list[bytes], revisions: list[int], filtered: bool
    ) -> list[Row]:
        """(sort key, revision number) of the keys that pass the filters. Records are read only where they
        are needed.
        """
        target = request.sort_target
        if not filtered:
            if target == KEY:
                return list(zip(keys, revisions, strict=True))
            if target == MOD:
                return [(main_of(revision), revision) for revision in revisions]
        rows: list[Row] = []
        for key, revision, record in zip(keys, revisions, self._reader.records(revisions), strict=True):
            if filtered and not _passes(request, record):
                continue
            rows.append((sort_key(target, key, revision, record), revision))
        return rows


def sort_key(target: int, key: bytes, revision: int, record: bytes) -> bytes | int:
    """What a row is sorted by. `target`: a RangeRequest.SortTarget."""
    if target == KEY:
        return key
    if target == MOD:
        return main_of(revision)
    seen = view(record)
    if target == CREATE:
        return seen.create_revision
    if target == VERSION:
        return seen.version
    return record[seen.value_start : seen.value_end]


def _passes(request: RangeRequest, record: bytes) -> bool:
    seen = view(record)
    mod, created = seen.mod_revision, seen.create_revision
    if request.max_mod_revision and mod > request.max_mod_revision:
        return False
    if request.min_mod_revision and mod < request.min_mod_revision:
        return False
    if request.max_create_revision and created > request.max_create_revision:
        return False
    return not (request.min_create_revision and created < request.min_create_revision)


def kvs(request: RangeRequest, records: list[bytes]) -> Parts:
    """Field 2, `kvs`, for every record."""
    if request.keys_only:
        keep_lease = request.sort_target == VALUE
        records = [without_value(record, keep_lease) for record in records]
    return KVS.pack(records)
