"""Txn: compare, check, execute; and DeleteRange, which shares the last.

A transaction first takes its path: the compares of every transaction on it are evaluated on the state
before it. Then the whole path is checked, and only then anything is written (etcd
server/etcdserver/txn/txn.go). What can still fail in etcd while executing, and kills every member there, is
checked here: an operation without a request, a put with ignore_value or ignore_lease whose key an earlier
operation of the same transaction has deleted, a lease that is gone.

Answers inside an answer carry a header with the revision only; that of a nested transaction is empty.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

from pyetcd.mvcc.answer import Answer, Applied, Job, Unfinished, Work, finish, started
from pyetcd.mvcc.ranges import Parts, Ranges, resolve, upper_end
from pyetcd.mvcc.reader import Reader
from pyetcd.mvcc.record import PREV_KV, PREV_KVS, value_of
from pyetcd.mvcc.revision import bound_of, main_of, whole_main
from pyetcd.mvcc.seams import LeaseBook
from pyetcd.mvcc.txn_answer import DELETE_TAG, EMPTY_HEADER, PUT_TAG, RANGE_TAG, TXN_TAG, Pieces, answer_of
from pyetcd.mvcc.txn_compare import MOD, missing_holds, record_holds, satisfies
from pyetcd.mvcc.writer import AT_ONCE_KEYS, Writer
from pyetcd.proto import errors
from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from pyetcd.proto.splice import varint, view

AT_ONCE_SLICES = 4


class Path:
    """The branch a transaction takes: its operations in order, a transaction within it as its own path."""

    __slots__ = ("compared", "operations", "succeeded")

    def __init__(self, succeeded: bool, compared: int) -> None:
        self.succeeded = succeeded
        self.compared = compared  # conditions looked at, those of inner transactions too
        self.operations: list[RangeRequest | PutRequest | DeleteRangeRequest | Path] = []


Body: TypeAlias = Parts | Job[Parts]
Result = TypeVar("Result")


class Transactions:
    """Executes transactions and deletions on one store."""

    def __init__(self, writer: Writer, reader: Reader, ranges: Ranges, leases: LeaseBook) -> None:
        self._writer = writer
        self._reader = reader
        self._ranges = ranges
        self._leases = leases
        # As etcd counts: a look at a condition or a previous value is a range, and whatever did more than one
        # operation a transaction. The conditions of one that writes are a transaction by themselves.
        self.transactions = 0
        self.range_operations = 0
        self._header_revision = 0
        self._header_bytes = b""

    def go_on_from(self, before: Transactions) -> None:
        """Count on."""
        self.transactions, self.range_operations = before.transactions, before.range_operations

    def write(self, request: TxnRequest, answered: bool = True) -> Applied:
        """Apply a transaction. Raises EtcdError with nothing changed. Where nobody is `answered`, nothing is
        read for the answer.
        """
        path = self._plain_path(request, self._writer.bound)
        if path is not None:
            return self._write(path, answered)
        steps = self._write_steps(request, answered)
        applied = _at_once(steps)
        return Unfinished(steps) if applied is None else applied

    def _write_steps(
        self, request: TxnRequest, answered: bool
    ) -> Generator[None, None, Answer | Job[Answer]]:
        return self._write((yield from self._path(request, self._writer.bound)), answered)

    def _write(self, path: Path, answered: bool) -> Answer | Job[Answer]:
        before = self._operations()
        self.range_operations += path.compared
        try:
            self._check(path, [])
        finally:
            self._count_transaction(before)
        before = self._operations()
        pieces = self._execute(path, None, answered)
        self._count_transaction(before)
        self._writer.end()
        return answer_of(self._writer.revision, pieces)

    def _operations(self) -> int:
        return self.range_operations + self._writer.puts + self._writer.deletes

    def _count_transaction(self, operations_before: int) -> None:
        if self._operations() - operations_before > 1:
            self.transactions += 1

    def read(self, request: TxnRequest) -> Work:
        """Answer a read-only transaction, all of it at the current revision."""
        job = self._read_steps(request)
        answer = _at_once(job)
        return job if answer is None else answer

    def _read_steps(self, request: TxnRequest) -> Job[Answer]:
        revision = self._writer.revision
        self._reader.pins.add(revision)
        try:
            path = yield from self._path(request, bound_of(revision))
            before = self._operations()
            self.range_operations += path.compared
            try:
                self._check(path, [])
                pieces = self._execute(path, revision)
            finally:
                self._count_transaction(before)
            work = answer_of(revision, pieces)
            return work if isinstance(work, Answer) else (yield from work)
        finally:
            self._reader.pins.remove(revision)

    # Compare

    def _plain_path(self, request: TxnRequest, bound: int) -> Path | None:
        """The path if it can be told at once: no condition is on a range, and no transaction within. Most are
        like that, and a generator would cost them a tenth of their time.
        """
        succeeded = True
        compared = 0
        for compare in request.compare[:]:
            if compare.range_end:
                return None
            compared += 1
            if not self._holds(compare, bound):
                succeeded = False
                break
        path = Path(succeeded, compared)
        for operation in (request.success if succeeded else request.failure)[:]:
            inner = _request_of(operation)
            if isinstance(inner, TxnRequest):
                return None
            path.operations.append(inner)
        return path

    def _path(self, request: TxnRequest, bound: int) -> Job[Path]:
        succeeded = True
        compared = 0
        for compare in request.compare:
            compared += 1
            if compare.range_end:
                succeeded = yield from self._range_holds(compare, bound)
            else:
                succeeded = self._holds(compare, bound)
            if not succeeded:
                break
        path = Path(succeeded, compared)
        for operation in request.success if succeeded else request.failure:
            request_within = _request_of(operation)
            if isinstance(request_within, TxnRequest):
                inner = yield from self._path(request_within, bound)
                path.compared += inner.compared
                path.operations.append(inner)
            else:
                path.operations.append(request_within)
        return path

    def _holds(self, compare: Compare, bound: int) -> bool:
        revision = self._reader.revision_of(compare.key, bound)
        if not revision:
            return missing_holds(compare)
        if compare.target == MOD:
            return satisfies(compare.result, main_of(revision), compare.mod_revision)
        return record_holds(compare, self._reader.record(revision))

    def _range_holds(self, compare: Compare, bound: int) -> Job[bool]:
        """Do all keys of a range compare so?"""
        empty = True
        for keys, revisions in self._reader.rows(compare.key, upper_end(compare.range_end), bound):
            if keys:
                empty = False
                if not all(record_holds(compare, record) for record in self._reader.records(revisions)):
                    return False
            yield
        return missing_holds(compare) if empty else True

    # Check

    def _check(self, path: Path, deleted: list[DeleteRangeRequest]) -> None:
        """Raise what executing `path` would fail with. `deleted`: the deletions that come before it."""
        for operation in path.operations:
            if isinstance(operation, PutRequest):
                self.check_put(operation)
                if deleted and (operation.ignore_value or operation.ignore_lease):
                    _check_not_deleted(operation.key, deleted)
            elif isinstance(operation, RangeRequest):
                self._check_revision(operation.revision)
            elif isinstance(operation, DeleteRangeRequest):
                deleted.append(operation)
            else:
                self._check(operation, deleted)

    def _check_revision(self, revision: int) -> None:
        """Not `resolve`: within a transaction a negative revision counts as compacted once anything is."""
        if revision > self._writer.revision:
            raise errors.FUTURE_REVISION
        if revision and revision < self._reader.compact_revision:
            raise errors.COMPACTED

    def check_put(self, request: PutRequest) -> None:
        """LEASE_NOT_FOUND, or KEY_NOT_FOUND for a put that takes over from a key that is not there."""
        if request.lease and not self._leases.exists(request.lease):
            raise errors.LEASE_NOT_FOUND
        if request.prev_kv or request.ignore_value or request.ignore_lease:
            self.range_operations += 1
        if request.ignore_value or request.ignore_lease:
            record = self._reader.record_at(request.key, self._writer.bound)
            if record is None:
                raise errors.KEY_NOT_FOUND
            if request.ignore_lease:
                lease = view(record).lease
                if lease and lease != self._leases.lease_of(request.key) and not self._leases.exists(lease):
                    raise errors.LEASE_NOT_FOUND

    # Execute

    def _execute(self, path: Path, read_at: int | None, answered: bool = True) -> Pieces:
        """`read_at`: the revision of a read-only transaction; None for one that may write."""
        pieces = Pieces(path.succeeded)
        for operation in path.operations:
            body: Parts | Job[Parts] | Pieces
            if isinstance(operation, PutRequest):
                tag, body = PUT_TAG, self._put_body(operation)
            elif isinstance(operation, RangeRequest):
                tag, body = RANGE_TAG, self._range_body(operation, read_at) if answered else []
            elif isinstance(operation, DeleteRangeRequest):
                tag, body = DELETE_TAG, self.delete_body(operation)
            else:
                pieces.pieces.append((TXN_TAG, EMPTY_HEADER, self._execute(operation, read_at, answered)))
                continue
            header = self._header(self._writer.seen_revision if read_at is None else read_at)
            pieces.pieces.append((tag, header, body))
        return pieces

    def _header(self, revision: int) -> bytes:
        """Field 1 of an inner response: a ResponseHeader with nothing but the revision."""
        if revision != self._header_revision:
            number = varint(revision)
            self._header_revision = revision
            self._header_bytes = bytes((0x0A, len(number) + 1, 0x18)) + number
        return self._header_bytes

    def _range_body(self, request: RangeRequest, read_at: int | None) -> Body:
        self.range_operations += 1
        if read_at is None:
            seen, bound = self._writer.seen_revision, self._writer.bound
        else:
            seen, bound = read_at, bound_of(read_at)
        revision = resolve(request.revision, seen, self._reader.compact_revision)
        return self._ranges.body(request, bound if revision == seen else bound_of(revision))

    def put(self, request: PutRequest) -> Parts:
        """Check and write a put with flags, which is a transaction to etcd's count; the fields of the
        PutResponse behind its header. Raises LEASE_NOT_FOUND or KEY_NOT_FOUND with nothing changed.
        """
        self.check_put(request)
        self.transactions += 1
        return self._put_over(request)

    def _put_body(self, request: PutRequest) -> Parts:
        """Write a checked put; the fields of the PutResponse behind its header."""
        if not (request.prev_kv or request.ignore_value or request.ignore_lease):
            self._writer.put(request.key, request.value, request.lease)
            return []
        self.range_operations += 1
        return self._put_over(request)

    def _put_over(self, request: PutRequest) -> Parts:
        """`_put_body` where it depends on what is there."""
        writer = self._writer
        value, lease = request.value, request.lease
        parts: Parts = []
        record = self._reader.record_at(request.key, writer.bound)
        if record is not None:
            if request.ignore_value:
                value = value_of(record)
            if request.ignore_lease:
                lease = view(record).lease
            if request.prev_kv:
                parts = PREV_KV.pack([record])
        writer.put(request.key, value, lease)
        return parts

    def delete_body(self, request: DeleteRangeRequest) -> Body:
        """Delete; the fields of the DeleteRangeResponse behind its header."""
        writer = self._writer
        before = writer.bound
        key = request.key
        if request.prev_kv:
            self.range_operations += 1
        if not request.range_end:
            record = self._reader.record_at(key, before) if request.prev_kv else None
            if not writer.delete(key):
                return []
            parts = [b"\x10\x01"]
            if record is not None:
                parts += PREV_KVS.pack([record])
            return parts
        end = upper_end(request.range_end)
        if not request.prev_kv:
            count = writer.delete_range(key, end)
            return [b"\x10" + varint(count)] if count else []
        previous = started(self._previous(key, end, before))
        count = writer.delete_range(key, end)
        if count > AT_ONCE_KEYS:
            return previous
        return finish(previous)

    def _previous(self, start: bytes, end: bytes | None, bound: int) -> Job[Parts]:
        """The answer of a deletion with prev_kv: the number of keys and their records as they were at
        `bound`.
        """
        reader = self._reader
        pin = whole_main(bound)
        reader.pins.add(pin)
        try:
            yield
            records: Parts = []
            count = 0
            for _, revisions in reader.rows(start, end, bound):
                records += PREV_KVS.pack(reader.records(revisions))
                count += len(revisions)
                yield
            return [b"\x10" + varint(count), *records] if count else []
        finally:
            reader.pins.remove(pin)


def _check_not_deleted(key: bytes, deleted: list[DeleteRangeRequest]) -> None:
    for deletion in deleted:
        if not deletion.range_end:
            gone = key == deletion.key
        else:
            end = upper_end(deletion.range_end)
            gone = key >= deletion.key and (end is None or key < end)
        if gone:
            raise errors.KEY_NOT_FOUND


def _request_of(operation: RequestOp) -> PutRequest | RangeRequest | DeleteRangeRequest | TxnRequest:
    kind = operation.WhichOneof("request")
    if kind is None:
        raise errors.KEY_NOT_FOUND
    request: PutRequest | RangeRequest | DeleteRangeRequest | TxnRequest = getattr(operation, kind)
    return request


def _at_once(steps: Generator[None, None, Result]) -> Result | None:
    """The result if a few slices bring it."""
    try:
        for _ in range(AT_ONCE_SLICES):
            next(steps)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    return None
