"""Applying what the log brings: all or nothing, whatever it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mvcc_fakes import Background, Book, MemoryBackend

from pyetcd.mvcc.answer import Answer, finish
from pyetcd.mvcc.change import Change
from pyetcd.mvcc.store import Store
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    TxnResponse,
)


class Member:
    """A store with what is around it, and a log of what watchers were told."""

    def __init__(self, *leases: int) -> None:
        self.backend = MemoryBackend()
        self.book = Book(*leases)
        self.background = Background()
        self.store = Store(self.backend, self.book, self.background)
        self.told: list[tuple[int, list[Change]]] = []
        self.store.watch(
            lambda revision, changes: self.told.append((revision, list(changes))),
            lambda revision, spans: self.told.append((revision, [])),
        )

    def everything(self) -> tuple[object, ...]:
        return (
            self.store.revision,
            self.backend.scan(b"key", b""),
            dict(self.book.keys),
            list(self.told),
            finish(self.store.hash_kv(0)),
        )


def put(key: bytes, **options: object) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, **options))  # type: ignore[arg-type]


def delete(key: bytes, end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end))


IMPOSSIBLE: list[tuple[str, list[RequestOp], type[EtcdError]]] = [
    (
        "a put that keeps the value of a key deleted before it",
        [put(b"a"), delete(b"b", b"\0"), put(b"k", ignore_value=True)],
        errors.KEY_NOT_FOUND,
    ),
    (
        "a put that keeps the lease of a key deleted before it",
        [delete(b"k"), put(b"k", ignore_lease=True)],
        errors.KEY_NOT_FOUND,
    ),
    (
        "the same within a nested transaction",
        [delete(b"a", b"z"), RequestOp(request_txn=TxnRequest(success=[put(b"k", ignore_value=True)]))],
        errors.KEY_NOT_FOUND,
    ),
    (
        "a put that keeps what was never there",
        [put(b"a"), put(b"none", ignore_value=True)],
        errors.KEY_NOT_FOUND,
    ),
    ("an operation without a request", [put(b"a"), RequestOp()], errors.KEY_NOT_FOUND),
    ("a lease that is gone", [put(b"a"), put(b"b", lease=9)], errors.LEASE_NOT_FOUND),
    (
        "a future revision",
        [put(b"a"), RequestOp(request_range=RangeRequest(key=b"a", revision=99))],
        errors.FUTURE_REVISION,
    ),
    ("a kept lease that is gone", [put(b"a"), put(b"lost", ignore_lease=True)], errors.LEASE_NOT_FOUND),
]


@pytest.mark.parametrize(("operations", "error"), [i[1:] for i in IMPOSSIBLE], ids=[i[0] for i in IMPOSSIBLE])
def test_what_cannot_be_applied_changes_nothing(operations: list[RequestOp], error: type[EtcdError]) -> None:
    member = Member(7, 8)
    member.store.put_simple(b"k", b"v", 7)
    member.store.put_simple(b"lost", b"v", 8)
    member.book.leases.discard(8)
    del member.book.keys[b"lost"]
    before = member.everything()
    with pytest.raises(error):
        member.store.txn(TxnRequest(success=operations))
    assert member.everything() == before


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PutRequest(key=b"k", lease=9), errors.LEASE_NOT_FOUND),
        (PutRequest(key=b"none", ignore_value=True), errors.KEY_NOT_FOUND),
        (PutRequest(key=b"none", lease=9, ignore_value=True), errors.LEASE_NOT_FOUND),
    ],
)
def test_a_put_that_cannot_be_applied_changes_nothing(request_: PutRequest, error: type[EtcdError]) -> None:
    member = Member(7)
    member.store.put_simple(b"k", b"v", 7)
    before = member.everything()
    with pytest.raises(error):
        member.store.put(request_)
    assert member.everything() == before


def test_keys_move_between_leases_with_every_put() -> None:
    member = Member(7, 8)
    store, keys = member.store, member.book.keys
    store.put_simple(b"k", b"v", 7)
    assert keys == {b"k": 7}
    store.put_simple(b"k", b"v", 8)
    assert keys == {b"k": 8}
    store.put(PutRequest(key=b"k", value=b"w", ignore_lease=True))
    assert keys == {b"k": 8}
    store.put_simple(b"k", b"v")
    assert keys == {}
    store.put_simple(b"k", b"v", 7)
    store.delete_range(DeleteRangeRequest(key=b"k"))
    assert keys == {}


def test_revoking_a_lease_deletes_its_keys_in_key_order_under_one_revision() -> None:
    member = Member(7)
    for key in (b"b", b"a", b"c"):
        member.store.put_simple(key, b"v", 7)
    assert member.store.delete_keys([b"c", b"gone", b"b", b"a"]) == 3
    revision, changes = member.told[-1]
    assert revision == member.store.revision == 5
    assert [change.key for change in changes] == [b"a", b"b", b"c"]
    assert member.store.delete_keys([b"a"]) == 0
    assert member.store.revision == 5


def test_watchers_are_told_what_changed_and_can_ask_what_was_before() -> None:
    member = Member()
    store = member.store
    store.put_simple(b"k", b"1")
    store.put_simple(b"k", b"2")
    store.delete_range(DeleteRangeRequest(key=b"k"))
    changes = [change for _, [change] in member.told]
    assert [change.deleted for change in changes] == [False, False, True]
    assert KeyValue.FromString(changes[1].record).version == 2
    assert KeyValue.FromString(changes[2].record) == KeyValue(key=b"k", mod_revision=4)
    first, second, third = (store.previous_record(change) for change in changes)
    assert first is None
    assert (second, third) == (changes[0].record, changes[1].record)
    reader = store.events(1)
    read = reader.read(store.revision, 2) + reader.read(store.revision, 2)
    assert [change.record for change in read] == [change.record for change in changes]
    assert reader.next_revision == 5
    assert [store.previous_record(change) for change in read] == [first, second, third]


def test_answers_within_an_answer_have_a_header_with_the_revision_as_it_was_then() -> None:
    member = Member()
    inner = TxnRequest(success=[put(b"n")])
    read = RequestOp(request_range=RangeRequest(key=b"k"))
    answer = member.store.txn(
        TxnRequest(success=[read, delete(b"x"), put(b"k"), read, RequestOp(request_txn=inner), delete(b"y")])
    )
    assert isinstance(answer, Answer)
    response = TxnResponse.FromString(b"".join(answer.body))
    assert answer.revision == 2
    first, gone, written, second, nested, last = response.responses
    assert first.response_range.header.revision == gone.response_delete_range.header.revision == 1
    assert written.response_put.header.revision == second.response_range.header.revision == 2
    assert second.response_range.count == 1
    assert nested.response_txn.HasField("header")
    assert nested.response_txn.header.revision == 0
    assert nested.response_txn.responses[0].response_put.header.revision == 2
    assert last.response_delete_range.header.revision == 2


def test_a_condition_over_many_keys_is_looked_at_in_slices_before_anything_is_applied() -> None:
    member = Member()
    for number in range(5000):
        member.store.put_simple(b"%05d" % number, b"v")
    everywhere = Compare(key=b"0", range_end=b"\0", target=Compare.VALUE, result=Compare.EQUAL, value=b"v")
    applied = member.store.txn(TxnRequest(compare=[everywhere], success=[put(b"x")]))
    assert not isinstance(applied, Answer)
    before = member.store.revision
    steps: Callable[[], object] = applied.steps.__next__  # type: ignore[union-attr]
    steps()
    assert member.store.revision == before
    answer = finish(applied.steps)  # type: ignore[union-attr]
    assert isinstance(answer, Answer)
    assert TxnResponse.FromString(b"".join(answer.body)).succeeded
    assert answer.revision == member.store.revision == before + 1


def test_deleting_many_keys_leaves_room_for_later_puts_and_keeps_commits_away() -> None:
    member = Member(7)
    store = member.store
    for number in range(6000):
        store.put_simple(b"%05d" % number, b"v", 7 if number % 2 else 0)
    work = store.delete_range(DeleteRangeRequest(key=b"00500", range_end=b"05500", prev_kv=True))
    assert not isinstance(work, Answer)
    assert member.told[-1] == (6002, [])
    assert store.settled_revision == 6001
    assert member.backend.held
    assert store.events(6002).read(store.revision, 10) == []
    store.put_simple(b"01000", b"again")  # of the middle of what was deleted
    store.put_simple(b"00001", b"beside it")
    assert store.revision == 6004
    member.background.step()
    assert member.backend.held
    answer = finish(work)
    response = DeleteRangeResponse.FromString(b"".join(answer.body))
    assert (answer.revision, response.deleted, len(response.prev_kvs)) == (6002, 5000, 5000)
    member.background.run()
    assert not member.backend.held
    assert store.settled_revision == store.revision
    assert len(member.book.keys) == 499  # 500 odd ones outside, less 00001
    events = store.events(6002).read(store.revision, 10_000)
    assert [change.key for change in events[:5000]] == [b"%05d" % number for number in range(500, 5500)]
    assert [(change.deleted, change.key) for change in events[5000:]] == [
        (False, b"01000"),
        (False, b"00001"),
    ]
    again = store.range(RangeRequest(key=b"01000"))
    assert isinstance(again, Answer)
    assert KeyValue.FromString(again.body[1]).version == 1
