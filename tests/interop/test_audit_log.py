"""The audit log of a running member: who asked for what, from where, how it ended; secrets nowhere."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from servers import ETCD, Etcd, free_port
from two_users import TWO_USERS

from pyetcd.proto import rpc_pb2
from pyetcd.proto.rpc_pb2 import (
    AuthenticateRequest,
    AuthenticateResponse,
    Compare,
    LeaseKeepAliveRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

Line = dict[str, object]
SECONDS = 10.0
SECRETS = ("pass-of-root", "pass-of-low", "new-pass", "hidden-value", "wrong-pass")


def flat(line: Line) -> Line:
    """With what was asked for beside who asked; tests have no request with a `user`."""
    request = line.get("request", {})
    assert isinstance(request, dict)
    assert not request.keys() & line.keys()
    return {name: value for name, value in line.items() if name != "request"} | request


class Audited:
    """A server with an audit log, a root and a low user who may touch `own`."""

    def __init__(self, directory: Path, **flags: object) -> None:
        self.path = directory / "audit.log"
        self.etcd = Etcd(directory, bcrypt_cost=4, audit_log_path=self.path, log_level="debug", **flags)
        self.tokens: dict[str, str] = {}
        for path, request in TWO_USERS:
            self.ask(path, request)
        self.lock()

    def lock(self) -> None:
        self.ask("Auth/AuthEnable", rpc_pb2.AuthEnableRequest())
        for name in ("root", "low"):
            request = AuthenticateRequest(name=name, password=f"pass-of-{name}")
            answer = self.etcd.call("Auth/Authenticate", request, AuthenticateResponse)
            assert isinstance(answer, AuthenticateResponse)
            self.tokens[name] = answer.token

    def metadata(self, user: str | None) -> tuple[tuple[str, str], ...]:
        return () if user is None else (("token", self.tokens.get(user, user)),)

    def ask(self, path: str, request: Message, user: str | None = None) -> grpc.StatusCode:
        method = self.etcd.channel.unary_unary(f"/etcdserverpb.{path}")
        try:
            method(request.SerializeToString(), metadata=self.metadata(user), timeout=SECONDS)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK

    def post(self, path: str, body: object, user: str | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.etcd.port, timeout=SECONDS)
        headers = {"Authorization": self.tokens[user]} if user is not None else {}
        connection.request("POST", path, json.dumps(body), headers)
        status = connection.getresponse().status
        connection.close()
        return status

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def found(self, wanted: Callable[[Line], bool]) -> Line:
        """The newest line that is such, waited for: the file is written aside."""
        deadline = time.monotonic() + SECONDS
        while True:
            for line in reversed(self.lines()):
                if wanted(line):
                    return line
            assert time.monotonic() < deadline, self.path.read_text()[-4000:]
            time.sleep(0.01)

    def of(self, rpc: str, **fields: object) -> Line:
        line = self.found(
            lambda line: line["rpc"] == f"/etcdserverpb.{rpc}" and fields.items() <= flat(line).items()
        )
        line = flat(line)
        assert str(line.pop("remote")).startswith("127.0.0.1:")
        assert str(line.pop("ts")).endswith("Z")
        assert isinstance(line.pop("seconds"), float)
        del line["rpc"]
        return line


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    made = Audited(tmp_path_factory.mktemp("audited"))
    yield made
    made.etcd.close()


def test_a_call_is_noted_with_its_user_keys_and_outcome(server: Audited) -> None:
    server.ask("KV/Put", PutRequest(key=b"own1", value=b"hidden-value"), "low")
    assert server.of("KV/Put", key="own1") == {"user": "low", "key": "own1", "code": "OK"}
    server.ask("KV/Range", RangeRequest(key=b"own", range_end=b"owo"), "low")
    told = {"user": "low", "key": "own", "range_end": "owo", "code": "OK"}
    assert server.of("KV/Range", key="own") == told


def test_calls_that_are_refused_are_noted_with_why(server: Audited) -> None:
    for user, code, why in (
        ("low", "PermissionDenied", "etcdserver: permission denied"),
        (None, "InvalidArgument", "etcdserver: user name is empty"),
        ("stranger.1", "Unauthenticated", "etcdserver: invalid auth token"),
    ):
        key = f"foreign-{user}"
        server.ask("KV/Put", PutRequest(key=key.encode(), value=b"hidden-value"), user)
        who = {"user": user} if user == "low" else {}
        assert server.of("KV/Put", key=key) == {**who, "key": key, "code": code, "error": why}


def test_calls_over_json_are_noted_alike(server: Audited) -> None:
    assert server.post("/v3/kv/range", {"key": "b3du"}, "low") == 200
    told = {"user": "low", "via": "gateway", "key": "own", "code": "OK"}
    assert server.of("KV/Range", via="gateway", key="own") == told
    assert server.post("/v3/kv/range", {"key": "YWxpZW4="}, "low") == 403
    denied = server.of("KV/Range", via="gateway", key="alien")
    assert denied["code"] == "PermissionDenied"
    assert server.post("/v3/maintenance/defragment", {}) == 400
    assert server.of("Maintenance/Defragment", via="gateway")["code"] == "InvalidArgument"


def test_a_transaction_is_noted_with_all_its_operations_at_any_depth(server: Audited) -> None:
    inner = TxnRequest(
        compare=[Compare(key=b"own-c", target=Compare.VALUE, value=b"hidden-value")],
        success=[RequestOp(request_put=PutRequest(key=b"own-p", value=b"hidden-value"))],
        failure=[RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"own-\xff"))],
    )
    outer = TxnRequest(success=[RequestOp(request_txn=inner)])
    server.ask("KV/Txn", outer, "low")
    assert server.of("KV/Txn")["operations"] == [
        {"operation": "compare", "key": "own-c"},
        {"operation": "put", "key": "own-p"},
        {"operation": "delete", "key_base64": "b3duLf8="},
    ]
    many = TxnRequest(success=[RequestOp(request_range=RangeRequest(key=b"own"))] * 100)
    server.ask("KV/Txn", many, "low")
    line = server.of("KV/Txn", operations_left_out=36)
    assert len(line["operations"]) == 64  # type: ignore[arg-type]


def test_a_long_key_is_cut_and_its_length_told(server: Audited) -> None:
    server.ask("KV/Put", PutRequest(key=b"own" + b"x" * 5000), "low")
    line = server.of("KV/Put", key_bytes=5003)
    assert line["key"] == "own" + "x" * 1021


def test_a_watch_is_noted_when_it_is_asked_for(server: Audited) -> None:
    watch = server.etcd.channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=WatchRequest.SerializeToString,
        response_deserializer=WatchResponse.FromString,
    )
    for key, code in ((b"own", "OK"), (b"foreign", "PermissionDenied")):
        request = WatchRequest(create_request=WatchCreateRequest(key=key))
        call = watch(iter([request]), metadata=server.metadata("low"), timeout=SECONDS)
        next(call)
        line = server.of("Watch/Watch", watch="create", key=key.decode())
        assert (line["user"], line["code"]) == ("low", code)
        call.cancel()
    assert server.of("Watch/Watch", code="Canceled") == {"user": "low", "code": "Canceled"}


def test_streams_are_noted_at_their_end_and_at_the_door(server: Audited) -> None:
    channel = server.etcd.channel
    keep = channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")
    renewals = [LeaseKeepAliveRequest(ID=5).SerializeToString()] * 2
    list(keep(iter(renewals), metadata=server.metadata("root"), timeout=SECONDS))
    line = server.of("Lease/LeaseKeepAlive")
    assert (line["leases"], line["messages"], line["code"]) == ([5], 2, "OK")
    snapshot = channel.stream_stream("/etcdserverpb.Maintenance/Snapshot")
    with pytest.raises(grpc.RpcError):
        list(snapshot(iter([b""]), metadata=server.metadata("low"), timeout=SECONDS))
    line = server.of("Maintenance/Snapshot", code="PermissionDenied")
    assert line["user"] == "low"
    ranged = channel.stream_stream("/etcdserverpb.KV/RangeStream")
    request = RangeRequest(key=b"own", range_end=b"owo").SerializeToString()
    list(ranged(iter([request]), metadata=server.metadata("low"), timeout=SECONDS))
    line = server.of("KV/RangeStream", key="own")
    assert (line["user"], line["range_end"], line["code"]) == ("low", "owo", "OK")


def test_who_turns_authentication_off_is_noted(server: Audited) -> None:
    assert server.ask("Auth/AuthDisable", rpc_pb2.AuthDisableRequest(), "root") is grpc.StatusCode.OK
    assert server.of("Auth/AuthDisable") == {"user": "root", "code": "OK"}
    server.lock()
    server.ask("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="low", role="none"), "root")
    line = server.found(lambda line: "GrantRole" in str(line["rpc"]) and line["code"] != "OK")
    assert (line["user"], line["request"]) == ("root", {"user": "low", "role": "none"})


def test_neither_secrets_nor_values_nor_tokens_are_in_it_nor_in_the_log(server: Audited) -> None:
    change = rpc_pb2.AuthUserChangePasswordRequest(name="low", password="new-pass")
    server.ask("Auth/UserChangePassword", change, "root")
    change.password = "pass-of-low"
    server.ask("Auth/UserChangePassword", change, "root")
    wrong = AuthenticateRequest(name="low", password="wrong-pass")
    server.ask("Auth/Authenticate", wrong)
    line = server.of("Auth/Authenticate", code="InvalidArgument")
    assert line["name"] == "low"
    server.ask("KV/Put", PutRequest(key=b"own-last", value=b"hidden-value"), "low")
    server.of("KV/Put", key="own-last")
    text = server.path.read_text() + server.etcd.printed.text()
    for secret in (*SECRETS, *server.tokens.values()):
        assert secret not in text
    assert "$2a$" not in text, "a hash"


def test_the_file_is_its_owners_and_rotates(tmp_path: Path) -> None:
    made = Audited(tmp_path, audit_log_rotation_config_json='{"maxsize": 1, "maxbackups": 1}')
    try:
        assert made.path.stat().st_mode & 0o777 == 0o600
        key = b"own" + b"x" * 1000
        put = made.etcd.channel.unary_unary("/etcdserverpb.KV/Put")
        payload = PutRequest(key=key).SerializeToString()
        for _ in range(10):
            calls = [put.future(payload, metadata=made.metadata("low"), timeout=SECONDS) for _ in range(250)]
            assert all(call.exception() is None for call in calls)
        made.etcd.stop()
        backups = [path for path in tmp_path.glob("audit-*.log") if path != made.path]
        assert len(backups) == 1
        assert all(path.stat().st_size <= 1 << 20 for path in (made.path, *backups))
        for path in (made.path, *backups):
            assert all(json.loads(line)["rpc"] for line in path.read_text().splitlines())
    finally:
        made.etcd.close()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--audit-log-path=/nowhere/at/all"], "no such file or directory"),
        (["--audit-log-path=x", "--audit-log-rotation-config-json={"], "improperly formatted log rotation"),
    ],
)
def test_a_file_that_cannot_be_had_ends_the_start(tmp_path: Path, flags: list[str], why: str) -> None:
    listen = [f"--listen-{side}-urls=http://127.0.0.1:{free_port()}" for side in ("client", "peer")]
    advertise = f"--advertise-client-urls=http://127.0.0.1:{free_port()}"
    command = [str(ETCD), f"--data-dir={tmp_path / 'data'}", *listen, advertise, *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert why in ended.stderr
