"""`--experimental-leasing-prefix`: reads without the cluster, never a stale one, beside etcd's proxy."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from programs import GO, executable
from running import OURS, SECONDS, Proxy, proxy
from servers import Etcd, Server

from pyetcd.proto.rpc_pb2 import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

FLAG = "--experimental-leasing-prefix="


class Client:
    """Calls through one proxy."""

    def __init__(self, started: Proxy, flag: str) -> None:
        self.prefix = flag.removeprefix(FLAG).encode()
        self._channel = grpc.insecure_channel(started.address)

    def _call(self, name: str, request: object, answer: type) -> object:
        method = self._channel.unary_unary(
            f"/etcdserverpb.KV/{name}", lambda message: message.SerializeToString(), answer.FromString
        )
        return method(request, timeout=SECONDS)

    def put(self, key: bytes, value: bytes) -> PutResponse:
        answer = self._call("Put", PutRequest(key=key, value=value), PutResponse)
        assert isinstance(answer, PutResponse)
        return answer

    def get(self, key: bytes) -> list[tuple[bytes, int]]:
        """Value and version, if it is there."""
        answer = self._call("Range", RangeRequest(key=key), RangeResponse)
        assert isinstance(answer, RangeResponse)
        return [(kv.value, kv.version) for kv in answer.kvs]

    def delete(self, key: bytes, end: bytes = b"") -> int:
        answer = self._call("DeleteRange", DeleteRangeRequest(key=key, range_end=end), DeleteRangeResponse)
        assert isinstance(answer, DeleteRangeResponse)
        return answer.deleted

    def txn(self, request: TxnRequest) -> TxnResponse:
        answer = self._call("Txn", request, TxnResponse)
        assert isinstance(answer, TxnResponse)
        return answer

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module", params=["ours", "go"])
def two(
    request: pytest.FixtureRequest, member: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, Client]]:
    """A proxy of ours, and beside it another of either kind."""
    directory = tmp_path_factory.mktemp("proxies")
    endpoints = f"--endpoints=127.0.0.1:{member.port}"
    # What a proxy that was killed has leased is leased for a minute: none must meet it.
    flag = f"{FLAG}{request.param}/"
    other = OURS if request.param == "ours" else executable(GO)
    with (
        proxy("grpc-proxy", directory, endpoints, flag) as one,
        proxy("grpc-proxy", directory, endpoints, flag, program=other) as two,
    ):
        clients = Client(one, flag), Client(two, flag)
        yield clients
        for client in clients:
            client.close()


def test_what_one_writes_the_other_reads_at_once(two: tuple[Client, Client]) -> None:
    first, second = two
    for number in range(10):
        writer, reader = (first, second) if number % 2 else (second, first)
        value = b"%d" % number
        writer.put(b"turns", value)
        assert reader.get(b"turns")[0][0] == value
        assert writer.get(b"turns")[0][0] == value


def test_a_key_that_was_read_is_held_and_written_by_its_holder(
    two: tuple[Client, Client], member: Server
) -> None:
    ours = two[0]
    ours.put(b"mine", b"1")
    version = ours.get(b"mine")[0][1]
    assert len(member.range(ours.prefix + b"mine").kvs) == 1
    ours.put(b"mine", b"2")
    assert ours.get(b"mine") == [(b"2", version + 1)]
    assert len(member.range(ours.prefix + b"mine").kvs) == 1
    assert ours.delete(b"mine") == 1
    assert ours.get(b"mine") == []
    ours.put(b"mine", b"3")
    assert ours.get(b"mine") == [(b"3", 1)]


def test_transactions_and_ranges_take_keys_away(two: tuple[Client, Client]) -> None:
    first, second = two
    for each in two:
        for key in (b"r/a", b"r/b"):
            each.put(key, b"1")
            assert each.get(key)[0][0] == b"1"
    txn = TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"r/a", value=b"2"))])
    assert first.txn(txn).succeeded
    assert second.get(b"r/a")[0][0] == b"2"
    assert first.get(b"r/a")[0][0] == b"2"
    assert first.delete(b"r/", b"r0") == 2
    assert first.get(b"r/a") == second.get(b"r/a") == first.get(b"r/b") == second.get(b"r/b") == []


def test_counters_raised_through_both_lose_nothing(two: tuple[Client, Client]) -> None:
    first = two[0]
    begun = first.get(b"count")
    version = begun[0][1] if begun else 0
    failures: list[BaseException] = []

    def raise_it(client: Client) -> None:
        try:
            for number in range(20):
                client.put(b"count", b"%d" % number)
                client.get(b"count")
        except BaseException as error:
            failures.append(error)

    # The other kind may write twice where it writes once (clientv3's leasing does), ours never does.
    threads = [threading.Thread(target=raise_it, args=(first,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not failures
    assert first.get(b"count")[0][1] == version + 80
    assert two[1].get(b"count")[0][1] == version + 80


def test_held_keys_are_read_without_the_cluster(tmp_path: Path) -> None:
    server = Etcd(tmp_path / "member")
    try:
        with proxy(
            "grpc-proxy", tmp_path, f"--endpoints=127.0.0.1:{server.port}", f"{FLAG}leases/"
        ) as started:
            client = Client(started, FLAG)
            client.put(b"k", b"v")
            assert client.get(b"k") == [(b"v", 1)]
            server.process.send_signal(signal.SIGSTOP)
            assert client.get(b"k") == [(b"v", 1)]
            server.process.send_signal(signal.SIGCONT)
            client.close()
    finally:
        server.close()
