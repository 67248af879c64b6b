"""Nested transactions are parsed as deep as etcd takes them, and no message overruns the stack."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError

from pyetcd.proto import deep, errors
from pyetcd.proto.errors import INTERNAL, EtcdError
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import PutRequest, TxnRequest
from pyetcd.proto.splice import field_bytes

PUT = field_bytes(2, PutRequest(key=b"k").SerializeToString())


def nested(levels: int, innermost: bytes = PUT) -> bytes:
    data = field_bytes(2, innermost)
    for _ in range(levels - 1):
        data = field_bytes(2, field_bytes(4, data))
    return data


def put_within(request: TxnRequest) -> PutRequest:
    while request.success[0].HasField("request_txn"):
        request = request.success[0].request_txn
    return request.success[0].request_put


@pytest.mark.parametrize("levels", [1, 50, 51, 128, deep.MAX_LEVELS])
def test_what_etcd_may_accept_is_parsed_from_requests_and_entries(levels: int) -> None:
    data = nested(levels)
    assert put_within(deep.txn_request(data)).key == b"k"
    entry = field_bytes(InternalRaftRequest.TXN_FIELD_NUMBER, data)
    assert put_within(deep.raft_request(entry).txn).key == b"k"


@pytest.mark.parametrize("levels", [deep.MAX_LEVELS + 1, deep.GO_LEVELS])
def test_more_levels_are_too_many_operations(levels: int) -> None:
    with pytest.raises(errors.TOO_MANY_OPS):
        deep.txn_request(nested(levels))


@pytest.mark.parametrize("levels", [deep.GO_LEVELS + 1, 8_000])
def test_what_gos_parser_refuses_gets_its_text(levels: int) -> None:
    with pytest.raises(EtcdError) as refused:
        deep.txn_request(nested(levels))
    assert (refused.value.code, refused.value.message) == (INTERNAL, deep.TOO_DEEP)


def test_what_is_malformed_far_down_is_malformed() -> None:
    with pytest.raises(DecodeError):
        deep.txn_request(nested(100, b"\x12\x7f"))


def test_groups_within_each_other_do_not_overrun_the_stack() -> None:
    hostile = b"\x0b" * 1_500_000
    for parse in (deep.txn_request, deep.raft_request):
        with pytest.raises(DecodeError):
            parse(hostile)
    for within in (hostile, field_bytes(2, hostile)):  # in an operation, and in its put
        with pytest.raises(DecodeError):
            deep.txn_request(nested(100, within))


def test_measuring_a_wide_and_deep_request_ends_early() -> None:
    data = nested(60) + field_bytes(2, b"") * 500_000
    with pytest.raises(errors.TOO_MANY_OPS):
        deep.txn_request(data)
