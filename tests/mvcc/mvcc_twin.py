"""A naive etcd store: every state ever is kept as a dict, every answer is built as a message.

Written from etcd's documentation and behaviour for tests only: nothing is fast, nothing is sliced, nothing
is shared with the code under test.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyetcd._native import crc32c
from pyetcd.proto import errors
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)

State = dict[bytes, KeyValue]


def inside(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return key >= start and (end == b"\0" or key < end)


def select(state: State, start: bytes, end: bytes) -> list[KeyValue]:
    return [state[key] for key in sorted(state) if inside(key, start, end)]


class Twin:
    def __init__(self, leases: set[int]) -> None:
        self.leases = leases
        self.revision = 1
        self.compacted = -1
        self.states: dict[int, State] = {1: {}}
        self.log: list[tuple[int, int, bool, KeyValue]] = []  # revision, sub, deleted, stored record
        self.hashes: dict[int, int] = {}  # of the last compactions, until the next restart
        self._sub = 0
        self._now: State = {}

    # A write in progress: self._now and self._sub

    @property
    def _seen(self) -> int:
        return self.revision + 1 if self._sub else self.revision

    def _end(self) -> None:
        if self._sub:
            self.revision += 1
            self._sub = 0
            self.states[self.revision] = dict(self._now)

    def _put(self, key: bytes, value: bytes, lease: int) -> None:
        main = self.revision + 1
        old = self._now.get(key)
        kv = KeyValue(
            key=key,
            value=value,
            lease=lease,
            mod_revision=main,
            create_revision=old.create_revision if old else main,
            version=old.version + 1 if old else 1,
        )
        self._now[key] = kv
        self.log.append((main, self._sub, False, kv))
        self._sub += 1

    def _delete(self, start: bytes, end: bytes) -> int:
        gone = select(self._now, start, end)
        for kv in gone:
            del self._now[kv.key]
            self.log.append((self.revision + 1, self._sub, True, KeyValue(key=kv.key)))
            self._sub += 1
        return len(gone)

    # Requests

    def range(self, request: RangeRequest) -> RangeResponse:
        return self._range(request)

    def _range(self, request: RangeRequest) -> RangeResponse:
        revision = request.revision
        if revision > self._seen:
            raise errors.FUTURE_REVISION
        if revision <= 0:
            revision = self._seen
        if revision < self.compacted:
            raise errors.COMPACTED
        state = self._now if revision == self._seen else self.states[revision]
        found = select(state, request.key, request.range_end)
        response = RangeResponse(count=len(found))
        response.header.revision = self._seen
        if request.count_only:
            return response
        filtered = any(
            (
                request.min_mod_revision,
                request.max_mod_revision,
                request.min_create_revision,
                request.max_create_revision,
            )
        )
        target, order, limit = request.sort_target, request.sort_order, request.limit
        default = order == RangeRequest.NONE or (target == RangeRequest.KEY and order == RangeRequest.ASCEND)
        if default and not filtered and limit > 0:
            found = found[: limit + 1]
        found = [kv for kv in found if self._passes(request, kv)]
        if target != RangeRequest.KEY or order == RangeRequest.DESCEND:
            names = {
                RangeRequest.KEY: "key",
                RangeRequest.VERSION: "version",
                RangeRequest.CREATE: "create_revision",
                RangeRequest.MOD: "mod_revision",
                RangeRequest.VALUE: "value",
            }
            found.sort(key=lambda kv: getattr(kv, names[target]), reverse=order == RangeRequest.DESCEND)
        if 0 < limit < len(found):
            found = found[:limit]
            response.more = True
        for kv in found:
            copy = response.kvs.add()
            copy.CopyFrom(kv)
            if request.keys_only:
                copy.value = b""
                if target != RangeRequest.VALUE:
                    copy.lease = 0
        return response

    @staticmethod
    def _passes(request: RangeRequest, kv: KeyValue) -> bool:
        return (
            (not request.max_mod_revision or kv.mod_revision <= request.max_mod_revision)
            and (not request.min_mod_revision or kv.mod_revision >= request.min_mod_revision)
            and (not request.max_create_revision or kv.create_revision <= request.max_create_revision)
            and (not request.min_create_revision or kv.create_revision >= request.min_create_revision)
        )

    def _check_put(self, request: PutRequest) -> None:
        if request.lease and request.lease not in self.leases:
            raise errors.LEASE_NOT_FOUND
        if (request.ignore_value or request.ignore_lease) and request.key not in self._now:
            raise errors.KEY_NOT_FOUND

    def put(self, request: PutRequest) -> PutResponse:
        self._check_put(request)
        response = self._run_put(request)
        self._end()
        return response

    def _run_put(self, request: PutRequest) -> PutResponse:
        response = PutResponse()
        old = self._now.get(request.key)
        if request.prev_kv and old is not None:
            response.prev_kv.CopyFrom(old)
        value = old.value if request.ignore_value and old else request.value
        lease = old.lease if request.ignore_lease and old else request.lease
        self._put(request.key, value, lease)
        response.header.revision = self.revision + 1
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        response = self._run_delete(request)
        self._end()
        return response

    def _run_delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        response = DeleteRangeResponse()
        if request.prev_kv:
            response.prev_kvs.extend(select(self._now, request.key, request.range_end))
        response.deleted = self._delete(request.key, request.range_end)
        response.header.revision = self._seen
        return response

    def txn(self, request: TxnRequest) -> TxnResponse:
        path = self._path(request)
        self._check(path)
        response = self._execute(path)
        self._end()
        response.header.revision = self.revision
        return response

    def _path(self, request: TxnRequest) -> tuple[bool, list[object]]:
        taken = all(self._compare(compare) for compare in request.compare)
        operations: list[object] = []
        for operation in request.success if taken else request.failure:
            kind = operation.WhichOneof("request")
            inner = getattr(operation, kind)
            operations.append(self._path(inner) if kind == "request_txn" else inner)
        return taken, operations

    def _check(self, path: tuple[bool, list[object]]) -> None:
        for operation in path[1]:
            if isinstance(operation, tuple):
                self._check(operation)
            elif isinstance(operation, PutRequest):
                self._check_put(operation)
            elif isinstance(operation, RangeRequest) and operation.revision:
                if operation.revision > self.revision:
                    raise errors.FUTURE_REVISION
                if operation.revision < self.compacted:
                    raise errors.COMPACTED

    def _execute(self, path: tuple[bool, list[object]]) -> TxnResponse:
        response = TxnResponse(succeeded=path[0])
        response.header.SetInParent()
        for operation in path[1]:
            slot = response.responses.add()
            if isinstance(operation, tuple):
                slot.response_txn.CopyFrom(self._execute(operation))
            elif isinstance(operation, PutRequest):
                slot.response_put.CopyFrom(self._run_put(operation))
            elif isinstance(operation, RangeRequest):
                slot.response_range.CopyFrom(self._range(operation))
            else:
                assert isinstance(operation, DeleteRangeRequest)
                slot.response_delete_range.CopyFrom(self._run_delete(operation))
        return response

    def _compare(self, compare: Compare) -> bool:
        found: Sequence[KeyValue] = select(self._now, compare.key, compare.range_end)
        if not found:
            if compare.target == Compare.VALUE:
                return False
            found = [KeyValue()]
        names = {
            Compare.VERSION: "version",
            Compare.CREATE: "create_revision",
            Compare.MOD: "mod_revision",
            Compare.VALUE: "value",
            Compare.LEASE: "lease",
        }
        name = names[compare.target]
        wanted = getattr(compare, name)
        for kv in found:
            have = getattr(kv, name)
            if compare.result == Compare.EQUAL and have != wanted:
                return False
            if compare.result == Compare.NOT_EQUAL and have == wanted:
                return False
            if compare.result == Compare.GREATER and not have > wanted:
                return False
            if compare.result == Compare.LESS and not have < wanted:
                return False
        return True

    # Compaction and hash

    def stored(self) -> list[tuple[bytes, bytes]]:
        """What lies in the `key` bucket once a compaction has done its work."""
        return [
            (main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big") + b"t" * deleted, kv.SerializeToString())
            for main, sub, deleted, kv in self.log
        ]

    def hash_kv(self, revision: int) -> int:
        """CRC-32C over the history up to `revision`, by the book (see the docstring of pyetcd.mvcc.hash)."""
        if revision in self.hashes:
            return self.hashes[revision]
        reborn = {kv.key for main, _, deleted, kv in self.log if deleted and main == revision}
        alive = self.states[revision].items()
        return self._hash(revision, {(kv.mod_revision, key) for key, kv in alive if key not in reborn})

    def _hash(self, revision: int, kept: set[tuple[int, bytes]]) -> int:
        crc = crc32c(b"key")
        for (main, _, deleted, kv), (bucket, record) in zip(self.log, self.stored(), strict=True):
            if main > revision or (main == self.compacted and deleted):
                continue
            if main <= self.compacted and kept and (main, kv.key) not in kept:
                continue
            crc = crc32c(bucket + record, crc)
        return crc

    def compact(self, revision: int) -> None:
        if revision <= self.compacted:
            raise errors.COMPACTED
        if revision > self.revision:
            raise errors.FUTURE_REVISION
        left = [entry for entry in self.log if self._stays(entry, revision)]
        self.hashes[revision] = self._hash(
            revision, {(main, kv.key) for main, _, _, kv in left if main <= revision}
        )
        for old in sorted(self.hashes)[:-10]:
            del self.hashes[old]
        self.compacted = revision
        self.log = left

    def _stays(self, entry: tuple[int, int, bool, KeyValue], revision: int) -> bool:
        main, sub, deleted, kv = entry
        if main > revision:
            return True
        if deleted and main < revision:
            return False
        return not any(
            other.key == kv.key and (main, sub) < (later, later_sub) and later <= revision
            for later, later_sub, _, other in self.log
        )
