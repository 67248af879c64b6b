"""RangeStream: the messages together are the range, cut as etcd cuts them."""

from __future__ import annotations

import pytest
from mvcc_fakes import Background, Book, MemoryBackend

from pyetcd.mvcc.reader import Reader
from pyetcd.mvcc.store import Store
from pyetcd.mvcc.stream import StreamMessage
from pyetcd.proto.errors import COMPACTED, FUTURE_REVISION
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, RangeRequest, RangeResponse

LIMIT = 1_572_864


def filled(count: int, value: bytes = b"v") -> Store:
    store = Store(MemoryBackend(), Book(), Background())
    for number in range(count):
        store.put_simple(b"%06d" % number, value)
    return store


def messages(store: Store, request: RangeRequest, limit: int = LIMIT) -> list[RangeResponse]:
    found = []
    for message in store.range_stream(request, limit):
        if message is not None:
            assert message.size == sum(map(len, message.body))
            response = RangeResponse.FromString(b"".join(message.body))
            response.header.revision = message.revision
            found.append(response)
    return found


def test_messages_double_until_they_are_half_as_large_as_a_request_may_be() -> None:
    sizes = [len(message.kvs) for message in messages(filled(5000), RangeRequest(key=b"0", range_end=b"\0"))]
    assert sizes == [10, 20, 40, 80, 160, 320, 640, 1280, 2450]
    sizes = [
        len(m.kvs)
        for m in messages(filled(400, b"x" * 1000), RangeRequest(key=b"0", range_end=b"\0"), 100_000)
    ]
    assert sizes == [10, 20, 40, 80, 80, 80, 80, 10]
    sizes = [
        len(m.kvs) for m in messages(filled(31, b"x" * 1000), RangeRequest(key=b"0", range_end=b"\0"), 1000)
    ]
    assert sizes == [10, 5, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_only_the_last_message_has_header_count_and_more() -> None:
    store = filled(100)
    first, second, last = messages(store, RangeRequest(key=b"0", range_end=b"\0", limit=50))
    for message in (first, second):
        assert (message.header.revision, message.count, message.more) == (0, 0, False)
    assert (last.header.revision, last.count, last.more) == (101, 100, True)
    [only] = messages(store, RangeRequest(key=b"000099"))
    assert (len(only.kvs), only.header.revision, only.count, only.more) == (1, 101, 1, False)
    [none] = messages(store, RangeRequest(key=b"x", range_end=b"y"))
    assert (len(none.kvs), none.header.revision, none.count) == (0, 101, 0)
    [counted] = messages(store, RangeRequest(key=b"0", range_end=b"\0", count_only=True))
    assert (len(counted.kvs), counted.count) == (0, 100)


def test_a_stream_shows_the_revision_it_began_at() -> None:
    store = filled(100)
    stream = store.range_stream(RangeRequest(key=b"0", range_end=b"\0", keys_only=True), LIMIT)
    first = next(stream)
    assert isinstance(first, StreamMessage)
    store.delete_range(DeleteRangeRequest(key=b"000050", range_end=b"\0"))
    store.put_simple(b"000011a", b"later")
    rest = [message for message in stream if message is not None]
    keys = [kv.key for m in (first, *rest) for kv in RangeResponse.FromString(b"".join(m.body)).kvs]
    assert keys == [b"%06d" % number for number in range(100)]
    assert rest[-1].revision == 101


def test_a_stream_fails_when_a_compaction_overtakes_it() -> None:
    store = filled(100)
    stream = store.range_stream(RangeRequest(key=b"0", range_end=b"\0"), LIMIT)
    next(stream)
    store.put_simple(b"x", b"y")
    reader: Reader = store._reader
    reader.compact_revision = store.revision  # accepted; its work may not have begun
    with pytest.raises(COMPACTED):
        list(stream)
    with pytest.raises(COMPACTED):
        next(store.range_stream(RangeRequest(key=b"0", revision=5), LIMIT))
    with pytest.raises(FUTURE_REVISION):
        next(store.range_stream(RangeRequest(key=b"0", revision=500), LIMIT))


def test_a_sort_target_without_an_order_sorts_each_message_and_loses_nothing() -> None:
    store = Store(MemoryBackend(), Book(), Background())
    for number in range(30):
        store.put_simple(b"%06d" % number, b"%06d" % (1000 - number))
    request = RangeRequest(key=b"0", range_end=b"\0", sort_target=RangeRequest.VALUE)
    found = messages(store, request)
    assert [len(message.kvs) for message in found] == [10, 20]
    for message in found:
        values = [kv.value for kv in message.kvs]
        assert values == sorted(values)
    assert {kv.key for message in found for kv in message.kvs} == {b"%06d" % number for number in range(30)}
    request = RangeRequest(key=b"0", range_end=b"\0", limit=2, sort_target=1, keys_only=True)
    keys_only = messages(store, request)
    assert [(kv.key, kv.value) for kv in keys_only[0].kvs] == [(b"000000", b""), (b"000001", b"")]
