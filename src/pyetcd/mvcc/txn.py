"""Txn: compare, check, execute; and DeleteRange, which shares the last.

A transaction first takes its path: the compares of every transaction on it are evaluated on the state
before it. Then the whole path is checked, and only then anything is written (etcd
server/etcdserver/txn/txn.go). What can still fail in etcd while executing, and kills every member there, is
checked here: an operation without a request, a put with ignore_value or ignore_lease whose key an earlier
operation of the same transaction has deleted, a lease that is gone.

Answers inside an answer carry a header with the revision only; that of a nested transaction is empty.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from pyetcd.mvcc.answer import Answer, Applied, Job, Unfinished, Work, finish, started
from pyetcd.mvcc.ranges import Parts, Ranges, resolve, upper_end
from pyetcd.mvcc.reader import Reader
from pyetcd.mvcc.record import PREV_KV, PREV_KVS, value_of
from pyetcd.mvcc.revision import bound_of, main_of, whole_main
from pyetcd.mvcc.seams import LeaseBook
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

VERSION, CREATE, MOD, VALUE, LEASE = 0, 1, 2, 3, 4
EQUAL, GREATER, LESS, NOT_EQUAL = 0, 1, 2, 3

RANGE_TAG, PUT_TAG, DELETE_TAG, TXN_TAG = b"\x0a", b"\x12", b"\x1a", b"\x22"
EMPTY_HEADER = b"\x0a\x00"
AT_ONCE_SLICES = 4


@dataclass(frozen=True, slots=True)
class Path:
    """The branch a transaction takes, and those of the transactions within it, in order."""

    succeeded: bool
    operations: Sequence[RequestOp]
    nested: list[Path]


@dataclass(slots=True)
class Piece:
    """One ResponseOp: its tag, the header of the response in it, and the rest, which may still be a job."""

    tag: bytes
    header: bytes
    body: Parts | Job[Parts] | Pieces


@dataclass(slots=True)
class Pieces:
    """A TxnResponse without its header."""

    succeeded: bool
    pieces: list[Piece] = field(default_factory=list)


Body: TypeAlias = Parts | Job[Parts]
Result = TypeVar("Result")


class Transactions:
    """Executes transactions and deletions on one store."""

    def __init__(self, writer: Writer, reader: Reader, ranges: Ranges, leases: LeaseBook) -> None:
        self._writer = writer
        self._reader = reader
        self._ranges = ranges
        self._leases = leases
        self.transactions = 0  # those of more than one operation, as etcd counts them
        self.range_operations = 0

    def write(self, request: TxnRequest) -> Applied:
        """Apply a transaction. Raises EtcdError with nothing changed."""
        steps = self._write_steps(request)
        applied = _at_once(steps)
        return Unfinished(steps) if applied is None else applied

    def _write_steps(self, request: TxnRequest) -> Generator[None, None, Answer | Job[Answer]]:
        path = yield from self._path(request, self._writer.bound)
        self._check(path, [])
        pieces = self._execute(path, None)
        self._writer.end()
        return _answer(self._writer.revision, pieces)

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
            self._check(path, [])
            work = _answer(revision, self._execute(path, revision))
            return work if isinstance(work, Answer) else (yield from work)
        finally:
            self._reader.pins.remove(revision)

    # Compare

    def _path(self, request: TxnRequest, bound: int) -> Job[Path]:
        succeeded = True
        for compare in request.compare:
            if compare.range_end:
                succeeded = yield from self._range_holds(compare, bound)
            else:
                succeeded = self._holds(compare, bound)
            if not succeeded:
                break
        operations = request.success if succeeded else request.failure
        nested: list[Path] = []
        for operation in operations:
            if operation.HasField("request_txn"):
                nested.append((yield from self._path(operation.request_txn, bound)))
        return Path(succeeded, operations, nested)

    def _holds(self, compare: Compare, bound: int) -> bool:
        revision = self._reader.revision_of(compare.key, bound)
        if not revision:
            return _missing_holds(compare)
        if compare.target == MOD:
            return _satisfies(compare.result, main_of(revision), compare.mod_revision)
        return _record_holds(compare, self._reader.record(revision))

    def _range_holds(self, compare: Compare, bound: int) -> Job[bool]:
        """Do all keys of a range compare so?"""
        empty = True
        for keys, revisions in self._reader.rows(compare.key, upper_end(compare.range_end), bound):
            if keys:
                empty = False
                if not all(_record_holds(compare, record) for record in self._reader.records(revisions)):
                    return False
            yield
        return _missing_holds(compare) if empty else True

    # Check

    def _check(self, path: Path, deleted: list[DeleteRangeRequest]) -> None:
        """Raise what executing `path` would fail with. `deleted`: the deletions that come before it."""
        nested = iter(path.nested)
        for operation in path.operations:
            kind = operation.WhichOneof("request")
            if kind == "request_put":
                self.check_put(operation.request_put)
                if deleted and _needs_previous(operation.request_put):
                    _check_not_deleted(operation.request_put.key, deleted)
            elif kind == "request_range":
                self._check_revision(operation.request_range.revision)
            elif kind == "request_delete_range":
                deleted.append(operation.request_delete_range)
            elif kind == "request_txn":
                self._check(next(nested), deleted)
            else:
                raise errors.KEY_NOT_FOUND

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
        if _needs_previous(request):
            record = self._reader.record_at(request.key, self._writer.bound)
            if record is None:
                raise errors.KEY_NOT_FOUND
            if request.ignore_lease:
                lease = view(record).lease
                if lease and lease != self._leases.lease_of(request.key) and not self._leases.exists(lease):
                    raise errors.LEASE_NOT_FOUND

    # Execute

    def _execute(self, path: Path, read_at: int | None) -> Pieces:
        """`read_at`: the revision of a read-only transaction; None for one that may write."""
        pieces = Pieces(path.succeeded)
        nested = iter(path.nested)
        if len(path.operations) > 1:
            self.transactions += 1
        for operation in path.operations:
            kind = operation.WhichOneof("request")
            body: Parts | Job[Parts] | Pieces
            if kind == "request_put":
                tag, body = PUT_TAG, self.put_body(operation.request_put)
            elif kind == "request_range":
                tag, body = RANGE_TAG, self._range_body(operation.request_range, read_at)
            elif kind == "request_delete_range":
                tag, body = DELETE_TAG, self.delete_body(operation.request_delete_range)
            else:
                pieces.pieces.append(Piece(TXN_TAG, EMPTY_HEADER, self._execute(next(nested), read_at)))
                continue
            revision = self._writer.seen_revision if read_at is None else read_at
            pieces.pieces.append(Piece(tag, _header(revision), body))
        return pieces

    def _range_body(self, request: RangeRequest, read_at: int | None) -> Body:
        self.range_operations += 1
        if read_at is None:
            seen, bound = self._writer.seen_revision, self._writer.bound
        else:
            seen, bound = read_at, bound_of(read_at)
        revision = resolve(request.revision, seen, self._reader.compact_revision)
        return self._ranges.body(request, bound if revision == seen else bound_of(revision))

    def put_body(self, request: PutRequest) -> Parts:
        """Write a checked put; the fields of the PutResponse behind its header."""
        writer = self._writer
        value, lease = request.value, request.lease
        parts: Parts = []
        if request.prev_kv or request.ignore_value or request.ignore_lease:
            record = self._reader.record_at(request.key, writer.bound)
            if record is not None:
                if request.ignore_value:
                    value = value_of(record)
                if request.ignore_lease:
                    lease = view(record).lease
                if request.prev_kv:
                    PREV_KV.extend(parts, [record])
        writer.put(request.key, value, lease)
        return parts

    def delete_body(self, request: DeleteRangeRequest) -> Body:
        """Delete; the fields of the DeleteRangeResponse behind its header."""
        writer = self._writer
        before = writer.bound
        key = request.key
        if not request.range_end:
            record = self._reader.record_at(key, before) if request.prev_kv else None
            if not writer.delete(key):
                return []
            parts = [b"\x10\x01"]
            if record is not None:
                PREV_KVS.extend(parts, [record])
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
            for _, revisions in reader.rows(start, end, bound):
                PREV_KVS.extend(records, reader.records(revisions))
                yield
            count = len(records) // 2
            return [b"\x10" + varint(count), *records] if count else []
        finally:
            reader.pins.remove(pin)


def _needs_previous(request: PutRequest) -> bool:
    return request.ignore_value or request.ignore_lease


def _check_not_deleted(key: bytes, deleted: list[DeleteRangeRequest]) -> None:
    for deletion in deleted:
        if not deletion.range_end:
            gone = key == deletion.key
        else:
            end = upper_end(deletion.range_end)
            gone = key >= deletion.key and (end is None or key < end)
        if gone:
            raise errors.KEY_NOT_FOUND


def _satisfies(result: int, left: int | bytes, right: int | bytes) -> bool:
    if result == EQUAL:
        return left == right
    if result == NOT_EQUAL:
        return left != right
    if result == GREATER:
        return left > right  # type: ignore[operator]
    if result == LESS:
        return left < right  # type: ignore[operator]
    return True  # etcd lets a result it does not know pass


def _missing_holds(compare: Compare) -> bool:
    """A key that does not exist has no value, and zero everywhere else."""
    target = compare.target
    if target == VALUE:
        return False
    return _satisfies(compare.result, 0, _wanted(compare))


def _wanted(compare: Compare) -> int:
    target = compare.target
    if target == MOD:
        return compare.mod_revision
    if target == CREATE:
        return compare.create_revision
    if target == VERSION:
        return compare.version
    if target == LEASE:
        return compare.lease
    return 0


def _record_holds(compare: Compare, record: bytes) -> bool:
    seen = view(record)
    target = compare.target
    if target == VALUE:
        return _satisfies(compare.result, record[seen.value_start : seen.value_end], compare.value)
    if target == MOD:
        have = seen.mod_revision
    elif target == CREATE:
        have = seen.create_revision
    elif target == VERSION:
        have = seen.version
    elif target == LEASE:
        have = seen.lease
    else:
        have = 0
    return _satisfies(compare.result, have, _wanted(compare))


def _header(revision: int) -> bytes:
    """Field 1 of an inner response: a ResponseHeader with nothing but the revision."""
    number = varint(revision)
    return bytes((0x0A, len(number) + 1, 0x18)) + number


def _waits(pieces: Pieces) -> bool:
    return any(
        _waits(piece.body) if isinstance(piece.body, Pieces) else not isinstance(piece.body, list)
        for piece in pieces.pieces
    )


def _assemble(pieces: Pieces) -> Parts:
    """Fields 2 and 3 of the TxnResponse, once every body is there."""
    parts: Parts = [b"\x10\x01"] if pieces.succeeded else []
    for piece in pieces.pieces:
        body = piece.body
        inner = _assemble(body) if isinstance(body, Pieces) else body
        assert isinstance(inner, list), "jobs have been run"
        length = len(piece.header) + sum(map(len, inner))
        head = piece.tag + varint(length)
        parts.append(b"".join((b"\x1a", varint(len(head) + length), head, piece.header)))
        parts += inner
    return parts


def _at_once(steps: Generator[None, None, Result]) -> Result | None:
    """The result if a few slices bring it."""
    try:
        for _ in range(AT_ONCE_SLICES):
            next(steps)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    return None


def _answer(revision: int, pieces: Pieces) -> Answer | Job[Answer]:
    if _waits(pieces):
        return _assemble_later(revision, pieces)
    return Answer(revision, _assemble(pieces))


def _assemble_later(revision: int, pieces: Pieces) -> Job[Answer]:
    yield from _run_jobs(pieces)
    return Answer(revision, _assemble(pieces))


def _run_jobs(pieces: Pieces) -> Job[None]:
    for piece in pieces.pieces:
        body = piece.body
        if isinstance(body, Pieces):
            yield from _run_jobs(body)
        elif not isinstance(body, list):
            piece.body = yield from body
