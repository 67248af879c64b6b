"""What the span within a call's says: which keys, leases and revisions it was about.

Names and attributes are etcd's (server/etcdserver/v3_server.go, api/v3rpc/watch.go). Values are never among
them. etcd also has spans of single lease renewals; a renewal here is no call of its own that could be timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from pyetcd.mvcc import checks
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchRequest,
)

Attributes = dict[str, str | int | bool]
Inner = tuple[str, Attributes]
"""Name and attributes."""

RANGE_STREAM: Final = "/etcdserverpb.KV/RangeStream"
WATCH: Final = "/etcdserverpb.Watch/Watch"


def inner_of_unary(path: str, payload: bytes) -> Inner | None:
    """Of a unary call; None where etcd has none."""
    known = _UNARY.get(path)
    if known is None:
        return None
    name, kind, attributes = known
    try:
        return name, attributes(kind.FromString(payload))
    except DecodeError:
        return None


def inner_of_message(path: str, payload: bytes) -> tuple[Inner | None, bool]:
    """Of a message of a stream, and whether it lasts as long as the stream does."""
    try:
        if path == RANGE_STREAM:
            return ("range_streaming", _range_stream(RangeRequest.FromString(payload))), True
        if path == WATCH:
            request = WatchRequest.FromString(payload)
            if request.HasField("create_request"):
                return ("watch", _watch(request)), False
    except DecodeError:
        pass
    return None, False


def _text(key: bytes) -> str:
    return key.decode(errors="replace")


def _range(request: RangeRequest) -> Attributes:
    return {
        "range_begin": _text(request.key),
        "range_end": _text(request.range_end),
        "rev": request.revision,
        "limit": request.limit,
        "count_only": request.count_only,
        "keys_only": request.keys_only,
    }


def _range_stream(request: RangeRequest) -> Attributes:
    return {
        "range_begin": _text(request.key),
        "range_end": _text(request.range_end),
        "rev": request.revision,
        "limit": request.limit,
        "count_only": request.count_only,
    }


def _watch(request: WatchRequest) -> Attributes:
    create = request.create_request
    return {
        "key": _text(create.key),
        "range_end": _text(create.range_end) if create.range_end != b"\0" else "",
        "start_rev": create.start_revision,
        "progress_notify": create.progress_notify,
        "prev_kv": create.prev_kv,
        "fragment": create.fragment,
    }


def _put(request: PutRequest) -> Attributes:
    return {"key": _text(request.key)}


def _delete_range(request: DeleteRangeRequest) -> Attributes:
    return {"range_begin": _text(request.key), "range_end": _text(request.range_end)}


def _txn(request: TxnRequest) -> Attributes:
    kinds = [operation.WhichOneof("request") for operation in request.success]
    puts = [operation.request_put for operation in request.success if operation.HasField("request_put")]
    return {
        "compare_first_key": _first(compare.key for compare in request.compare),
        "success_first_key": _first(_key(operation) for operation in request.success),
        "success_first_type": next((_TYPES[kind] for kind in kinds if kind is not None), ""),
        "success_first_lease": puts[0].lease if puts else -1,
        "compare_len": len(request.compare),
        "success_len": len(request.success),
        "failure_len": len(request.failure),
        "read_only": checks.is_read_only(request),
    }


def _first(keys: Iterable[bytes]) -> str:
    """The first that is not empty."""
    return next((_text(key) for key in keys if key), "")


def _key(operation: RequestOp) -> bytes:
    which = operation.WhichOneof("request")
    if which == "request_put":
        return operation.request_put.key
    if which == "request_range":
        return operation.request_range.key
    if which == "request_delete_range":
        return operation.request_delete_range.key
    return b""


def _compact(request: CompactionRequest) -> Attributes:
    return {"is_physical": request.physical, "rev": request.revision}


def _grant(request: LeaseGrantRequest) -> Attributes:
    return {"id": request.ID, "ttl": request.TTL}


def _revoke(request: LeaseRevokeRequest) -> Attributes:
    return {"id": request.ID}


_TYPES: Final = {
    "request_range": "range",
    "request_put": "put",
    "request_delete_range": "delete_range",
    "request_txn": "txn",
}
_UNARY: Final[dict[str, tuple[str, type[Message], Callable[[Any], Attributes]]]] = {
    "/etcdserverpb.KV/Range": ("range", RangeRequest, _range),
    "/etcdserverpb.KV/Put": ("put", PutRequest, _put),
    "/etcdserverpb.KV/DeleteRange": ("delete_range", DeleteRangeRequest, _delete_range),
    "/etcdserverpb.KV/Txn": ("txn", TxnRequest, _txn),
    "/etcdserverpb.KV/Compact": ("compact", CompactionRequest, _compact),
    "/etcdserverpb.Lease/LeaseGrant": ("lease_grant", LeaseGrantRequest, _grant),
    "/etcdserverpb.Lease/LeaseRevoke": ("lease_revoke", LeaseRevokeRequest, _revoke),
}
