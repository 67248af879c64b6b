"""Requests a second by user and by connection, and passwords that are remembered: what a running member does
with the flags that real etcd has not."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import grpc
import pytest
from servers import CHANNEL_OPTIONS, Etcd

from pyetcd.proto import rpc_pb2
from pyetcd.proto.rpc_pb2 import (
    AuthenticateRequest,
    AuthenticateResponse,
    LeaseKeepAliveRequest,
    RangeRequest,
)

A_SECOND = 20
SECONDS = 10.0
RANGE = RangeRequest(key=b"k").SerializeToString()
Metadata = Sequence[tuple[str, str]]


def locked(etcd: Etcd, *names: str) -> dict[str, str]:
    """Authentication on, all of them root; their tokens."""
    etcd.call("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="root"), rpc_pb2.AuthRoleAddResponse)
    for name in names:
        added = rpc_pb2.AuthUserAddRequest(name=name, password="p")
        etcd.call("Auth/UserAdd", added, rpc_pb2.AuthUserAddResponse)
        granted = rpc_pb2.AuthUserGrantRoleRequest(user=name, role="root")
        etcd.call("Auth/UserGrantRole", granted, rpc_pb2.AuthUserGrantRoleResponse)
    etcd.call("Auth/AuthEnable", rpc_pb2.AuthEnableRequest(), rpc_pb2.AuthEnableResponse)
    return {name: authenticate(etcd, name, "p") for name in names}


def authenticate(etcd: Etcd, name: str, password: str) -> str:
    request = AuthenticateRequest(name=name, password=password)
    answer = etcd.call("Auth/Authenticate", request, AuthenticateResponse)
    assert isinstance(answer, AuthenticateResponse)
    return answer.token


def ranges(channel: grpc.Channel, count: int, metadata: Metadata = ()) -> list[tuple[str, str]]:
    """How so many requests at once end: code and text."""
    method = channel.unary_unary("/etcdserverpb.KV/Range")
    calls = [method.future(RANGE, metadata=metadata, timeout=SECONDS) for _ in range(count)]
    return [(call.code().name, call.details()) for call in calls]


def refused(ends: list[tuple[str, str]], of: str = "connection") -> int:
    told = ("RESOURCE_EXHAUSTED", f"etcdserver: too many requests of this {of}, at most 20 a second")
    assert set(ends) <= {("OK", ""), told}
    return ends.count(told)


@pytest.fixture(scope="module")
def by_connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    etcd = Etcd(tmp_path_factory.mktemp("by-connection"), max_requests_per_connection=A_SECOND)
    yield etcd
    etcd.close()


@pytest.fixture(scope="module")
def by_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    etcd = Etcd(tmp_path_factory.mktemp("by-user"), bcrypt_cost=4, max_requests_per_user=A_SECOND)
    yield etcd
    etcd.close()


def another(etcd: Etcd) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{etcd.port}", options=CHANNEL_OPTIONS)


def test_a_connection_that_asks_too_much_is_told_so_and_others_go_on(by_connection: Etcd) -> None:
    with another(by_connection) as greedy, another(by_connection) as modest:
        assert refused(ranges(greedy, 5 * A_SECOND)) >= 3 * A_SECOND
        assert refused(ranges(modest, A_SECOND)) == 0


def test_who_keeps_within_the_limit_is_never_refused(by_connection: Etcd) -> None:
    with another(by_connection) as channel:
        began = time.monotonic()
        for _ in range(3):
            assert refused(ranges(channel, A_SECOND)) == 0
            while time.monotonic() - began < 1.05:
                time.sleep(0.01)  # what is tested is the time itself
            began = time.monotonic()


def test_over_json_the_answer_is_429(by_connection: Etcd) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", by_connection.port, timeout=SECONDS)
    told = []
    for _ in range(3 * A_SECOND):
        connection.request("POST", "/v3/kv/range", '{"key":"aw=="}')
        answer = connection.getresponse()
        told.append((answer.status, json.loads(answer.read())))
    connection.close()
    statuses = [status for status, _ in told]
    assert statuses[:A_SECOND] == [200] * A_SECOND
    body = next(body for status, body in told if status == 429)
    assert body == {
        "code": 8,
        "message": "etcdserver: too many requests of this connection, at most 20 a second",
    }


def test_a_stream_that_says_too_much_is_ended(by_connection: Etcd) -> None:
    with another(by_connection) as channel:
        keep = channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")
        renewals = iter([LeaseKeepAliveRequest(ID=1).SerializeToString()] * (3 * A_SECOND))
        with pytest.raises(grpc.RpcError) as told:
            list(keep(renewals, timeout=SECONDS))
        assert told.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_user_has_one_limit_over_all_connections_and_others_theirs(by_user: Etcd) -> None:
    tokens = locked(by_user, "root", "greedy", "modest")
    greedy, modest = ((("token", tokens[name]),) for name in ("greedy", "modest"))
    with another(by_user) as one, another(by_user) as two:
        counts = [refused(ranges(channel, 2 * A_SECOND, greedy), "user") for channel in (one, two)]
        assert sum(counts) >= 2 * A_SECOND
        assert refused(ranges(one, A_SECOND, modest), "user") == 0


def test_a_wrong_token_is_told_what_is_wrong_with_it_however_often(by_user: Etcd) -> None:
    with another(by_user) as channel:
        ends = ranges(channel, 3 * A_SECOND, (("token", "wrong.1"),))
    assert set(ends) == {("UNAUTHENTICATED", "etcdserver: invalid auth token")}


def test_a_remembered_password_saves_the_comparison_until_users_change(tmp_path: Path) -> None:
    """At a cost of 11 a comparison takes some 100 ms, what is remembered a few."""
    etcd = Etcd(tmp_path, bcrypt_cost=11, password_cache_ttl="1m")
    try:
        token = locked(etcd, "root", "a")["root"]

        def seconds(password: str, works: bool) -> float:
            began = time.monotonic()
            with nullcontext() if works else pytest.raises(grpc.RpcError, match="invalid user ID"):
                authenticate(etcd, "a", password)
            return time.monotonic() - began

        right = min(seconds("p", works=True) for _ in range(3))
        wrong = min(seconds("q", works=False) for _ in range(3))
        assert right < wrong / 3
        change = rpc_pb2.AuthUserChangePasswordRequest(name="a", password="q")
        method = etcd.channel.unary_unary("/etcdserverpb.Auth/UserChangePassword")
        method(change.SerializeToString(), metadata=(("token", token),), timeout=SECONDS)
        with pytest.raises(grpc.RpcError):
            authenticate(etcd, "a", "p")
        assert authenticate(etcd, "a", "q")
    finally:
        etcd.close()
