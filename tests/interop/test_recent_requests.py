"""`/debug/requests`: which calls there were, and nothing that is secret."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from servers import Etcd, Server

from pyetcd.proto.rpc_pb2 import (
    AuthenticateRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

SECRET = b"hunter2"


@pytest.fixture(scope="module")
def debugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    directory = tmp_path_factory.mktemp("debugged")
    with closing(Etcd(directory, **{"log-level": "debug"})) as server:
        yield server


def page(server: Server, path: str) -> str:
    with urllib.request.urlopen(server.client_url + path, timeout=10) as response:
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        text: str = response.read().decode()
    return text


def ask(server: Server, path: str, payload: bytes) -> None:
    metadata = (("token", SECRET.decode()), ("authorization", SECRET.decode()))
    try:
        server.channel.unary_unary(path)(payload, timeout=10, metadata=metadata)
    except grpc.RpcError:
        pass  # some are refused


def test_calls_are_listed_by_service_and_time_without_values_and_secrets(debugged: Etcd) -> None:
    put = PutRequest(key=b"<key>", value=SECRET)
    requests = {
        "/etcdserverpb.KV/Put": put.SerializeToString(),
        "/etcdserverpb.KV/Txn": TxnRequest(success=[RequestOp(request_put=put)]).SerializeToString(),
        "/etcdserverpb.KV/Range": RangeRequest(key=b"k", revision=99).SerializeToString(),
        "/etcdserverpb.Auth/Authenticate": AuthenticateRequest(
            name="ann", password=SECRET.decode()
        ).SerializeToString(),
        "/v3lockpb.Lock/Unlock": b"\x0a\x07" + SECRET,
    }
    for path, payload in requests.items():
        ask(debugged, path, payload)
    front = page(debugged, "/debug/requests")
    assert '<a href="?fam=grpc.Recv.KV&amp;b=0">' in front
    assert "<td>grpc.Recv.Watch</td><td>[≥0s]</td>" in front, "nobody watched"
    listed = page(debugged, "/debug/requests?fam=grpc.Recv.KV&b=0")
    assert "<td>key:&quot;&lt;key&gt;&quot; value_size:7</td><td>OK</td>" in listed
    assert "request_put:&lt;key:" in listed
    failed = page(debugged, "/debug/requests?fam=grpc.Recv.KV&b=8")
    assert "OutOfRange: etcdserver: mvcc: required revision is a future revision" in failed
    assert "/etcdserverpb.KV/Put" not in failed
    others = page(debugged, "/debug/requests?fam=grpc.Recv.Auth&b=0")
    assert "/etcdserverpb.Auth/Authenticate" in others
    others += page(debugged, "/debug/requests?fam=grpc.Recv.Lock&b=0")
    for text in (front, listed, failed, others):
        assert SECRET.decode() not in text
    assert "ann" not in others


def test_only_the_last_calls_are_kept(debugged: Etcd) -> None:
    for _ in range(30):
        debugged.range(b"k")
    listed = page(debugged, "/debug/requests?fam=grpc.Recv.KV&b=0")
    assert listed.count("<td>/etcdserverpb.KV/Range</td>") == 10


@pytest.mark.parametrize("query", ["?fam=nobody&b=0", "?fam=grpc.Recv.KV&b=x", "?fam=grpc.Recv.KV&b=99", ""])
def test_what_is_asked_wrongly_gets_the_overview(debugged: Etcd, query: str) -> None:
    text = page(debugged, "/debug/requests" + query)
    assert "grpc.Recv.Maintenance" in text
    assert "<h2>" not in text


def test_the_page_of_events_has_none(debugged: Etcd) -> None:
    assert "No event logs are kept." in page(debugged, "/debug/events")


def test_at_other_levels_there_are_no_such_pages(tmp_path: Path) -> None:
    with closing(Etcd(tmp_path)) as server:
        for path in ("/debug/requests", "/debug/events"):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(server.client_url + path, timeout=10)
            assert error.value.code == 404
