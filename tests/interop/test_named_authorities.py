"""`GODEBUG=http2debug=2`: the names that calls address a member by are printed as Go prints them."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from servers import Etcd, GoEtcd, Server

from pyetcd.proto.rpc_pb2 import PutRequest, WatchRequest, WatchResponse

SECRET = "hunter2"
LINE = re.compile(
    r'\d{4}/\d\d/\d\d \d\d:\d\d:\d\d http2: decoded hpack field header field ":authority" = "(.*)"'
)


def authorities(server: Server) -> list[str]:
    lines = [line for line in server.printed.text().splitlines() if ":authority" in line]
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    return [match[1] for match in found if match]


def call_by(server: Server, name: str) -> None:
    """A put, and a watch."""
    options = [("grpc.default_authority", name)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        put(PutRequest(key=b"k").SerializeToString(), metadata=[("token", SECRET)], timeout=10)
        watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch", response_deserializer=WatchResponse.FromString
        )
        request = WatchRequest()
        request.create_request.key = b"k"
        answers = watch(iter([request.SerializeToString()]), timeout=10)
        assert next(answers).created


def named(server: Server) -> list[str]:
    with closing(server):
        call_by(server, "localhost:20000")
        call_by(server, "etcd.example:2379")
        server.stop()
        return [name for name in authorities(server) if not name.startswith("127.0.0.1")]


def test_each_call_has_a_line_as_with_real_etcd(
    goetcd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GODEBUG", "madvdontneed=1,http2debug=2")
    ours = Etcd(tmp_path / "ours")
    expected = ["localhost:20000", "localhost:20000", "etcd.example:2379", "etcd.example:2379"]
    assert named(ours) == expected
    assert SECRET not in ours.printed.text()
    assert named(GoEtcd(goetcd, tmp_path / "go")) == expected


@pytest.mark.parametrize("setting", ["", "http2debug=1", "http2debug=20"])
def test_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("GODEBUG", setting)
    with closing(Etcd(tmp_path)) as server:
        call_by(server, "localhost:20000")
        server.stop()
        assert authorities(server) == []
