"""Requests at the limits of size and of operations: real etcd and pyetcd refuse the same ones, in the same
words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from twins import Twins

from pyetcd.proto.rpc_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
)

REQUEST_BYTES = 1000
MESSAGE_BYTES = REQUEST_BYTES + (512 << 10)  # what the gRPC layer lets through
ENVELOPE_BYTES = (14, 15)  # about a logged request, one more with every second member ID
TXN_OPS = 4


@pytest.fixture(scope="module")
def twins(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    pair = Twins(
        goetcd, tmp_path_factory.mktemp("limits"), max_request_bytes=REQUEST_BYTES, max_txn_ops=TXN_OPS
    )
    yield pair
    pair.close()


def put_of(size: int) -> bytes:
    """A put whose message has so many bytes."""
    whole = PutRequest(key=b"k", value=bytes(size)).SerializeToString()
    payload = PutRequest(key=b"k", value=bytes(2 * size - len(whole))).SerializeToString()
    assert len(payload) == size
    return payload


@pytest.mark.parametrize(
    "size",
    [
        900,
        REQUEST_BYTES - ENVELOPE_BYTES[1] - 2,
        REQUEST_BYTES - ENVELOPE_BYTES[0],
        REQUEST_BYTES,
        REQUEST_BYTES + 1,
        MESSAGE_BYTES - 1,
        MESSAGE_BYTES,
        MESSAGE_BYTES + 1,
        3_000_000,
    ],
)
def test_a_put_too_large_is_refused_by_the_log_or_the_wire(twins: Twins, size: int) -> None:
    twins.begin(f"a put of {size} bytes")
    status = twins.ask_raw("/etcdserverpb.KV/Put", put_of(size))
    if size > MESSAGE_BYTES:
        assert status.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    else:
        assert (status.code is grpc.StatusCode.OK) is (size < REQUEST_BYTES - ENVELOPE_BYTES[0])


@pytest.mark.parametrize("size", [900, REQUEST_BYTES, 2 * REQUEST_BYTES, MESSAGE_BYTES + 100])
def test_keys_of_any_length_may_be_read_and_only_short_ones_written(twins: Twins, size: int) -> None:
    twins.begin(f"a key of {size} bytes")
    key = b"k" * size
    read = RequestOp(request_range=RangeRequest(key=key))
    put = RequestOp(request_put=PutRequest(key=key))
    twins.ask(RangeRequest(key=key))
    twins.ask_stream(RangeRequest(key=key))
    twins.ask(TxnRequest(success=[read]))
    twins.ask(TxnRequest(success=[put]))
    twins.ask(DeleteRangeRequest(key=key))
    if size > MESSAGE_BYTES:
        watch = WatchRequest(create_request=WatchCreateRequest(key=key))
        status = twins.ask_raw("/etcdserverpb.Watch/Watch", watch.SerializeToString())
        assert status.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("count", [TXN_OPS, TXN_OPS + 1])
def test_operations_of_a_transaction_are_limited_as_configured(twins: Twins, count: int) -> None:
    twins.begin(f"{count} operations")
    operations = [RequestOp(request_put=PutRequest(key=b"%d" % number)) for number in range(count)]
    answered = twins.ask(TxnRequest(success=operations))
    assert (answered is not None) is (count <= TXN_OPS)
    inner = RequestOp(request_txn=TxnRequest(success=operations[: count - 1]))
    answered = twins.ask(TxnRequest(failure=[inner]))
    assert (answered is not None) is (count <= TXN_OPS)
