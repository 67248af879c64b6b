"""Requests that end real etcd 3.7.1, or make its members lose keys, are refused here before they are logged,
or do what they should; the member goes on, and starts again.

Real etcd is not asked: with most of these, it would never start on its data again.
"""

from __future__ import annotations

import grpc
import pytest
from servers import Etcd
from twins import outcome_of, unary_call

from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    PutRequest,
    RequestOp,
    StatusRequest,
    StatusResponse,
    TxnRequest,
    TxnResponse,
)
from pyetcd.proto.splice import field_bytes

FROM_A = RequestOp(request_delete_range=DeleteRangeRequest(key=b"a", range_end=b"\0"))
KEEP_VALUE = RequestOp(request_put=PutRequest(key=b"b", ignore_value=True))
KEEP_LEASE = RequestOp(request_put=PutRequest(key=b"b", value=b"x", ignore_lease=True))
TOO_BIG = b"\xff" * 9 + b"\x02"  # a varint of 65 bits


def within(*operations: RequestOp) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(success=operations))


OVERLAPS = {
    "value": TxnRequest(success=[FROM_A, KEEP_VALUE]),
    "lease": TxnRequest(failure=[FROM_A, KEEP_LEASE]),
    "put within": TxnRequest(success=[FROM_A, within(KEEP_VALUE)]),
    "deletion within": TxnRequest(success=[within(FROM_A), KEEP_LEASE]),
    "both within": TxnRequest(success=[within(within(FROM_A)), within(KEEP_VALUE)]),
}
REFUSED = {
    **{
        name: ("KV/Txn", request.SerializeToString(), grpc.StatusCode.INVALID_ARGUMENT)
        for name, request in OVERLAPS.items()
    },
    "alarm action": (
        "Maintenance/Alarm",
        AlarmRequest(action=3, alarm=1).SerializeToString(),  # type: ignore[arg-type]
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "alarm action below zero": (
        "Maintenance/Alarm",
        AlarmRequest(action=-1, alarm=1).SerializeToString(),  # type: ignore[arg-type]
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "put of 65 bits": ("KV/Put", b"\n\x01b\x18" + TOO_BIG, grpc.StatusCode.INTERNAL),
    "put of 65 bits in a field nobody knows": ("KV/Put", b"\n\x01b\x78" + TOO_BIG, grpc.StatusCode.INTERNAL),
    "deletion of 65 bits": ("KV/DeleteRange", b"\n\x01b\x18" + TOO_BIG, grpc.StatusCode.INTERNAL),
    "compaction of 65 bits": ("KV/Compact", b"\x08" + TOO_BIG, grpc.StatusCode.INTERNAL),
    "transaction of 65 bits": (
        "KV/Txn",
        field_bytes(2, field_bytes(2, b"\n\x01b\x18" + TOO_BIG)),
        grpc.StatusCode.INTERNAL,
    ),
    "grant of 65 bits": ("Lease/LeaseGrant", b"\x08\x05\x10" + TOO_BIG, grpc.StatusCode.INTERNAL),
}


def logged(etcd: Etcd) -> int:
    status = etcd.call("Maintenance/Status", StatusRequest(), StatusResponse)
    assert isinstance(status, StatusResponse)
    return status.raftIndex


def test_what_would_end_real_etcd_is_refused_and_not_logged(etcd: Etcd) -> None:
    etcd.put(b"b", b"1")
    before, hashed = logged(etcd), etcd.hash()
    for name, (path, payload, code) in REFUSED.items():
        outcome = outcome_of(*unary_call(etcd, f"/etcdserverpb.{path}", payload))
        assert outcome.code is code, name
        assert logged(etcd) == before, name
    etcd.restart()
    assert etcd.hash() == hashed
    assert [kv.value for kv in etcd.range(b"b").kvs] == [b"1"]


@pytest.mark.parametrize(
    "request_",
    [
        TxnRequest(success=[KEEP_VALUE, FROM_A]),  # deleted afterwards
        TxnRequest(success=[FROM_A], failure=[KEEP_VALUE]),  # one or the other
        TxnRequest(
            success=[
                RequestOp(request_delete_range=DeleteRangeRequest(key=b"c", range_end=b"\0")),
                KEEP_VALUE,
            ]
        ),
    ],
)
def test_what_only_looks_like_it_is_done(etcd: Etcd, request_: TxnRequest) -> None:
    etcd.put(b"b", b"1")
    answer = etcd.call("KV/Txn", request_, TxnResponse)
    assert isinstance(answer, TxnResponse)
    assert answer.succeeded


def test_a_key_deleted_and_written_again_in_one_revision_survives_a_compaction_at_it(etcd: Etcd) -> None:
    """Real etcd removes it, and ends when it is read."""
    etcd.put(b"a", b"1")
    again = RequestOp(request_put=PutRequest(key=b"a", value=b"2"))
    answer = etcd.call("KV/Txn", TxnRequest(success=[FROM_A, again]), TxnResponse)
    assert isinstance(answer, TxnResponse)
    compaction = CompactionRequest(revision=answer.header.revision, physical=True)
    etcd.call("KV/Compact", compaction, CompactionResponse)
    for _ in range(2):
        assert [(kv.value, kv.version) for kv in etcd.range(b"a").kvs] == [(b"2", 1)]
        etcd.restart()
