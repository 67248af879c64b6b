"""Whom a member with certificates lets in, and what it says of the others, beside real etcd."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from authority import Authority
from servers import free_port
from tls_servers import TlsServer, context, knock

Both = Callable[..., list[TlsServer]]


def served(authority: Authority) -> dict[str, object]:
    return {"cert_file": authority.directory / "server.pem", "key_file": authority.directory / "server.key"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.issue("server", ["127.0.0.1", "localhost"])
    made.issue("good", ["good.example", "127.0.0.1"])
    made.issue("other", ["other.example"])
    made.issue("revoked", ["revoked.example"])
    made.issue("curve", ["curve.example"], p521=True)
    made.revoke("revoked")
    Authority(made.directory / "foreign", "foreign").issue("stranger")
    return made


@pytest.fixture
def both(authority: Authority, mainetcd: Path, tmp_path: Path) -> Iterator[Both]:
    """Ours and real etcd, started with the same flags."""
    made: list[TlsServer] = []

    def start(**flags: object) -> list[TlsServer]:
        given = served(authority)
        for name, executable in (("ours", None), ("go", mainetcd)):
            made.append(TlsServer(executable, tmp_path / name, **given, **flags))
        return made

    yield start
    for each in made:
        each.close()


@pytest.fixture
def ours(authority: Authority, tmp_path: Path) -> Iterator[Callable[..., TlsServer]]:
    made: list[TlsServer] = []

    def start(**flags: object) -> TlsServer:
        given = served(authority)
        made.append(TlsServer(None, tmp_path / "only", **given, **flags))
        return made[0]

    yield start
    for each in made:
        each.close()


def same(servers: list[TlsServer], knocks: Callable[[TlsServer], object]) -> object:
    ours, theirs = (knocks(server) for server in servers)
    assert ours == theirs
    return ours


def test_clients_without_a_certificate_of_the_authority_and_revoked_ones_are_refused_in_the_same_words(
    both: Both, authority: Authority
) -> None:
    foreign = Authority.__new__(Authority)
    foreign.directory, foreign.ca = authority.directory / "foreign", authority.ca

    def knocks(server: TlsServer) -> object:
        assert knock(server.port, context(authority, "good"))
        assert knock(server.port, context(authority, "curve"))
        seen = []
        for count, how in enumerate(
            (context(authority), context(foreign, "stranger"), context(authority, "revoked")), 1
        ):
            assert not knock(server.port, how)
            seen = server.rejected(count)
        with socket.create_connection(("127.0.0.1", server.port), 5) as plain:
            plain.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while plain.recv(4096):
                pass
        return server.rejected(len(seen) + 1)

    lines = same(
        both(client_cert_auth=True, trusted_ca_file=authority.ca, client_crl_file=authority.crl), knocks
    )
    assert isinstance(lines, list)
    assert [line["error"] for line in lines] == [
        "tls: client didn't provide a certificate",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority",
        "transport: certificate serial 1004 revoked",
        "tls: first record does not look like a TLS handshake",
    ]
    assert [line["server-name"] for line in lines] == ["localhost", "localhost", "localhost", ""]
    assert lines[2]["dns-names"] == ["revoked.example"]


def test_only_clients_whose_certificate_bears_an_allowed_host_get_in(
    both: Both, authority: Authority
) -> None:
    def knocks(server: TlsServer) -> object:
        assert knock(server.port, context(authority, "good"))
        assert not knock(server.port, context(authority, "other"))
        return [line["error"] for line in server.rejected(1)]

    flags = {"trusted_ca_file": authority.ca, "client_cert_allowed_hostname": "x.example,good.example"}
    assert same(both(**flags), knocks) == ["client certificate authentication failed"]


def test_versions_and_suites_are_those_that_were_chosen(both: Both, authority: Authority) -> None:
    def limited(lowest: ssl.TLSVersion, highest: ssl.TLSVersion, ciphers: str = "") -> ssl.SSLContext:
        made = context(authority)
        made.minimum_version, made.maximum_version = lowest, highest
        if ciphers:
            made.set_ciphers(ciphers)
        return made

    new, old = ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2

    def knocks(server: TlsServer) -> object:
        taken = [
            knock(server.port, limited(new, new)),
            knock(server.port, limited(old, old, "ECDHE-ECDSA-AES128-GCM-SHA256")),
            knock(server.port, limited(old, old, "ECDHE-ECDSA-AES256-GCM-SHA384")),
        ]
        return taken, [line["error"] for line in server.rejected(2)]

    flags = {"tls_max_version": "TLS1.2", "cipher_suites": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}
    assert same(both(**flags), knocks) == (
        [False, True, False],
        [
            "tls: client offered only unsupported versions: [304]",
            "tls: no cipher suite supported by both client and server; client offered: [c02c ff]",
        ],
    )


def test_a_list_that_cannot_be_read_lets_nobody_with_a_certificate_in(
    both: Both, authority: Authority, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.crl"
    bad.write_bytes(b"nonsense")

    def knocks(server: TlsServer) -> object:
        assert not knock(server.port, context(authority, "good"))
        return [line["error"] for line in server.rejected(1)]

    assert same(both(trusted_ca_file=authority.ca, client_crl_file=bad), knocks) == ["x509: malformed crl"]


def test_revocation_counts_on_split_listeners_too(
    ours: Callable[..., TlsServer], authority: Authority
) -> None:
    flags = {"trusted_ca_file": authority.ca, "client_crl_file": authority.crl}
    port = free_port()
    servers = [ours(**flags, listen_client_http_urls=f"https://127.0.0.1:{port}")]
    assert knock(port, context(authority, "good"))
    assert not knock(port, context(authority, "revoked"))
    assert not knock(servers[0].port, context(authority, "revoked", alpn=["h2"]))
    assert [line["error"] for line in servers[0].rejected(2)] == [
        "transport: certificate serial 1004 revoked"
    ] * 2


def test_who_does_not_finish_a_handshake_is_turned_away_after_ten_seconds(
    both: Both, authority: Authority
) -> None:
    """Both at once, since it takes its time; whether a word was said or half a record makes no difference."""
    servers = both(trusted_ca_file=authority.ca)
    half = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    with ExitStack() as stack:
        clients = []
        for server in servers:
            for words in (b"", half):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 15))
                client.sendall(words)
                clients.append((server, client))
        began = time.monotonic()
        for _, client in clients:
            while client.recv(4096):
                pass
        assert 8 < time.monotonic() - began < 14
        told = []
        for server in servers:
            ports = [client.getsockname()[1] for each, client in clients if each is server]
            lines = [str(line["error"]) for line in server.rejected(2)]
            assert sorted(lines) == sorted(
                f"read tcp 127.0.0.1:{server.port}->127.0.0.1:{port}: i/o timeout" for port in ports
            )
            told.append([line | {"error": ""} for line in server.rejected(2)])
        assert told[0] == told[1]


def talk(port: int, data: bytes, *, half: bool = False, reset: bool = False) -> None:
    """Say this in the place of a hello, and go, or wait for the end."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(data)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if half:
            client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while client.recv(4096):
                pass


RECORDS = {
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "data": b"\x17\x03\x03\x00\x05hello",
    "a change of ciphers": b"\x14\x03\x01\x00\x01\x01",
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "another alert": b"\x15\x03\x01\x00\x02\x02\x30",
    "a hello of SSL 2": b"\x80\x2e\x01\x03\x01" + bytes(40),
    "a record too long": b"\x16\x03\x01\xff\xff" + bytes(200),
    "an empty hello": b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
}


def test_what_is_no_hello_is_told_of_in_the_same_words(both: Both, authority: Authority) -> None:
    def knocks(server: TlsServer) -> object:
        told = {}
        for count, (name, record) in enumerate(RECORDS.items(), 1):
            talk(server.port, record)
            told[name] = server.rejected(count)[-1]["error"]
        talk(server.port, b"\x16", half=True)
        told["a byte"] = server.rejected(len(RECORDS) + 1)[-1]["error"]
        talk(server.port, b"\x16\x03\x01", reset=True)
        reset = str(server.rejected(len(RECORDS) + 2)[-1]["error"])
        told["a reset"] = re.sub(r"127\.0\.0\.1:\d+", "address", reset)
        return told

    told = same(both(trusted_ca_file=authority.ca), knocks)
    assert isinstance(told, dict)
    assert told["an alert"] == "remote error: tls: handshake failure"
    assert told["a reset"] == "read tcp address->address: read: connection reset by peer"


def test_clients_that_offer_or_show_nothing_that_will_do_are_told_of_in_the_same_words(
    both: Both, authority: Authority
) -> None:
    authority.issue("expired", days=(-3, -2))
    authority.issue("early", days=(2, 3))

    def old() -> ssl.SSLContext:
        made = context(authority)
        made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_1
        made.set_ciphers("ALL:@SECLEVEL=0")
        return made

    def ancient_cipher() -> ssl.SSLContext:
        made = context(authority)
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers("DHE-RSA-AES128-GCM-SHA256")
        return made

    def knocks(server: TlsServer) -> object:
        told = []
        for count, how in enumerate(
            (
                context(authority, "expired"),
                context(authority, "early"),
                context(authority, "good", alpn=["x", "y"]),
                old(),
                ancient_cipher(),
            ),
            1,
        ):
            assert not knock(server.port, how)
            error = str(server.rejected(count)[-1]["error"])
            told.append(re.sub(r"current time \S+", "current time", error))
        return told

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        told = same(both(trusted_ca_file=authority.ca), knocks)
    assert isinstance(told, list)
    assert "certificate has expired or is not yet valid: current time is after 2" in told[0]
    assert told[2] == 'tls: client requested unsupported application protocols (["x" "y"])'
    assert told[3] == "tls: client offered only unsupported versions: [302 301]"
