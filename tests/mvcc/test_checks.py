"""What may be proposed: etcd's answers, recorded from etcd 3.7.1 where they are not obvious."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyetcd.mvcc import checks
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest


def put(key: bytes, **options: object) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, **options))  # type: ignore[arg-type]


def delete(key: bytes, end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end))


def get(key: bytes, **options: object) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key, **options))  # type: ignore[arg-type]


def nested(*then: RequestOp, otherwise: tuple[RequestOp, ...] = ()) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(success=then, failure=otherwise))


def refusal(check: Callable[[], None]) -> type[EtcdError] | None:
    try:
        check()
    except EtcdError as error:
        return type(error)
    return None


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (RangeRequest(key=b"k"), None),
        (RangeRequest(), errors.EMPTY_KEY),
        (RangeRequest(key=b"k", sort_order=3), errors.INVALID_SORT_OPTION),  # type: ignore[arg-type]
        (RangeRequest(key=b"k", sort_target=5), errors.INVALID_SORT_OPTION),  # type: ignore[arg-type]
        (RangeRequest(key=b"k", sort_target=-1), errors.INVALID_SORT_OPTION),  # type: ignore[arg-type]
    ],
)
def test_a_range_needs_a_key_and_a_known_order(request_: RangeRequest, error: type[EtcdError] | None) -> None:
    assert refusal(lambda: checks.check_range(request_)) is error


def test_a_range_stream_takes_no_order_and_no_filter_of_its_own() -> None:
    checks.check_range_stream(RangeRequest(key=b"k", sort_order=RangeRequest.ASCEND))
    checks.check_range_stream(RangeRequest(key=b"k", sort_target=RangeRequest.VALUE))
    with pytest.raises(EtcdError, match="RangeStream does not support custom sort orders") as sorting:
        checks.check_range_stream(RangeRequest(key=b"k", sort_order=RangeRequest.DESCEND))
    assert sorting.value.code == errors.UNIMPLEMENTED
    with pytest.raises(EtcdError, match="RangeStream does not support revision filters"):
        checks.check_range_stream(RangeRequest(key=b"k", max_mod_revision=1))
    with pytest.raises(errors.EMPTY_KEY):
        checks.check_range_stream(RangeRequest())


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PutRequest(key=b"k"), None),
        (PutRequest(value=b"v"), errors.EMPTY_KEY),
        (PutRequest(key=b"k", value=b"v", ignore_value=True), errors.VALUE_PROVIDED),
        (PutRequest(key=b"k", ignore_value=True), None),
        (PutRequest(key=b"k", lease=1, ignore_lease=True), errors.LEASE_PROVIDED),
    ],
)
def test_a_put_says_what_it_ignores_or_gives_it(request_: PutRequest, error: type[EtcdError] | None) -> None:
    assert refusal(lambda: checks.check_put(request_)) is error


TRANSACTIONS: list[tuple[str, TxnRequest, type[EtcdError] | None]] = [
    ("empty", TxnRequest(), None),
    ("compare without key", TxnRequest(compare=[Compare()]), errors.EMPTY_KEY),
    ("put without key", TxnRequest(success=[put(b"")]), errors.EMPTY_KEY),
    ("delete without key", TxnRequest(failure=[delete(b"")]), errors.EMPTY_KEY),
    ("range with a bad order", TxnRequest(failure=[get(b"k", sort_order=7)]), errors.INVALID_SORT_OPTION),
    ("empty operation", TxnRequest(success=[RequestOp()]), errors.KEY_NOT_FOUND),
    ("key put twice", TxnRequest(success=[put(b"k"), put(b"k")]), errors.DUPLICATE_KEY),
    ("key put in both branches", TxnRequest(success=[put(b"k")], failure=[put(b"k")]), None),
    ("put and deleted", TxnRequest(success=[put(b"k"), delete(b"k")]), errors.DUPLICATE_KEY),
    ("put in a deleted range", TxnRequest(success=[delete(b"a", b"z"), put(b"k")]), errors.DUPLICATE_KEY),
    ("put at the end of a deleted range", TxnRequest(success=[delete(b"a", b"k"), put(b"k")]), None),
    (
        "put between two deleted ranges",
        TxnRequest(success=[delete(b"a", b"c"), delete(b"d", b"f"), put(b"c")]),
        None,
    ),
    ("range that ends before it starts", TxnRequest(success=[delete(b"z", b"a"), put(b"k")]), None),
    ("overlapping deletions", TxnRequest(success=[delete(b"a", b"c"), delete(b"b", b"d")]), None),
    (
        "put twice in a nested branch",
        TxnRequest(success=[nested(put(b"k")), put(b"k")]),
        errors.DUPLICATE_KEY,
    ),
    (
        "nested branches exclude each other",
        TxnRequest(success=[nested(put(b"k"), otherwise=(put(b"k"),))]),
        None,
    ),
    (
        "two nested ones put it",
        TxnRequest(success=[nested(put(b"k")), nested(put(b"k"))]),
        errors.DUPLICATE_KEY,
    ),
    (
        "nested deletion, then put",
        TxnRequest(success=[nested(delete(b"k")), put(b"k")]),
        errors.DUPLICATE_KEY,
    ),
    (
        "nested deletion, nested put",
        TxnRequest(success=[nested(delete(b"k")), nested(put(b"k"))]),
        errors.DUPLICATE_KEY,
    ),
    ("nested put, then nested deletion", TxnRequest(success=[nested(put(b"k")), nested(delete(b"k"))]), None),
    ("from-key deletion and put", TxnRequest(success=[delete(b"a", b"\0"), put(b"k", value=b"v")]), None),
    (
        "from-key deletion, put that keeps the value",
        TxnRequest(success=[delete(b"a", b"\0"), put(b"k", ignore_value=True)]),
        errors.DUPLICATE_KEY,
    ),
    (
        "from-key deletion, put that keeps the lease",
        TxnRequest(failure=[delete(b"k", b"\0"), put(b"k", ignore_lease=True)]),
        errors.DUPLICATE_KEY,
    ),
    (
        "from-key deletion behind the put",
        TxnRequest(success=[put(b"k", ignore_value=True), delete(b"a", b"\0")]),
        None,
    ),
    (
        "from-key deletion above the key",
        TxnRequest(success=[delete(b"l", b"\0"), put(b"k", ignore_value=True)]),
        None,
    ),
    (
        "nested from-key deletion",
        TxnRequest(
            success=[nested(get(b"x"), otherwise=(delete(b"a", b"\0"),)), put(b"k", ignore_lease=True)]
        ),
        errors.DUPLICATE_KEY,
    ),
    (
        "from-key deletion before a nested put",
        TxnRequest(success=[delete(b"a", b"\0"), nested(put(b"k", ignore_value=True))]),
        errors.DUPLICATE_KEY,
    ),
    (
        "from-key deletion in the other branch",
        TxnRequest(success=[nested(delete(b"a", b"\0"), otherwise=(put(b"k", ignore_value=True),))]),
        None,
    ),
]


@pytest.mark.parametrize(
    ("request_", "error"), [t[1:] for t in TRANSACTIONS], ids=[t[0] for t in TRANSACTIONS]
)
def test_a_transaction_does_nothing_twice_to_a_key(
    request_: TxnRequest, error: type[EtcdError] | None
) -> None:
    assert refusal(lambda: checks.check_txn(request_, 128)) is error


def test_the_number_of_operations_is_limited_over_all_levels() -> None:
    checks.check_txn(TxnRequest(success=[get(b"k")] * 128, failure=[get(b"k")] * 128), 128)
    for request in (
        TxnRequest(success=[get(b"k")] * 129),
        TxnRequest(compare=[Compare(key=b"k")] * 129),
        TxnRequest(success=[nested(*[get(b"k")] * 100)] * 29),
    ):
        with pytest.raises(errors.TOO_MANY_OPS):
            checks.check_txn(request, 128)
    checks.check_txn(TxnRequest(success=[nested(*[get(b"k")] * 100)] * 28), 128)


def test_many_puts_and_deletions_are_checked_quickly() -> None:
    operations = [put(b"p%06d" % n) for n in range(5000)] + [delete(b"d%06d" % n) for n in range(5000)]
    checks.check_txn(
        TxnRequest(success=operations), 10_000
    )  # quadratic, this would be 25,000,000 comparisons


def test_only_plain_ranges_make_a_transaction_read_only() -> None:
    assert checks.is_read_only(TxnRequest())
    assert checks.is_read_only(
        TxnRequest(compare=[Compare(key=b"k")], success=[get(b"k")], failure=[get(b"l")])
    )
    assert not checks.is_read_only(TxnRequest(success=[get(b"k"), put(b"k")]))
    assert not checks.is_read_only(TxnRequest(success=[nested(get(b"k"))]))
    assert checks.is_serializable(TxnRequest(success=[get(b"k", serializable=True)]))
    assert not checks.is_serializable(TxnRequest(success=[get(b"k", serializable=True)], failure=[get(b"k")]))
