"""Spans sent to an OpenTelemetry collector, beside real etcd's: the same requests, the same spans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from collector import Collector, Seen
from google.protobuf.message import Message
from servers import BENCH, ETCD, Etcd, GoEtcd, Server, build_go, free_port

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    StatusRequest,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
ALL = 1_000_000
SERVER = 2  # kind
BACKGROUND = ("server.address", "server.port")  # not known of a single call here

REQUESTS: list[tuple[str, Message]] = [
    ("KV/Put", PutRequest(key=b"k", value=b"secret")),
    ("KV/Range", RangeRequest(key=b"k", range_end=b"l", limit=3, keys_only=True)),
    ("KV/Range", RangeRequest(key=b"k", revision=900)),
    (
        "KV/Txn",
        TxnRequest(
            compare=[Compare(key=b"c", version=0, target=Compare.VERSION)],
            success=[
                RequestOp(request_range=RangeRequest(key=b"r")),
                RequestOp(request_put=PutRequest(key=b"p", lease=0)),
            ],
        ),
    ),
    ("KV/Txn", TxnRequest(failure=[RequestOp(request_range=RangeRequest(key=b"r"))])),
    ("KV/DeleteRange", DeleteRangeRequest(key=b"k", range_end=b"\0")),
    ("KV/Compact", CompactionRequest(revision=2, physical=True)),
    ("Lease/LeaseGrant", LeaseGrantRequest(ID=7, TTL=60)),
    ("Lease/LeaseRevoke", LeaseRevokeRequest(ID=7)),
    ("Lease/LeaseRevoke", LeaseRevokeRequest(ID=8)),
    ("Maintenance/Status", StatusRequest()),
    ("KV/Put", PutRequest()),
]


class FullGoEtcd(GoEtcd):
    """Started as ours."""

    def command(self) -> list[str]:
        return [str(self.executable), *Etcd.command(self)[1:]]  # type: ignore[arg-type]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with closing(Collector()) as collector:
        yield collector


@pytest.fixture(scope="module")
def full_goetcd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real etcd with all its flags."""
    return build_go(BENCH, "./cmd/etcd", tmp_path_factory.mktemp("etcd") / "etcd")


def flags(collector: Collector, rate: int) -> dict[str, object]:
    return {
        "enable-distributed-tracing": "true",
        "distributed-tracing-address": collector.address,
        "distributed-tracing-service-name": "test",
        "distributed-tracing-instance-id": "one",
        "distributed-tracing-sampling-rate": rate,
    }


def ask(server: Server, path: str, request: Message, metadata: tuple[tuple[str, str], ...] = ()) -> None:
    method = server.channel.unary_unary(f"/etcdserverpb.{path}")
    try:
        method(request.SerializeToString(), timeout=10, metadata=metadata)
    except grpc.RpcError:
        pass  # some are refused


def watch(server: Server) -> None:
    """One watcher, and then the client goes."""
    call = server.channel.stream_stream(
        "/etcdserverpb.Watch/Watch", response_deserializer=WatchResponse.FromString
    )
    create = WatchCreateRequest(key=b"w", range_end=b"\0", start_revision=3, prev_kv=True)
    responses = call(iter([WatchRequest(create_request=create).SerializeToString()]), timeout=10)
    for _ in responses:
        break
    responses.cancel()


def stream_range(server: Server) -> None:
    call = server.channel.unary_stream("/etcdserverpb.KV/RangeStream")
    list(call(RangeRequest(key=b"a", range_end=b"z", limit=2).SerializeToString(), timeout=10))


def spans_of(server: Server, collector: Collector) -> list[Seen]:
    """Of all requests, in an order of their own: a span within may be told after the one around it."""
    for path, request in REQUESTS:
        ask(server, path, request)
    stream_range(server)
    watch(server)
    server.stop()
    seen = [span for span in collector.seen() if span.name.split("/")[0] != "etcdserverpb.Cluster"]
    for span in seen:
        for name in BACKGROUND:
            span.attributes.pop(name, None)
    return sorted(seen, key=lambda span: (span.name, sorted(map(str, span.attributes.items()))))


def test_spans_are_those_of_real_etcd(tmp_path: Path, full_goetcd: Path) -> None:
    told = []
    for kind in ("ours", "go"):
        (tmp_path / kind).mkdir()
        with closing(Collector()) as collector:
            options = flags(collector, ALL)
            if kind == "ours":
                server: Server = Etcd(tmp_path / kind, **options)
            else:
                server = FullGoEtcd(full_goetcd, tmp_path / kind, **options)
            with closing(server):
                told.append(spans_of(server, collector))
            resource = {"service.name": "test", "service.instance.id": "one"}
            assert all(each == resource for each in collector.resources)
    ours, go = told
    assert ours == go


def test_a_clients_trace_is_continued_whatever_the_sampling_rate(
    tmp_path: Path, collector: Collector
) -> None:
    with closing(Etcd(tmp_path, **flags(collector, 0))) as server:
        ask(server, "KV/Put", PutRequest(key=b"not sampled"))
        ask(server, "KV/Put", PutRequest(key=b"k"), (("traceparent", f"00-{TRACE}-{PARENT}-01"),))
        ask(server, "KV/Put", PutRequest(key=b"k"), (("traceparent", f"00-{TRACE}-{PARENT}-00"),))
        collector.wait(2)
        server.stop()
    outer, inner = sorted(collector.spans(), key=lambda span: -span.kind)
    assert (outer.name, outer.kind) == ("etcdserverpb.KV/Put", SERVER)
    assert (outer.trace_id.hex(), outer.parent_span_id.hex()) == (TRACE, PARENT)
    assert (inner.name, inner.trace_id, inner.parent_span_id) == ("put", outer.trace_id, outer.span_id)
    assert outer.start_time_unix_nano < outer.end_time_unix_nano


def test_a_collector_that_is_not_there_is_a_line_in_the_log_and_no_more(tmp_path: Path) -> None:
    options = {
        "enable-distributed-tracing": "true",
        "distributed-tracing-address": f"127.0.0.1:{free_port()}",
        "distributed-tracing-sampling-rate": ALL,
    }
    with closing(Etcd(tmp_path, **options)) as server:
        server.put(b"k", b"v")
        assert server.range(b"k").kvs[0].value == b"v"
        assert server.stop() == -15
        lines = [json.loads(line) for line in server.printed.text().splitlines()]
    said = [line for line in lines if line["msg"] == "distributed tracing"]
    assert said
    assert {line["level"] for line in said} == {"warn"}


@pytest.fixture
def without_packages(tmp_path: Path) -> dict[str, str]:
    """An environment in which OpenTelemetry cannot be imported."""
    hidden = tmp_path / "hidden" / "opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('No module named opentelemetry')\n")
    return {**os.environ, "PYTHONPATH": str(hidden.parent)}


def test_a_start_that_wants_traces_without_the_packages_is_refused(
    tmp_path: Path, without_packages: dict[str, str]
) -> None:
    command = [sys.executable, str(ETCD), "--enable-distributed-tracing", f"--data-dir={tmp_path / 'data'}"]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=without_packages, cwd=tmp_path
    )
    assert ended.returncode == 1
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["level"] == "fatal"
    assert "pip install 'pyetcd[tracing]'" in last["error"]
    assert not (tmp_path / "data").exists()
