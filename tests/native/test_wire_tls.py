"""TLS on the wire: certificates, client certificates, and plaintext on the same port."""

import socket
import ssl

import grpc
import pytest
from wire_harness import DATA, Raw, eventually, listen_tcp, listen_unix, pem, serving

from pyetcd._native import Limits, Tls


@pytest.fixture
def harness():
    with serving(Limits(handshake_timeout=0.4, header_timeout=5, keepalive_min_time=0)) as running:
        yield running


def server_tls(client_ca: bool = False) -> Tls:
    return Tls(pem("server.pem"), pem("server.key"), pem("ca.pem") if client_ca else None)


def context(certificate: str | None = None, alpn: str = "h2") -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=pem("ca.pem").decode())
    made.set_alpn_protocols([alpn])
    if certificate is not None:
        directory = __import__("wire_harness").CERTS
        made.load_cert_chain(directory / f"{certificate}.pem", directory / f"{certificate}.key")
    return made


def say(port: int, credentials: grpc.ChannelCredentials) -> bytes:
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        return channel.unary_unary("/test.Echo/Say")(b"secret", timeout=5)


def test_grpc_and_http_share_a_tls_port(harness):
    port = listen_tcp(harness.server, 0, server_tls())
    assert say(port, grpc.ssl_channel_credentials(pem("ca.pem"))) == b"secret"
    plain = context(alpn="http/1.1").wrap_socket(
        socket.create_connection(("127.0.0.1", port)), server_hostname="localhost"
    )
    assert plain.selected_alpn_protocol() == "http/1.1"
    plain.sendall(b"GET /tls HTTP/1.0\r\n\r\n")
    assert plain.recv(4096).endswith(b"GET /tls 0")


def test_alpn_chooses_http2(harness):
    port = listen_tcp(harness.server, 0, server_tls())
    raw = Raw(port, tls=context())
    raw.request(1)
    assert raw.until(DATA, 1)


def test_a_verified_client_is_known_by_its_common_name(harness):
    port = listen_tcp(harness.server, 0, server_tls(client_ca=True))
    known = grpc.ssl_channel_credentials(pem("ca.pem"), pem("client.key"), pem("client.pem"))
    assert say(port, known) == b"secret"
    assert list(harness.wait("UNARY")[0].meta.certificate_names) == ["client-name"]


@pytest.mark.parametrize("certificate", [None, "stranger"])
def test_a_client_without_a_certificate_of_the_authority_is_refused(harness, certificate):
    port = listen_tcp(harness.server, 0, server_tls(client_ca=True))
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):  # noqa: PT012
        raw = Raw(port, tls=context(certificate))
        raw.request(1)
        raw.until(DATA, 1)
    assert [each.kind for each in harness.wait("REJECTED")] == ["REJECTED"]
    assert [each.kind for each in harness.seen] == ["REJECTED"]
    eventually(lambda: harness.server.connections() == 0)


def test_one_port_serves_tls_and_plaintext(harness):
    port = listen_tcp(harness.server, 0, server_tls(), also_plain=True)
    assert say(port, grpc.ssl_channel_credentials(pem("ca.pem"))) == b"secret"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert channel.unary_unary("/test.Echo/Say")(b"open", timeout=5) == b"open"
    raw = Raw(port, hello=False)
    raw.send(b"GET /plain HTTP/1.0\r\n\r\n")
    assert raw.socket.recv(4096).endswith(b"GET /plain 0")


def test_a_unix_socket_may_speak_tls(harness, tmp_path):
    path = str(tmp_path / "tls.sock")
    listen_unix(harness.server, path, server_tls())
    plain = socket.socket(socket.AF_UNIX)
    plain.connect(path)
    secured = context(alpn="http/1.1").wrap_socket(plain, server_hostname="localhost")
    secured.sendall(b"GET /u HTTP/1.0\r\n\r\n")
    assert secured.recv(4096).endswith(b"GET /u 0")


def test_plaintext_to_a_tls_port_and_stalled_handshakes_are_cut_off(harness):
    port = listen_tcp(harness.server, 0, server_tls())
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"):
        raw = Raw(port, hello=False)
        raw.send(said)
        raw.socket.settimeout(3)
        try:
            while raw.socket.recv(4096):
                pass
        except ConnectionResetError:
            pass
    eventually(lambda: harness.server.connections() == 0)


@pytest.mark.parametrize(
    ("chain", "key", "ca"),
    [
        (b"", "server.key", None),
        ("server.pem", b"nonsense", None),
        ("server.pem", "client.key", None),
        ("server.pem", "server.key", b"x"),
    ],
)
def test_bad_certificates_are_told_at_once(chain, key, ca):
    def read(value):
        return pem(value) if isinstance(value, str) else value

    with pytest.raises(ValueError, match=r"\w"):
        Tls(read(chain), read(key), read(ca))


def test_a_large_answer_over_tls_arrives_whole(harness):
    port = listen_tcp(harness.server, 0, server_tls())
    credentials = grpc.ssl_channel_credentials(pem("ca.pem"))
    with grpc.secure_channel(
        f"localhost:{port}", credentials, [("grpc.max_receive_message_length", -1)]
    ) as channel:
        answer = channel.unary_unary("/test.Echo/Parts")(b"300 100000", timeout=20)
    assert len(answer) == 30_000_000
