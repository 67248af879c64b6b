"""The space quota: what a request may cost, and whether there is room for it.

Costs are etcd's estimates (storage/quota.go's constants), so that a member refuses when a Go member would.
"""

from __future__ import annotations

from pyetcd.proto.plain_put import PlainPut
from pyetcd.proto.rpc_pb2 import LeaseGrantRequest, PutRequest, RequestOp, TxnRequest

DEFAULT_BYTES = 2 << 30
LEASE_COST = 64
KEY_COST = 256


def put_cost(request: PutRequest | PlainPut) -> int:
    return KEY_COST + len(request.key) + len(request.value)


def lease_cost(request: LeaseGrantRequest) -> int:
    return LEASE_COST


def _operation_cost(operation: RequestOp) -> int:
    which = operation.WhichOneof("request")
    if which == "request_put":
        return put_cost(operation.request_put)
    if which == "request_txn":
        return txn_cost(operation.request_txn)
    return 0


def txn_cost(request: TxnRequest) -> int:
    """The dearer of the two branches; 0 when nothing is written."""
    return max(sum(map(_operation_cost, request.success)), sum(map(_operation_cost, request.failure)))


def dearest(max_request_bytes: int) -> int:
    """No request costs more: its bytes, and `KEY_COST` for each put, which takes seven bytes at least."""
    return max_request_bytes * (1 + KEY_COST // 7)


def limit_bytes(configured: int) -> int | None:
    """The quota in force: None when negative (off), the default at 0."""
    if configured < 0:
        return None
    return configured or DEFAULT_BYTES
