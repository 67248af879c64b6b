"""Where a member listens: plain and TLS on one port, Unix sockets, gRPC and HTTP apart."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from servers import Etcd, free_port

from pyetcd.proto.rpc_pb2 import PutRequest

CERTS = Path(__file__).parents[1] / "native" / "certs"
CA = (CERTS / "ca.pem").read_bytes()
PUT = PutRequest(key=b"k", value=b"v").SerializeToString()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Etcd]]:
    members: list[Etcd] = []
    yield members
    for member in members:
        member.close()


def put(channel: grpc.Channel) -> bytes:
    with channel:
        answer: bytes = channel.unary_unary("/etcdserverpb.KV/Put")(PUT, timeout=10)
        return answer


def secured(directory: Path, port: int, **flags: object) -> Etcd:
    """A member with a certificate, on an https URL unless `flags` say otherwise."""
    url = f"https://127.0.0.1:{port}"
    settings = {
        "cert_file": CERTS / "server.pem",
        "key_file": CERTS / "server.key",
        "listen_client_urls": url,
        "advertise_client_urls": url,
    }
    return Etcd(directory, **{**settings, **flags})


def version(url: str) -> bytes:
    context = ssl.create_default_context(cadata=CA.decode()) if url.startswith("https") else None
    with urllib.request.urlopen(f"{url}/version", timeout=10, context=context) as response:
        body: bytes = response.read()
        return body


def test_one_port_takes_tls_and_plain_text_when_both_are_asked_for(
    tmp_path: Path, started: list[Etcd]
) -> None:
    port = free_port()
    both = f"http://127.0.0.1:{port},https://127.0.0.1:{port}"
    member = secured(tmp_path, port, listen_client_urls=both)
    started.append(member)
    credentials = grpc.ssl_channel_credentials(CA)
    assert put(grpc.insecure_channel(f"127.0.0.1:{port}"))
    assert put(grpc.secure_channel(f"localhost:{port}", credentials))
    assert version(f"http://127.0.0.1:{port}") == version(f"https://localhost:{port}")
    assert '"msg":"serving client traffic securely"' in member.printed.text()


def test_https_alone_takes_no_plain_text(tmp_path: Path, started: list[Etcd]) -> None:
    port = free_port()
    started.append(secured(tmp_path, port))
    assert put(grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(CA)))
    with pytest.raises(grpc.RpcError):
        put(grpc.insecure_channel(f"127.0.0.1:{port}"))


def test_with_client_certificates_demanded_a_stranger_is_not_served(
    tmp_path: Path, started: list[Etcd]
) -> None:
    port = free_port()
    started.append(secured(tmp_path, port, trusted_ca_file=CERTS / "ca.pem", client_cert_auth="true"))
    known = grpc.ssl_channel_credentials(
        CA, (CERTS / "client.key").read_bytes(), (CERTS / "client.pem").read_bytes()
    )
    assert put(grpc.secure_channel(f"localhost:{port}", known))
    with pytest.raises(grpc.RpcError):
        put(grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(CA)))


def test_a_key_that_does_not_fit_keeps_the_member_from_starting(tmp_path: Path, started: list[Etcd]) -> None:
    port = free_port()
    with pytest.raises(AssertionError, match="tls: private key does not match public key"):
        secured(tmp_path, port, key_file=CERTS / "client.key")


def test_a_unix_socket_serves_grpc(tmp_path: Path, started: list[Etcd]) -> None:
    path = tmp_path / "client.sock"
    started.append(
        Etcd(tmp_path, listen_client_urls=f"unix://{path}", advertise_client_urls=f"unix://{path}")
    )
    # grpcio would name the path, percent-encoded, as the authority, which the wire's HTTP/2 library refuses.
    options = [("grpc.default_authority", "localhost")]
    assert put(grpc.insecure_channel(f"unix:{path}", options))


def test_with_http_urls_of_their_own_grpc_and_http_are_apart(tmp_path: Path, started: list[Etcd]) -> None:
    port = free_port()
    member = Etcd(tmp_path, listen_client_http_urls=f"http://127.0.0.1:{port}")
    started.append(member)
    assert put(grpc.insecure_channel(f"127.0.0.1:{member.port}"))
    assert b"etcdserver" in version(f"http://127.0.0.1:{port}")
    with pytest.raises((urllib.error.URLError, OSError)):
        version(f"http://127.0.0.1:{member.port}")
    with pytest.raises(grpc.RpcError):
        put(grpc.insecure_channel(f"127.0.0.1:{port}"))


def test_two_members_share_a_port_only_if_both_say_so(tmp_path: Path, started: list[Etcd]) -> None:
    for name in ("first", "second", "third", "fourth", "fifth"):
        (tmp_path / name).mkdir()
    shared = Etcd(tmp_path / "first", socket_reuse_port="true")
    started.append(shared)
    ports = shared.port, shared.peer_port
    started.append(Etcd(tmp_path / "second", ports, socket_reuse_port="true"))
    with pytest.raises(AssertionError, match="address already in use"):
        Etcd(tmp_path / "third", ports)
    alone = Etcd(tmp_path / "fourth")
    started.append(alone)
    with pytest.raises(AssertionError, match="address already in use"):
        Etcd(tmp_path / "fifth", (alone.port, alone.peer_port), socket_reuse_port="true")
