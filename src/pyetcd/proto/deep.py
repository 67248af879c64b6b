"""Transactions within transactions, deeper than protobuf's parser goes by itself.

upb stops at 100 messages within each other, that is 50 transactions; etcd takes as many as it takes
operations, 128 by default, and a log may hold such an entry. So where parsing fails for depth, the nesting is
measured without recursion, and the parser is asked again with its other bound, 65,535. That one would
overrun the stack, which is why it is lifted for measured messages only.

Rules that hold here:

* Up to `MAX_LEVELS` transactions are parsed; what walks a transaction recursively stays far from Python's
  recursion limit.
* More are too many operations, as they are to etcd unless it runs with a higher `--max-txn-ops`; more than
  `GO_LEVELS` are what Go's parser refuses.
* Measuring looks at `MAX_FIELDS` fields at most (about 10 ms): no request may hold up the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message

from pyetcd.proto import errors, strict
from pyetcd.proto.errors import INTERNAL, EtcdError
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import RequestOp, TxnRequest
from pyetcd.proto.splice import BYTES, Malformed, fields

MAX_LEVELS: Final = 300
MAX_FIELDS: Final = 20_000
GO_LEVELS: Final = 4999  # of transactions, in 10,000 messages within each other
TOO_DEEP: Final = "grpc: error unmarshalling request: proto: exceeded maximum recursion depth"

Parsed = TypeVar("Parsed", bound=Message)
Span: TypeAlias = tuple[int, int]

_IN_ENTRY: Final = (InternalRaftRequest.TXN_FIELD_NUMBER,)
_IN_TXN: Final = (TxnRequest.SUCCESS_FIELD_NUMBER, TxnRequest.FAILURE_FIELD_NUMBER)
_IN_OPERATION: Final = (RequestOp.REQUEST_TXN_FIELD_NUMBER,)
_REASON: Final = "MaxDepth"  # in upb's text

_lift: Final[Callable[[bool], None] | None] = getattr(
    getattr(api_implementation, "_c_module", None), "SetAllowOversizeProtos", None
)


def txn_request(data: bytes) -> TxnRequest:
    """Parse. DecodeError when it is no message, EtcdError when its transactions lie too deep."""
    try:
        return TxnRequest.FromString(data)
    except DecodeError as error:
        return _parse(TxnRequest, data, error)


def raft_request(data: bytes) -> InternalRaftRequest:
    """Parse the data of an entry, as `txn_request`."""
    try:
        return InternalRaftRequest.FromString(data)
    except DecodeError as error:
        if _REASON in str(error):
            return _parse(InternalRaftRequest, data, error)
        return strict.again(InternalRaftRequest, data)  # a Go member may have taken what upb refuses


def _parse(kind: type[Parsed], data: bytes, error: DecodeError) -> Parsed:
    if _lift is None or _REASON not in str(error):
        raise error
    levels = _levels(kind, data)
    if levels > GO_LEVELS:
        raise EtcdError(INTERNAL, TOO_DEEP)
    if levels > MAX_LEVELS:
        raise errors.TOO_MANY_OPS
    _lift(True)
    try:
        return kind.FromString(data)
    finally:
        _lift(False)


def _levels(kind: type[Message], data: bytes) -> int:
    """How many transactions lie within each other, counted to `GO_LEVELS` + 1. TOO_MANY_OPS when it takes
    too long to tell.
    """
    fields_left = MAX_FIELDS

    def within(spans: list[Span], numbers: tuple[int, ...]) -> list[Span]:
        """Where the embedded messages of these field numbers lie."""
        nonlocal fields_left
        found = []
        for start, end in spans:
            for number, wire_type, at, behind in fields(data, start, end):
                fields_left -= 1
                if not fields_left:
                    raise errors.TOO_MANY_OPS
                if wire_type == BYTES and number in numbers:
                    found.append((at, behind))
        return found

    transactions = [(0, len(data))]
    try:
        if kind is InternalRaftRequest:
            transactions = within(transactions, _IN_ENTRY)
        levels = 0
        while transactions and levels <= GO_LEVELS:
            levels += 1
            transactions = within(within(transactions, _IN_TXN), _IN_OPERATION)
        return levels
    except Malformed as error:
        raise DecodeError(str(error)) from None
