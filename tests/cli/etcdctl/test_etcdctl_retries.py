"""What is tried again and what is not, against a server that counts and refuses."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from ctl_runner import Etcdctl

from pyetcd.proto import rpc_pb2


class Counting(grpc.GenericRpcHandler):
    """Answers every call with `status`, or the first `refusals` of them, and remembers what was called.
    Questions for its health do not count: with several endpoints each is asked whether it answers at all."""

    def __init__(self, status: grpc.StatusCode, message: str, refusals: int = 1000) -> None:
        self.status = status
        self.message = message
        self.refusals = refusals
        self.calls: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method.startswith("/grpc.health."):
            return None

        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls.append(details.method)
            if self.status is not grpc.StatusCode.OK and len(self.calls) <= self.refusals:
                context.abort(self.status, self.message)
            return rpc_pb2.RangeResponse(count=1).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture
def serve() -> Iterator[object]:
    servers: list[grpc.Server] = []

    def start(handler: Counting) -> str:
        server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None)


def test_a_write_is_never_sent_twice(serve) -> None:  # type: ignore[no-untyped-def]
    handlers = [Counting(grpc.StatusCode.UNAVAILABLE, "etcdserver: leader changed") for _ in range(2)]
    both = Etcdctl(",".join(serve(handler) for handler in handlers))
    for command, stdin in ((["put", "a", "b"], b""), (["del", "a"], b""), (["txn"], b"\nput a b\n\n\n")):
        ran = both(*command, stdin=stdin)
        assert (ran.code, ran.err) == (1, b"Error: etcdserver: leader changed\n")
    assert sum(len(handler.calls) for handler in handlers) == 3


def test_an_endpoint_that_accepts_and_never_answers_is_passed_over(serve) -> None:  # type: ignore[no-untyped-def]
    """As a stopped server does, for which the kernel accepts. The second one gets even a write."""
    good = Counting(grpc.StatusCode.OK, "")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        both = Etcdctl(f"127.0.0.1:{silent.getsockname()[1]},{serve(good)}")
        for command in (["get", "a"], ["put", "a", "b"], ["lease", "list"]):
            assert both(*command, "--command-timeout=30s", "--dial-timeout=60s").code == 0, command
    assert len(good.calls) == 3


def test_one_silent_endpoint_is_asked_until_the_time_is_over() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ran = Etcdctl(f"127.0.0.1:{silent.getsockname()[1]}")("get", "a", "--command-timeout=200ms")
    assert (ran.code, ran.err) == (1, b"Error: context deadline exceeded\n")


def test_what_failed_is_told_in_a_log_line_as_clientv3_writes_it(serve) -> None:  # type: ignore[no-untyped-def]
    refusing = Counting(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
    endpoint = serve(refusing)
    etcdctl = Etcdctl("")
    command = etcdctl.command("get", "a", f"--endpoints=http://{endpoint}")
    done = subprocess.run(command, capture_output=True, env=etcdctl.variables(), timeout=60)
    note, error = done.stderr.splitlines()
    assert error == b"Error: etcdserver: permission denied"
    told = json.loads(note)
    assert list(told) == [
        *("level", "ts", "logger", "caller", "msg", "target", "method", "attempt", "error"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", told.pop("ts"))
    assert re.fullmatch(rf"etcd-endpoints://0x[0-9a-f]+/{endpoint}", told.pop("target"))
    assert told == {
        "level": "warn",
        "logger": "etcd-client",
        "caller": "v3/retry_interceptor.go:68",
        "msg": "retrying of unary invoker failed",
        "method": "/etcdserverpb.KV/Range",
        "attempt": 0,
        "error": "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    }


def test_a_read_is_tried_at_the_next_endpoint(serve) -> None:  # type: ignore[no-untyped-def]
    bad = Counting(grpc.StatusCode.UNAVAILABLE, "etcdserver: leader changed")
    good = Counting(grpc.StatusCode.OK, "")
    both = Etcdctl(f"{serve(bad)},{serve(good)}")
    for tried in range(1, 31):  # each begins at any of them
        ran = both("get", "a", "-w", "json")
        assert (ran.code, ran.out) == (0, b'{"count":1}\n')
        assert len(good.calls) == tried
        if bad.calls:
            break
    assert len(bad.calls) == 1


def test_calls_begin_at_any_endpoint(serve) -> None:  # type: ignore[no-untyped-def]
    handlers = [Counting(grpc.StatusCode.OK, ""), Counting(grpc.StatusCode.OK, "")]
    both = Etcdctl(",".join(serve(handler) for handler in handlers))
    for _ in range(30):
        assert both("put", "a", "b").code == 0
        if all(handler.calls for handler in handlers):
            break
    assert all(handler.calls for handler in handlers)


def test_a_refusal_that_will_not_change_is_final_for_reads_too(serve) -> None:  # type: ignore[no-untyped-def]
    refusing = Counting(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
    ran = Etcdctl(serve(refusing))("get", "a")
    assert (ran.code, ran.err) == (1, b"Error: etcdserver: permission denied\n")
    assert len(refusing.calls) == 1


def test_a_read_gives_up_after_a_hundred_refusals(serve) -> None:  # type: ignore[no-untyped-def]
    refusing = Counting(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
    ran = Etcdctl(serve(refusing))("get", "a", "--command-timeout=60s")
    assert (ran.code, ran.err) == (1, b"Error: etcdserver: no leader\n")
    assert len(refusing.calls) == 100


def test_a_write_refused_because_users_have_changed_meanwhile_is_asked_again(serve) -> None:  # type: ignore[no-untyped-def]
    """Nothing has been written then. Nobody has logged in: whoever it is, a certificate tells."""
    changed = (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
    busy = Counting(*changed, refusals=3)
    assert Etcdctl(serve(busy))("put", "a", "b").code == 0
    assert busy.calls == ["/etcdserverpb.KV/Put"] * 4
    refusing = Counting(*changed)
    ran = Etcdctl(serve(refusing))("put", "a", "b", "--command-timeout=60s")
    assert (ran.code, ran.err) == (1, b"Error: etcdserver: revision of auth store is old\n")
    assert len(refusing.calls) == 100


def test_a_token_that_was_given_is_not_asked_for_again(serve) -> None:  # type: ignore[no-untyped-def]
    refusing = Counting(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
    ran = Etcdctl(serve(refusing))("put", "a", "b", "--auth-jwt-token=t")
    assert (ran.code, ran.err) == (1, b"Error: etcdserver: invalid auth token\n")
    assert len(refusing.calls) == 1


def test_an_unknown_error_is_shown_as_grpc_shows_it(serve) -> None:  # type: ignore[no-untyped-def]
    refusing = Counting(grpc.StatusCode.UNKNOWN, "strange")
    assert Etcdctl(serve(refusing))("get", "a").err == b"Error: rpc error: code = Unknown desc = strange\n"


def test_the_time_of_a_command_ends_its_tries(serve) -> None:  # type: ignore[no-untyped-def]
    refusing = Counting(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
    ran = Etcdctl(serve(refusing))("get", "a", "--command-timeout=300ms")
    assert (ran.code, ran.err) == (1, b"Error: context deadline exceeded\n")
    assert 1 < len(refusing.calls) < 100
