"""Endpoints in all their forms, and those that DNS names."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from threading import Thread

import pytest
from ctl_runner import Etcdctl

from pyetcd.cli.etcdctl import srv
from pyetcd.cli.exits import Exit
from pyetcd.cluster.endpoints import TLS_ALWAYS, TLS_AS_CONFIGURED, TLS_NEVER, Target


@pytest.mark.parametrize(
    ("endpoint", "address", "authority", "tls"),
    [
        ("host:1", "host:1", "host:1", TLS_AS_CONFIGURED),
        ("http://host:1", "host:1", "host:1", TLS_NEVER),
        ("https://user@host:1/path?query", "host:1", "host:1", TLS_ALWAYS),
        ("[::1]:2379", "[::1]:2379", "[::1]:2379", TLS_AS_CONFIGURED),
        (":2379", "localhost:2379", "localhost:2379", TLS_AS_CONFIGURED),
        ("unix:a.sock:1", "unix:a.sock:1", "a.sock:1", TLS_AS_CONFIGURED),
        ("unix://dir/localhost:1", "unix:dir/localhost:1", "localhost:1", TLS_AS_CONFIGURED),
        ("unixs:///abs/a.sock", "unix:/abs/a.sock", "a.sock", TLS_ALWAYS),
    ],
)
def test_an_endpoint_says_what_to_dial_and_as_whom(
    endpoint: str, address: str, authority: str, tls: str
) -> None:
    target = Target(endpoint)
    assert (target.address, target.authority, target.tls, target.problem) == (address, authority, tls, "")


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("", "dial tcp: missing address"),
        ("host", "dial tcp: address host: missing port in address"),
        ("http://", "dial tcp: missing address"),
        ("foo://host:1", "dial tcp: address foo://host:1: too many colons in address"),
        ("host:http", "dial tcp: lookup tcp/http: unknown port"),
        ("host:99999", "dial tcp: address 99999: invalid port"),
    ],
)
def test_what_is_no_address_fails_as_a_dial_does(endpoint: str, problem: str) -> None:
    assert Target(endpoint).problem == problem


def test_a_bad_endpoint_is_tried_until_the_time_is_over() -> None:
    ran = Etcdctl("nonsense")("get", "a", "--command-timeout=100ms")
    assert (ran.code, ran.err) == (1, b"Error: context deadline exceeded\n")


class Dns:
    """A name server that knows some SRV records; `truncated`: it says so to datagrams."""

    def __init__(self, records: dict[str, list[tuple[int, int, int, str]]], truncated: bool = False) -> None:
        self._records = records
        self._truncated = truncated
        self._tcp = socket.socket()
        self._tcp.bind(("127.0.0.1", 0))
        self._tcp.listen()
        self.address: tuple[str, int] = self._tcp.getsockname()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(self.address)
        Thread(target=self._serve_udp, daemon=True).start()
        Thread(target=self._serve_tcp, daemon=True).start()

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        try:
            while True:
                question, asker = self._udp.recvfrom(65535)
                answer = self._answer(question, 0x8200) if self._truncated else self._answer(question)
                self._udp.sendto(answer, asker)
        except OSError:
            return

    def _serve_tcp(self) -> None:
        try:
            while True:
                asker, _ = self._tcp.accept()
                with asker, asker.makefile("rb") as questions:
                    (length,) = struct.unpack("!H", questions.read(2))
                    answer = self._answer(questions.read(length))
                    asker.sendall(struct.pack("!H", len(answer)) + answer)
        except OSError:
            return

    def _answer(self, question: bytes, flags: int = 0x8180) -> bytes:
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        records = [] if flags & 0x0200 else self._records.get(".".join(labels), [])
        if not records and not flags & 0x0200:
            flags |= 3  # no such name
        answer = question[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + question[12:]
        for priority, weight, port, target in records:
            name = b"".join(bytes((len(part),)) + part.encode() for part in target.split(".")) + b"\xc0\x0c"
            data = struct.pack("!HHH", priority, weight, port) + name
            answer += b"\xc0\x0c" + struct.pack("!HHIH", 33, 1, 60, len(data)) + data
        return answer


@pytest.fixture(params=[False, True], ids=["in a datagram", "too long for one"])
def dns(request: pytest.FixtureRequest) -> Iterator[Dns]:
    records = {
        "_etcd-client._tcp.example": [(2, 0, 2379, "second"), (1, 5, 2380, "first")],
        "_etcd-client-ssl-blue._tcp.example": [(0, 0, 2381, "safe.one")],
    }
    server = Dns(records, request.param)
    yield server
    server.close()


def test_endpoints_are_those_a_domain_names(dns: Dns) -> None:
    suffix = "_etcd-client._tcp.example."
    assert srv.endpoints("example", "", [dns.address]) == [
        f"http://first.{suffix}:2380",
        f"http://second.{suffix}:2379",
    ]
    blue = srv.endpoints("example", "blue", [dns.address])
    assert blue == ["https://safe.one._etcd-client-ssl-blue._tcp.example.:2381"]


def test_a_domain_that_names_none_is_told(dns: Dns) -> None:
    with pytest.raises(Exit) as refused:
        srv.endpoints("nowhere", "", [dns.address])
    where = f"on {dns.address[0]}:{dns.address[1]}: no such host"
    assert refused.value.message == (
        f"dns lookup errors: lookup _etcd-client-ssl._tcp.nowhere {where}"
        f" and lookup _etcd-client._tcp.nowhere {where}"
    )
