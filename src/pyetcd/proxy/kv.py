"""KV: requests go to the cluster as they came, answers to clients as the cluster gave them.

What is looked at is only what the cache has to know: which ranges were read, and which keys are written. It
forgets a key before it is written and once more afterwards, since a read may have come in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pyetcd.proto import strict
from pyetcd.proto.errors import UNIMPLEMENTED, EtcdError
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from pyetcd.proto.splice import VARINT, Malformed, fields, signed
from pyetcd.proxy.cache import RangeCache, Span
from pyetcd.proxy.calls import ENDED, Caller, Done, Handle, Kv
from pyetcd.proxy.upstream import Upstream

RANGE: Final = "/etcdserverpb.KV/Range"
PUT: Final = "/etcdserverpb.KV/Put"
DELETE_RANGE: Final = "/etcdserverpb.KV/DeleteRange"
TXN: Final = "/etcdserverpb.KV/Txn"
COMPACT: Final = "/etcdserverpb.KV/Compact"
RANGE_STREAM: Final = "/etcdserverpb.KV/RangeStream"

NO_RANGE_STREAM: Final = "RangeStream is not supported by the gRPC proxy"


class DirectKv:
    """Key-value calls as they are."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def begin(self, path: str, payload: bytes, caller: Caller, done: Done) -> Handle:
        return self._upstream.begin(path, payload, caller, done, reads=path == RANGE)


class KvService:
    """The service."""

    def __init__(self, kv: Kv, cache: RangeCache) -> None:
        self._kv = kv
        self._cache = cache
        self.unary: Mapping[str, object] = {}

    def range(self, payload: bytes, caller: Caller, done: Done) -> Handle:
        request = strict.parse(RangeRequest, payload)
        cache = self._cache
        if request.serializable:
            known = cache.get(request, caller.token)
            if known is not None:
                done(known, 0, "")
                return ENDED

        def answered(message: bytes | None, code: int, text: str) -> None:
            if message is not None:
                cache.add(request, caller.token, message, revision_of(message))
            done(message, code, text)

        return self._kv.begin(RANGE, payload, caller, answered)

    def put(self, payload: bytes, caller: Caller, done: Done) -> Handle:
        request = strict.parse(PutRequest, payload)
        return self._write(PUT, payload, [(request.key, b"")], caller, done)

    def delete_range(self, payload: bytes, caller: Caller, done: Done) -> Handle:
        request = strict.parse(DeleteRangeRequest, payload)
        return self._write(DELETE_RANGE, payload, [(request.key, request.range_end)], caller, done)

    def txn(self, payload: bytes, caller: Caller, done: Done) -> Handle:
        request = strict.parse(TxnRequest, payload)
        spans = list(written((*request.success, *request.failure)))
        # What was compared may not be what is cached: be careful with it.
        spans += [(compare.key, compare.range_end) for compare in request.compare]
        return self._write(TXN, payload, spans, caller, done)

    def compact(self, payload: bytes, caller: Caller, done: Done) -> Handle:
        request = strict.parse(CompactionRequest, payload)

        def answered(message: bytes | None, code: int, text: str) -> None:
            if message is not None:
                self._cache.compact(request.revision)
            done(message, code, text)

        return self._kv.begin(COMPACT, payload, caller, answered)

    def _write(self, path: str, payload: bytes, spans: list[Span], caller: Caller, done: Done) -> Handle:
        cache = self._cache
        for key, end in spans:
            cache.invalidate(key, end)

        def answered(message: bytes | None, code: int, text: str) -> None:
            revision = revision_of(message) if message is not None else 0
            for key, end in spans:
                cache.invalidate(key, end, revision)
            done(message, code, text)

        return self._kv.begin(path, payload, caller, answered)


class NoRangeStream:
    """RangeStream, which the proxy does not have."""

    def on_message(self, payload: bytes) -> None:
        raise EtcdError(UNIMPLEMENTED, NO_RANGE_STREAM)

    def on_half_close(self) -> None:
        raise EtcdError(UNIMPLEMENTED, NO_RANGE_STREAM)

    def on_cancel(self) -> None: ...

    def on_writable(self) -> None: ...


def revision_of(answer: bytes) -> int:
    """The revision in an answer's header; 0 without one."""
    try:
        for number, _, start, end in fields(answer):
            if number == 1:
                for inner, kind, value, _ in fields(answer, start, end):
                    if inner == 3 and kind == VARINT:
                        return signed(value)
            break
    except Malformed:
        pass
    return 0


def written(operations: Iterable[RequestOp]) -> Iterable[Span]:
    """What the operations of a transaction may write, at any depth."""
    left = list(operations)
    while left:
        operation = left.pop()
        kind = operation.WhichOneof("request")
        if kind == "request_put":
            yield operation.request_put.key, b""
        elif kind == "request_delete_range":
            yield operation.request_delete_range.key, operation.request_delete_range.range_end
        elif kind == "request_txn":
            left += (*operation.request_txn.success, *operation.request_txn.failure)
