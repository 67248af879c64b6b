"""Is a request one that may be proposed? Pure functions that raise etcd's own errors
(server/etcdserver/api/v3rpc/key.go).

Beyond etcd, one thing is refused here that etcd lets through and then dies of on every member, at every
start: a put with ignore_value or ignore_lease that comes after a from-key deletion (range_end "\\0") of its
key in the same transaction. Etcd's check of overlaps takes the "\\0" for an end like any other, so to it
such a deletion deletes nothing; the same put behind any other deletion is a duplicate key, and so it is
here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from pyetcd.mvcc.ranges import default_order, has_filters
from pyetcd.proto import errors
from pyetcd.proto.errors import UNIMPLEMENTED, EtcdError
from pyetcd.proto.rpc_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

PUT, RANGE, DELETE, NESTED = "request_put", "request_range", "request_delete_range", "request_txn"
MAX_SORT_ORDER = 2
MAX_SORT_TARGET = 4


def check_range(request: RangeRequest) -> None:
    """EMPTY_KEY or INVALID_SORT_OPTION."""
    if not request.key:
        raise errors.EMPTY_KEY
    if not 0 <= request.sort_order <= MAX_SORT_ORDER or not 0 <= request.sort_target <= MAX_SORT_TARGET:
        raise errors.INVALID_SORT_OPTION


def check_range_stream(request: RangeRequest) -> None:
    """As `check_range`; and a stream is in key order and unfiltered."""
    check_range(request)
    if not default_order(request):
        raise EtcdError(UNIMPLEMENTED, "RangeStream does not support custom sort orders")
    if has_filters(request):
        raise EtcdError(UNIMPLEMENTED, "RangeStream does not support revision filters")


def check_put(request: PutRequest) -> None:
    """EMPTY_KEY, VALUE_PROVIDED or LEASE_PROVIDED."""
    if not request.key:
        raise errors.EMPTY_KEY
    if request.ignore_value and request.value:
        raise errors.VALUE_PROVIDED
    if request.ignore_lease and request.lease:
        raise errors.LEASE_PROVIDED


def check_delete_range(request: DeleteRangeRequest) -> None:
    """EMPTY_KEY."""
    if not request.key:
        raise errors.EMPTY_KEY


def check_txn(request: TxnRequest, max_ops: int) -> None:
    """TOO_MANY_OPS, DUPLICATE_KEY, or what one of its requests is wrong with. An empty operation is
    KEY_NOT_FOUND.
    """
    kinds: set[str] = set()
    if _check_operations(request, max_ops, kinds) < 2 and NESTED not in kinds:
        return  # one operation overlaps nothing: the update of one key, which most transactions are
    _check_overlaps(request.success)
    _check_overlaps(request.failure)
    if DELETE in kinds:
        _check_from_key(request.success, None)
        _check_from_key(request.failure, None)


def is_read_only(request: TxnRequest) -> bool:
    """Nothing but ranges: such a transaction does not go through the log. A nested transaction does, even
    if it only reads.
    """
    return all(operation.HasField("request_range") for operation in request.success) and all(
        operation.HasField("request_range") for operation in request.failure
    )


def is_serializable(request: TxnRequest) -> bool:
    """Is every range of a read-only transaction serializable?"""
    return all(
        operation.HasField("request_range") and operation.request_range.serializable
        for operations in (request.success, request.failure)
        for operation in operations
    )


def _check_operations(request: TxnRequest, max_ops: int, kinds: set[str]) -> int:
    """Returns the length of the longer branch, and adds to `kinds` what operations there are. Each level of
    nesting takes its own operations off the limit of those within it.
    """
    conditions, success, failure = request.compare, request.success, request.failure
    longer = max(len(success), len(failure))
    count = max(len(conditions), longer)
    if count > max_ops:
        raise errors.TOO_MANY_OPS
    for condition in conditions[:]:  # a list is walked in half the time
        if not condition.key:
            raise errors.EMPTY_KEY
    for operations in (success, failure):
        for operation in operations[:]:
            kind = operation.WhichOneof("request")
            if kind == PUT:
                check_put(operation.request_put)
            elif kind == RANGE:
                check_range(operation.request_range)
            elif kind == DELETE:
                check_delete_range(operation.request_delete_range)
            elif kind == NESTED:
                _check_operations(operation.request_txn, max_ops - count, kinds)
            else:
                raise errors.KEY_NOT_FOUND
            kinds.add(kind)
    return longer


class _Deleted:
    """Ranges a list of operations deletes, [start, end) each; what ends before it starts holds nothing."""

    def __init__(self) -> None:
        self._ranges: list[tuple[bytes, bytes]] = []
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []
        self._merged = 0

    def add(self, start: bytes, end: bytes) -> None:
        if start < end:
            self._ranges.append((start, end))

    def add_all(self, other: _Deleted) -> None:
        self._ranges += other._ranges

    def covers(self, key: bytes) -> bool:
        if not self._ranges:
            return False
        if self._merged != len(self._ranges):
            self._merge()
        at = bisect_right(self._starts, key)
        return at > 0 and key < self._ends[at - 1]

    def _merge(self) -> None:
        """Overlapping ranges become one, so that one bisection tells."""
        self._starts, self._ends = [], []
        for start, end in sorted(self._ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)
        self._merged = len(self._ranges)


def _check_overlaps(operations: Sequence[RequestOp]) -> tuple[set[bytes], _Deleted]:
    """No key is put twice, or put and deleted, on any path through `operations`. Returns what they may put
    and delete.
    """
    deleted = _Deleted()
    nested: list[TxnRequest] = []
    keys: list[bytes] = []
    for operation in operations:
        kind = operation.WhichOneof("request")
        if kind == PUT:
            keys.append(operation.request_put.key)
        elif kind == DELETE:
            deletion = operation.request_delete_range
            deleted.add(deletion.key, deletion.range_end or deletion.key + b"\0")
        elif kind == NESTED:
            nested.append(operation.request_txn)
    puts: set[bytes] = set()
    for inner in nested:
        _check_nested(inner, puts, deleted)
    for key in keys:
        if key in puts or deleted.covers(key):
            raise errors.DUPLICATE_KEY
        puts.add(key)
    return puts, deleted


def _check_nested(request: TxnRequest, puts: set[bytes], deleted: _Deleted) -> None:
    """Add the puts and deletions of one nested transaction; its two branches exclude each other."""
    puts_then, deleted_then = _check_overlaps(request.success)
    puts_else, deleted_else = _check_overlaps(request.failure)
    for key in puts_then | puts_else:
        if key in puts or deleted.covers(key):
            raise errors.DUPLICATE_KEY
    puts |= puts_then
    puts |= puts_else
    deleted.add_all(deleted_then)
    deleted.add_all(deleted_else)


def _check_from_key(operations: Sequence[RequestOp], deleted_from: bytes | None) -> bytes | None:
    """Follow the operations as they are executed; `deleted_from` is the lowest key from which on all may be
    deleted by now.
    """
    for operation in operations:
        kind = operation.WhichOneof("request")
        if kind == DELETE:
            deletion = operation.request_delete_range
            if deletion.range_end == b"\0":
                deleted_from = deletion.key if deleted_from is None else min(deleted_from, deletion.key)
        elif kind == PUT:
            put = operation.request_put
            if (
                deleted_from is not None
                and (put.ignore_value or put.ignore_lease)
                and put.key >= deleted_from
            ):
                raise errors.DUPLICATE_KEY
        elif kind == NESTED:
            then = _check_from_key(operation.request_txn.success, deleted_from)
            otherwise = _check_from_key(operation.request_txn.failure, deleted_from)
            deleted_from = min((key for key in (then, otherwise) if key is not None), default=None)
    return deleted_from
