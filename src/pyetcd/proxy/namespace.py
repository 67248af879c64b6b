"""`--namespace`: clients see only keys with a prefix, and without it.

Requests are given the prefix in every key and range, also in comparisons and in transactions within
transactions; answers lose it. As clientv3's namespace package has it, a client's whole key space is the range
of the prefix, and a request without a key is refused before it could mean the prefix itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from pyetcd.proto import strict
from pyetcd.proto.errors import EMPTY_KEY
from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from pyetcd.proxy.cache import Span
from pyetcd.proxy.calls import Caller, Done, Handle, Kv
from pyetcd.proxy.kv import COMPACT, DELETE_RANGE, PUT, RANGE, TXN

Requests = RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest
Answers = RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse

_REQUESTS: dict[str, type[Requests]] = {
    RANGE: RangeRequest,
    PUT: PutRequest,
    DELETE_RANGE: DeleteRangeRequest,
    TXN: TxnRequest,
}
_ANSWERS: dict[str, type[Answers]] = {
    RANGE: RangeResponse,
    PUT: PutResponse,
    DELETE_RANGE: DeleteRangeResponse,
    TXN: TxnResponse,
}


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with this prefix; `\\0`, the end of all, where it has none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes((kept[-1] + 1,)) if kept else b"\0"


def prefixed_span(prefix: bytes, key: bytes, end: bytes) -> Span:
    """A client's range as the cluster knows it."""
    if end == b"\0":
        return prefix + key, prefix_end(prefix) if prefix else end
    return prefix + key, prefix + end if end else b""


class NamespaceKv:
    """Key-value calls of clients within the prefix, made of `kv`."""

    def __init__(self, kv: Kv, prefix: bytes) -> None:
        self._kv = kv
        self._prefix = prefix

    def begin(self, path: str, payload: bytes, caller: Caller, done: Done) -> Handle:
        if path == COMPACT:
            return self._kv.begin(path, payload, caller, done)
        request = strict.parse(_REQUESTS[path], payload)
        self._put_in(request)
        answer_type = _ANSWERS[path]

        def answered(message: bytes | None, code: int, text: str) -> None:
            if message is not None:
                answer = answer_type.FromString(message)
                self._take_out(answer)
                message = answer.SerializeToString()
            done(message, code, text)

        return self._kv.begin(path, request.SerializeToString(), caller, answered)

    def _put_in(self, request: Message) -> None:
        if isinstance(request, TxnRequest):
            self._put_in_compares(request.compare)
            self._put_in_operations((*request.success, *request.failure))
        elif isinstance(request, PutRequest):
            if not request.key:
                raise EMPTY_KEY
            request.key = self._prefix + request.key
        elif isinstance(request, RangeRequest | DeleteRangeRequest):
            if not request.key:
                raise EMPTY_KEY
            request.key, request.range_end = prefixed_span(self._prefix, request.key, request.range_end)

    def _put_in_compares(self, compares: Sequence[Compare]) -> None:
        for compare in compares:
            compare.key, compare.range_end = prefixed_span(self._prefix, compare.key, compare.range_end)

    def _put_in_operations(self, operations: Sequence[RequestOp]) -> None:
        for operation in operations:
            kind = operation.WhichOneof("request")
            if kind == "request_txn":
                self._put_in(operation.request_txn)
            elif kind == "request_put":
                operation.request_put.key = self._prefix + operation.request_put.key
            elif kind is not None:
                ranged: RangeRequest | DeleteRangeRequest = getattr(operation, kind)
                ranged.key, ranged.range_end = prefixed_span(self._prefix, ranged.key, ranged.range_end)

    def _take_out(self, answer: Message) -> None:
        hidden = len(self._prefix)
        if isinstance(answer, RangeResponse):
            for kv in answer.kvs:
                kv.key = kv.key[hidden:]
        elif isinstance(answer, PutResponse):
            if answer.HasField("prev_kv"):
                answer.prev_kv.key = answer.prev_kv.key[hidden:]
        elif isinstance(answer, DeleteRangeResponse):
            for kv in answer.prev_kvs:
                kv.key = kv.key[hidden:]
        elif isinstance(answer, TxnResponse):
            for response in answer.responses:
                self._take_out_of(response)

    def _take_out_of(self, response: ResponseOp) -> None:
        kind = response.WhichOneof("response")
        if kind is not None:
            self._take_out(getattr(response, kind))


def without_foreign_keys(prefix: bytes, answer: bytes) -> bytes:
    """What LeaseTimeToLive may tell: attached keys of the namespace alone."""
    response = LeaseTimeToLiveResponse.FromString(answer)
    keys = [key[len(prefix) :] for key in response.keys if key.startswith(prefix)]
    del response.keys[:]
    response.keys.extend(keys)
    return response.SerializeToString()
