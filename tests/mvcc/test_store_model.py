"""The store against a naive twin: the same requests, the same answers, the same stored history."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mvcc_pair import TINY, Pair

from pyetcd.mvcc import checks
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

KEYS = st.sampled_from([b"a", b"a\0", b"ab", b"b", b"c", b"cc", b"d", b"e", b"\xff", b"k" * 200])
ENDS = st.sampled_from([b"", b"\0", b"a", b"b", b"c", b"d", b"e\0", b"\xff\xff"])
VALUES = st.sampled_from([b"", b"1", b"2", b"0", b"x" * 130, b"\x30\x07"])
LEASE_IDS = st.sampled_from([0, 0, 0, 7, 1 << 62, 99])
REVISIONS = st.sampled_from([0, 0, 0, -1, 1, 2, 3, 5, 8, 12, 20])


@st.composite
def range_requests(draw: st.DrawFn) -> RangeRequest:
    request = RangeRequest(key=draw(KEYS), range_end=draw(ENDS))
    if draw(st.booleans()):
        request.revision = draw(REVISIONS)
        request.limit = draw(st.sampled_from([0, 0, 1, 2, 3, 50, -1]))
    if draw(st.booleans()):
        request.sort_order = draw(st.sampled_from([0, 1, 2]))
        request.sort_target = draw(st.sampled_from([0, 1, 2, 3, 4]))
        request.keys_only = draw(st.booleans())
        request.count_only = draw(st.sampled_from([False, False, True]))
    if draw(st.integers(0, 3)) == 0:
        request.min_mod_revision = draw(REVISIONS)
        request.max_mod_revision = draw(REVISIONS)
        request.min_create_revision = draw(REVISIONS)
        request.max_create_revision = draw(REVISIONS)
    return request


@st.composite
def put_requests(draw: st.DrawFn) -> PutRequest:
    request = PutRequest(key=draw(KEYS), prev_kv=draw(st.booleans()))
    if draw(st.integers(0, 4)):
        request.value = draw(VALUES)
    else:
        request.ignore_value = True
    if draw(st.integers(0, 4)):
        request.lease = draw(LEASE_IDS)
    else:
        request.ignore_lease = True
    return request


@st.composite
def delete_requests(draw: st.DrawFn) -> DeleteRangeRequest:
    return DeleteRangeRequest(key=draw(KEYS), range_end=draw(ENDS), prev_kv=draw(st.booleans()))


@st.composite
def compares(draw: st.DrawFn) -> Compare:
    compare = Compare(key=draw(KEYS), range_end=draw(ENDS), result=draw(st.integers(0, 3)))
    compare.target = draw(st.integers(0, 4))
    if compare.target == Compare.VALUE:
        compare.value = draw(VALUES)
    elif compare.target == Compare.LEASE:
        compare.lease = draw(LEASE_IDS)
    elif compare.target == Compare.VERSION:
        compare.version = draw(st.integers(0, 3))
    elif compare.target == Compare.MOD:
        compare.mod_revision = draw(REVISIONS)
    else:
        compare.create_revision = draw(REVISIONS)
    return compare


@st.composite
def operations(draw: st.DrawFn, depth: int) -> RequestOp:
    kind = draw(st.integers(0, 3 if depth else 2))
    if kind == 0:
        return RequestOp(request_range=draw(range_requests()))
    if kind == 1:
        return RequestOp(request_put=draw(put_requests()))
    if kind == 2:
        return RequestOp(request_delete_range=draw(delete_requests()))
    return RequestOp(request_txn=draw(txn_requests(depth - 1)))


@st.composite
def txn_requests(draw: st.DrawFn, depth: int = 2) -> TxnRequest:
    return TxnRequest(
        compare=draw(st.lists(compares(), max_size=2)),
        success=draw(st.lists(operations(depth), max_size=4)),
        failure=draw(st.lists(operations(depth), max_size=4)),
    )


def valid(request: TxnRequest) -> bool:
    try:
        checks.check_txn(request, 128)
    except EtcdError:
        return False
    return True


REQUESTS = st.one_of(
    put_requests(),
    put_requests(),
    delete_requests(),
    range_requests(),
    txn_requests().filter(valid),
    st.integers(1, 20),  # compact
    st.just("restart"),
    st.just("background"),
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in TINY:
        monkeypatch.setattr(module, name, value)


def play(requests: list[object]) -> None:
    async def run() -> None:
        pair = Pair()
        for request in requests:
            await pair.apply(request)
        await pair.check_all()
        await pair.close()

    asyncio.run(run())


MODEL = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@MODEL
@given(st.lists(REQUESTS, max_size=40))
def test_the_store_answers_every_request_as_its_twin(requests: list[object]) -> None:
    play(requests)


@pytest.mark.usefixtures("tiny")
@MODEL
@given(st.lists(REQUESTS, max_size=40))
def test_the_store_answers_as_its_twin_when_everything_is_cut_into_slices(requests: list[object]) -> None:
    play(requests)
