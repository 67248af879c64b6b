"""One member as a process: real clients do real work, and what was acknowledged survives kill -9."""

from __future__ import annotations

import signal

import grpc
import pytest
from servers import Etcd

from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)


def test_puts_ranges_transactions_and_deletions_answer_as_etcd_does(etcd: Etcd) -> None:
    assert etcd.put(b"a", b"1") == 2
    assert etcd.put(b"b", b"2") == 3
    found = etcd.range(b"a", b"c")
    assert [(kv.key, kv.value, kv.mod_revision) for kv in found.kvs] == [(b"a", b"1", 2), (b"b", b"2", 3)]
    guard = Compare(key=b"a", target=Compare.MOD, result=Compare.EQUAL, mod_revision=2)
    update = RequestOp(request_put=PutRequest(key=b"a", value=b"3"))
    answer = etcd.call("KV/Txn", TxnRequest(compare=[guard], success=[update]), TxnResponse)
    assert isinstance(answer, TxnResponse)
    assert answer.succeeded
    assert answer.header.revision == 4
    etcd.call("KV/DeleteRange", DeleteRangeRequest(key=b"b"), RangeResponse)
    assert etcd.range(b"a", b"c").count == 1


def test_bad_input_gets_etcds_code_and_text(etcd: Etcd) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        etcd.put(b"", b"x")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "etcdserver: key is not provided"


def test_sigterm_stops_it_cleanly_and_a_restart_has_everything(etcd: Etcd) -> None:
    for number in range(100):
        etcd.put(b"key-%03d" % number, b"v")
    before = etcd.hash()
    assert etcd.stop(signal.SIGTERM) == -signal.SIGTERM  # stopped cleanly, then re-raised, as etcd does
    etcd.start()
    assert etcd.range(b"key-", b"key.").count == 100
    assert etcd.hash() == before


def test_no_acknowledged_write_is_lost_over_many_kills(etcd: Etcd) -> None:
    written = 0
    for _ in range(5):
        for _ in range(40):
            etcd.put(b"key-%05d" % written, b"%d" % written)
            written += 1
        before = etcd.hash()
        etcd.stop(signal.SIGKILL)
        etcd.start()
        found = etcd.range(b"key-", b"key.")
        assert [kv.value for kv in found.kvs] == [b"%d" % number for number in range(written)]
        assert etcd.hash() == before
