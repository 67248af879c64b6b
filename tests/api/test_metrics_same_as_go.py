"""The same requests to real etcd and to pyetcd move the same numbers by as much."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.message import Message
from scrape import Pair, Scrape, scrape, scrape_until, unary
from servers import Server

from pyetcd.proto.election_pb2 import CampaignRequest, LeaderRequest
from pyetcd.proto.lock_pb2 import LockRequest, UnlockRequest
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    StatusRequest,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
)

STORE = (
    "etcd_mvcc_range_total",
    "etcd_mvcc_put_total",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_txn_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total_sum",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_failed_total",
)


def put(**fields: object) -> RequestOp:
    return RequestOp(request_put=PutRequest(**fields))  # type: ignore[arg-type]


def get(**fields: object) -> RequestOp:
    return RequestOp(request_range=RangeRequest(**fields))  # type: ignore[arg-type]


def delete(**fields: object) -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(**fields))  # type: ignore[arg-type]


def txn(**fields: object) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(**fields))  # type: ignore[arg-type]


def unborn(key: bytes = b"z", range_end: bytes = b"") -> Compare:
    return Compare(key=key, range_end=range_end, version=0)


V2_STORE = "etcd_debugging_store_"  # some of its series come with a first snapshot of real etcd

IN_ORDER: list[tuple[str, Message]] = [
    ("KV/Put", PutRequest(key=b"a", value=b"hello")),
    ("KV/Put", PutRequest(key=b"a", value=b"hello", prev_kv=True)),
    ("KV/Put", PutRequest(key=b"b", value=b"hello", lease=99)),
    ("KV/Put", PutRequest(key=b"none", ignore_value=True)),
    ("KV/Put", PutRequest(key=b"a", ignore_value=True, prev_kv=True)),
    ("KV/Put", PutRequest(key=b"k", value=bytes(1600 << 10))),
    ("KV/Range", RangeRequest(key=b"a")),
    ("KV/Range", RangeRequest(key=b"a", revision=9999)),
    ("KV/Range", RangeRequest(key=b"a", range_end=b"z", limit=1)),
    ("KV/Range", RangeRequest()),
    ("KV/DeleteRange", DeleteRangeRequest(key=b"none")),
    ("KV/DeleteRange", DeleteRangeRequest(key=b"a", prev_kv=True)),
    ("KV/Txn", TxnRequest()),
    ("KV/Txn", TxnRequest(success=[get(key=b"p")])),
    ("KV/Txn", TxnRequest(success=[get(key=b"p"), get(key=b"p", range_end=b"q")])),
    ("KV/Txn", TxnRequest(success=[get(key=b"p"), get(key=b"p", revision=9999)])),
    ("KV/Txn", TxnRequest(compare=[unborn()], success=[get(key=b"p")])),
    ("KV/Txn", TxnRequest(compare=[unborn()], success=[put(key=b"p", value=b"v")])),
    ("KV/Txn", TxnRequest(compare=[unborn(), unborn(b"z", b"zz")], success=[put(key=b"p")])),
    (
        "KV/Txn",
        TxnRequest(
            compare=[Compare(key=b"z", version=7), unborn()],
            failure=[put(key=b"x"), put(key=b"y", value=b"1")],
        ),
    ),
    ("KV/Txn", TxnRequest(success=[put(key=b"p", value=b"v", prev_kv=True)])),
    ("KV/Txn", TxnRequest(success=[put(key=b"none", ignore_value=True)])),
    ("KV/Txn", TxnRequest(success=[put(key=b"p", lease=5)])),
    ("KV/Txn", TxnRequest(success=[delete(key=b"p", prev_kv=True)])),
    (
        "KV/Txn",
        TxnRequest(
            success=[
                txn(
                    compare=[unborn(), unborn()],
                    success=[
                        put(key=b"p", value=b"v"),
                        get(key=b"p"),
                        txn(success=[delete(key=b"x"), delete(key=b"y")]),
                    ],
                )
            ]
        ),
    ),
    ("KV/Txn", TxnRequest(success=[txn(success=[get(key=b"p")]), get(key=b"a")])),
    (
        "KV/Txn",
        TxnRequest(
            compare=[Compare(key=b"p", version=1)],
            success=[txn(success=[get(key=b"p")])],
            failure=[get(key=b"a")],
        ),
    ),
    ("Lease/LeaseGrant", LeaseGrantRequest(TTL=60, ID=77)),
    ("KV/Put", PutRequest(key=b"l1", lease=77)),
    ("KV/Put", PutRequest(key=b"l2", lease=77)),
    ("Lease/LeaseRevoke", LeaseRevokeRequest(ID=77)),
    ("Lease/LeaseGrant", LeaseGrantRequest(TTL=90, ID=78)),
    ("KV/Put", PutRequest(key=b"l1", lease=78)),
    ("Lease/LeaseRevoke", LeaseRevokeRequest(ID=78)),
    ("Lease/LeaseRevoke", LeaseRevokeRequest(ID=78)),
    ("KV/Compact", CompactionRequest(revision=3)),
    ("KV/Compact", CompactionRequest(revision=3)),
    ("KV/Compact", CompactionRequest(revision=9999)),
]


def test_every_operation_is_counted_as_real_etcd_counts_it(pair: Pair) -> None:
    for path, request in IN_ORDER:

        def act(server: Server, path: str = path, request: Message = request) -> tuple[str, str]:
            return unary(server, path, request)

        go, ours = pair.changes(STORE, act)
        assert ours == go, f"{path} {request}"


def test_messages_of_a_stream_count_as_ranges(pair: Pair) -> None:
    for server in (pair.go, pair.ours):
        for number in range(40):
            server.put(b"s%02d" % number, b"")

    def streamed(request: RangeRequest) -> Callable[[Server], object]:
        def act(server: Server) -> object:
            call = server.channel.unary_stream("/etcdserverpb.KV/RangeStream")
            try:
                return len(list(call(request.SerializeToString(), timeout=20)))
            except grpc.RpcError as error:
                return error.code().name

        return act

    for request in (
        RangeRequest(key=b"s", range_end=b"t"),
        RangeRequest(key=b"s", range_end=b"t", limit=15),
        RangeRequest(key=b"s", range_end=b"t", count_only=True),
        RangeRequest(key=b"s", range_end=b"t", revision=9999),
        RangeRequest(key=b"none"),
    ):
        go, ours = pair.changes(STORE, streamed(request))
        assert ours == go, str(request)


@pytest.mark.parametrize(
    "path",
    ["/health", "/health?serializable=true", "/livez", "/readyz", "/readyz?exclude=linearizable_read"],
)
def test_health_checks_read_as_often(pair: Pair, path: str) -> None:
    def act(server: Server) -> object:
        with urllib.request.urlopen(server.client_url + path, timeout=20) as response:
            return response.status

    names = (*STORE, "etcd_server_health_success")
    go, ours = pair.changes(names, act)
    assert ours == go


def watched(server: Server) -> None:
    """A watcher that sees three events, and leaves."""
    call = server.channel.stream_stream("/etcdserverpb.Watch/Watch")
    create = WatchRequest(create_request=WatchCreateRequest(key=b"w"))
    requests = Requests([create])
    answers = call(requests)
    next(answers)
    for _ in range(3):
        server.put(b"w", b"e")
        next(answers)
    answers.cancel()
    requests.close()


class Requests:
    """Messages of a client that keeps its half open until told."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = [message.SerializeToString() for message in messages]
        self._closed = threading.Event()

    def __iter__(self) -> Requests:
        return self

    def __next__(self) -> bytes:
        if self._messages:
            return self._messages.pop(0)
        self._closed.wait()
        raise StopIteration

    def close(self) -> None:
        self._closed.set()


def one_of_each(server: Server) -> None:
    """Calls that end in all kinds of ways."""
    for _ in range(6):
        watched(server)
    unary(server, "KV/Range", b"\x0a\x05ab")
    unary(server, "KV/Nothing", b"")
    unary(server, "KV/Put", b"\x0a\x80\x80\x80\x01" + bytes(1 << 21))
    unary(server, "Maintenance/Status", StatusRequest())
    stream = server.channel.stream_stream("/etcdserverpb.KV/RangeStream")
    for messages in ([], [b"\xff"], [RangeRequest(key=b"a").SerializeToString()], [b""]):
        try:
            list(stream(iter(messages), timeout=20))
        except grpc.RpcError:
            pass
    unary(server, "Lease/LeaseGrant", LeaseGrantRequest(TTL=60, ID=79))
    alive = [LeaseKeepAliveRequest(ID=79).SerializeToString()] * 3
    list(server.channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")(iter(alive), timeout=20))
    unary(server, "Lease/LeaseRevoke", LeaseRevokeRequest(ID=79))
    check = server.channel.unary_unary("/grpc.health.v1.Health/Check")
    check(b"", timeout=20)
    try:
        check(b"\x0a\x01a", timeout=20)
    except grpc.RpcError:
        pass


CANCELED = (
    'grpc_server_handled_total{grpc_code="Canceled",grpc_method="Watch",'
    'grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}'
)
EVENTS = "etcd_debugging_mvcc_events_total"
RECEIVED = "etcd_network_client_grpc_received_bytes_total"


def test_calls_and_messages_are_counted_as_by_go_grpcs_interceptors(pair: Pair) -> None:
    moved = []
    for server in (pair.go, pair.ours):
        before = scrape(server)
        one_of_each(server)
        after = scrape_until(server, lambda now, then=before: grown(now, then, CANCELED) == 6)
        assert grown(after, before, CANCELED) == 6, "after six canceled watches"
        counted = [name for name in before.values if name.startswith("grpc_server_")]
        moved.append({name: grown(after, before, name) for name in (*counted, EVENTS, RECEIVED)})
    assert moved[1] == moved[0]


def test_locks_and_elections_are_counted_as_by_real_etcd(pair: Pair) -> None:
    """Their methods from the first call on; what they ask of the member as requests, but not as calls."""
    counted = ("grpc_server_", "etcd_server_range_duration_seconds_count", "etcd_server_request_duration")
    moved = []
    for server in (pair.go, pair.ours):
        before = scrape(server).values
        unary(server, "Lease/LeaseGrant", LeaseGrantRequest(TTL=60, ID=80))
        for path, request in (
            ("/v3lockpb.Lock/Lock", LockRequest(name=b"l", lease=80)),
            ("/v3lockpb.Lock/Lock", LockRequest(name=b"l", lease=81)),
            ("/v3lockpb.Lock/Unlock", UnlockRequest(key=b"l/50")),
            ("/v3electionpb.Election/Leader", LeaderRequest(name=b"e")),
            ("/v3electionpb.Election/Campaign", CampaignRequest(name=b"e", lease=80)),
            ("/v3electionpb.Election/Leader", LeaderRequest(name=b"e")),
        ):
            try:
                server.channel.unary_unary(path)(request.SerializeToString(), timeout=20)
            except grpc.RpcError:
                pass
        after = scrape(server).values
        unary(server, "Lease/LeaseRevoke", LeaseRevokeRequest(ID=80))
        assert not any("v3lockpb" in name for name in before)
        moved.append(
            {
                name: number - before.get(name, 0)
                for name, number in after.items()
                if name.startswith(counted) and "_sum" not in name and "_bucket" not in name
            }
        )
    assert moved[1] == moved[0]
    assert any("v3lockpb" in name for name in moved[1])


def grown(after: Scrape, before: Scrape, name: str) -> float:
    return after.values[name] - before.values[name]


def test_real_etcds_families_are_all_there_and_of_the_same_type(pair: Pair) -> None:
    go, ours = scrape(pair.go), scrape(pair.ours)
    missing = {family for family in go.types() - ours.types() if V2_STORE not in str(family)}
    assert missing == set()
    extra = {name for name in ours.names() - go.names() if not name.startswith("etcd_grpc_proxy_")}
    assert extra <= {"pyetcd_loop_lag_seconds"}


def test_series_have_the_same_labels(pair: Pair) -> None:
    """But for what tells who it is, and times that only one of them took."""
    own = (V2_STORE, "etcd_server_id{", "etcd_server_go_version{", "go_info{", "etcd_network_known_peers{")
    timed = ("etcd_server_apply_duration", "etcd_server_request_duration", "etcd_server_client_requests")
    go, ours = (
        {name for name in scrape(server).values if not name.startswith((*own, "pyetcd_", "etcd_grpc_proxy_"))}
        for server in (pair.go, pair.ours)
    )
    assert {name for name in go ^ ours if not name.startswith(timed)} == set()
