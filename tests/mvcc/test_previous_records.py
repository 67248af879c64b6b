"""prev_kv of an event: what the key was before the revision, unless the event creates it."""

from __future__ import annotations

from mvcc_fakes import Background, Book, MemoryBackend

from pyetcd.mvcc.change import UNKNOWN, Change
from pyetcd.mvcc.store import Store
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RequestOp, TxnRequest


def test_a_put_behind_a_deletion_of_the_same_revision_replaces_nothing_seen_live_or_later() -> None:
    """As in etcd 3.7.1, to which it is an event of creation."""
    store = Store(MemoryBackend(), Book(), Background())
    live: list[Change] = []
    store.watch(lambda revision, changes: live.extend(changes), lambda revision, spans: None)
    store.put(PutRequest(key=b"b", value=b"1"))
    deletion = RequestOp(request_delete_range=DeleteRangeRequest(key=b"b", range_end=b"\0"))
    puts = [RequestOp(request_put=PutRequest(key=key, value=b"2")) for key in (b"a", b"b")]
    store.txn(TxnRequest(success=[puts[0], deletion, puts[1]]))
    for changes in (live, [Change(c.revision, c.deleted, c.key, c.record, UNKNOWN) for c in live]):
        previous = [store.previous_record(change) for change in changes]
        assert [(change.key, change.deleted) for change in changes] == [
            (b"b", False),
            (b"a", False),
            (b"b", True),
            (b"b", False),
        ]
        assert previous[0] is previous[1] is previous[3] is None
        assert previous[2] is not None
        assert KeyValue.FromString(previous[2]).value == b"1"
