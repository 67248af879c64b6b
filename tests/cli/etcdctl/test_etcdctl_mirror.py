"""`make-mirror` of real etcdctl 3.7.1 and ours ask the same of the destination, in the same order."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Queue

import grpc
import pytest
from both import Both
from ctl_runner import Etcdctl
from scripted import HEALTH

from pyetcd.proto.rpc_pb2 import (
    AuthenticateRequest,
    AuthenticateResponse,
    PutRequest,
    PutResponse,
    TxnRequest,
    TxnResponse,
)

REQUESTS = {"Put": PutRequest, "Txn": TxnRequest, "Authenticate": AuthenticateRequest}
ANSWERS = {"Put": PutResponse(), "Txn": TxnResponse(), "Authenticate": AuthenticateResponse(token="t")}
WAIT_SECONDS = 60
COMPACTED = b"Error: etcdserver: mvcc: required revision has been compacted\n"


class Destination(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Takes what it is told, and puts it in a queue with the token it came with."""

    def __init__(self) -> None:
        self.asked: Queue[tuple[str, str | None]] = Queue()
        self.endpoint = ""

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = call.method.rpartition("/")[2]
        if call.method == HEALTH or method not in ANSWERS:
            return None
        token = dict(call.invocation_metadata).get("token")

        def answer(request: bytes, _: grpc.ServicerContext) -> bytes:
            self.asked.put((f"{method} {REQUESTS[method].FromString(request)}", token))
            return ANSWERS[method].SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)

    def take(self, count: int) -> list[tuple[str, str | None]]:
        return [self.asked.get(timeout=WAIT_SECONDS) for _ in range(count)]


@pytest.fixture
def destination() -> Iterator[Destination]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    made = Destination()
    server.add_generic_rpc_handlers((made,))
    made.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield made
    server.stop(None).wait()


class Mirrors:
    def __init__(self, ctl: Etcdctl, both: Both, destination: Destination) -> None:
        self.ctl = ctl
        self.destination = destination
        self._programs = [[both.program], ctl.command()]

    @contextmanager
    def _mirror(self, program: list[str], *flags: str) -> Iterator[None]:
        command = [*program, "make-mirror", self.destination.endpoint, *flags]
        process = subprocess.Popen(command, env=self.ctl.variables(), stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def same(self, count: int, *flags: str, then: int = 0) -> list[tuple[str, str | None]]:
        """What both ask in `count` requests, and in `then` more after changes that are the same for both."""
        asked = []
        for program in self._programs:
            self.ctl("del", "", "--prefix")
            self.ctl("txn", stdin=b"\nput a/1 one\nput a/2 two\nput b/1 other\n\n\n")
            with self._mirror(program, *flags):
                told = self.destination.take(count)
                if then:
                    self.ctl("txn", stdin=b"\nput a/2 2\ndel a/1\nput a/a/3 3\nput b/2 x\n\n\n")
                    self.ctl("put", "a/4", "4")
                    told += self.destination.take(then)
            asked.append(told)
            assert self.destination.asked.empty()
        assert asked[0] == asked[1]
        return asked[1]


@pytest.fixture
def mirrors(ctl: Etcdctl, both: Both, destination: Destination) -> Mirrors:
    return Mirrors(ctl, both, destination)


def keys_of(asked: list[tuple[str, str | None]]) -> list[str]:
    return [part.split('"')[1] for told, _ in asked for part in told.splitlines() if "key:" in part]


def test_keys_are_put_and_their_changes_follow_revision_by_revision(mirrors: Mirrors) -> None:
    asked = mirrors.same(3, then=2)
    assert keys_of(asked) == ["a/1", "a/2", "b/1", "a/2", "a/1", "a/a/3", "b/2", "a/4"]


@pytest.mark.parametrize(
    ("flags", "keys"),
    [
        (["--prefix=a/"], ["a/1", "a/2", "a/2", "a/1", "a/a/3", "a/4"]),
        (["--prefix=a/", "--dest-prefix=x"], ["x1", "x2", "x2", "x1", "xa/3", "x4"]),
        (["--prefix=a/", "--no-dest-prefix"], ["1", "2", "2", "1", "a/3", "4"]),
        (["--prefix=a/", "--rev=1"], ["a/1", "a/2", "a/2", "a/1", "a/a/3", "a/4"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_prefix_is_kept_replaced_or_left_out(mirrors: Mirrors, flags: list[str], keys: list[str]) -> None:
    assert keys_of(mirrors.same(2, *flags, then=2)) == keys


def test_changes_of_one_revision_may_have_to_be_split(mirrors: Mirrors) -> None:
    asked = mirrors.same(3, "--max-txn-ops=2", then=3)
    assert [told.count("request_") for told, _ in asked[3:]] == [2, 2, 1]


def test_from_a_revision_on_only_changes_are_mirrored(mirrors: Mirrors) -> None:
    mirrors.ctl("put", "a/0", "0")
    revision = json.loads(mirrors.ctl("get", "a", "-w", "json").out)["header"]["revision"]
    with mirrors._mirror(mirrors._programs[1], f"--rev={revision}", "--dest-prefix=x/"):
        assert keys_of(mirrors.destination.take(1)) == ["x/a/0"]
        mirrors.ctl("put", "c", "1")
        assert keys_of(mirrors.destination.take(1)) == ["x/c"]


def test_the_destination_has_credentials_of_its_own(mirrors: Mirrors) -> None:
    for flags in (["--dest-user=u:p"], ["--dest-user=u", "--dest-password=p"]):
        asked = mirrors.same(4, *flags)
        assert asked[0][0].splitlines() == ['Authenticate name: "u"', 'password: "p"']
        assert [token for _, token in asked] == [None, "t", "t", "t"]


def test_history_that_is_gone_ends_the_mirror(mirrors: Mirrors, both: Both) -> None:
    mirrors.ctl("put", "a", "1")
    mirrors.ctl("put", "a", "2")
    revision = json.loads(mirrors.ctl("get", "a", "-w", "json").out)["header"]["revision"]
    assert mirrors.ctl("compaction", str(revision)).code == 0
    line = ["make-mirror", mirrors.destination.endpoint, "--rev=2", f"--endpoints={mirrors.ctl.endpoint}"]
    assert both.same(*line).err == COMPACTED


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 128),
        (["a", "b"], 128),
        (["127.0.0.1:1", "--dest-prefix=x", "--no-dest-prefix"], 128),
        (["127.0.0.1:1", "--dest-cert=x"], 128),
        (["127.0.0.1:1", "--dest-cacert=/no"], 128),
        (["127.0.0.1:1", "--dest-user=u:p", "--dial-timeout=100ms"], 2),
        (["127.0.0.1:1", "--max-recv-bytes=1", "--max-request-bytes=2"], 2),
        (["127.0.0.1:1", "--write-out=x"], 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_alike(both: Both, arguments: list[str], code: int) -> None:
    assert both.same("make-mirror", *arguments).code == code
