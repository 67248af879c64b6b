"""The native wire, over real connections: HTTP/1.1, HTTP/2 and handshakes with certificates at random.

After each bad client a good one must be answered; a panic in the crate is seen by the driver, on stderr.
"""

from __future__ import annotations

import random
import socket
import ssl
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

from changes import changed
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID
from wire_harness import Harness, listen_tcp

from pyetcd._native import Limits, Tls

Target = Callable[[random.Random], None]
SECONDS = 5.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = struct.pack(">I", 0)[1:] + b"\x04\x00" + bytes(4)

# A unary call: literal headers without a table, and five bytes before the message.
_CALL = b"".join(
    b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/test.Echo/Say"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"token", b"abc.1"),
        (b"grpc-timeout", b"1S"),
        (b"x-bin", b"AAEC"),
    )
)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


SEEDS = [
    b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b'POST /v3/kv/range HTTP/1.1\r\nHost: h\r\nContent-Length: 14\r\n\r\n{"key":"aw=="}',
    b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
    PREFACE
    + SETTINGS
    + _frame(1, 4, 1, _CALL)
    + _frame(0, 1, 1, b"\0\0\0\0\3abc")
    + _frame(6, 0, 0, bytes(8)),
    PREFACE
    + SETTINGS
    + _frame(1, 0, 1, _CALL[:20])
    + _frame(9, 4, 1, _CALL[20:])
    + _frame(0, 0, 1, b"\0\0\0\0\3a")
    + _frame(3, 0, 1, bytes(4))
    + _frame(8, 0, 0, b"\0\1\0\0"),
]


def connections() -> Target:
    """Bytes at random to a plain port."""
    harness = Harness(Limits(header_timeout=1.0, http_body_bytes=1 << 16, keepalive_min_time=0))
    harness.listen()

    def run(chance: random.Random) -> None:
        data = changed(chance.choice(SEEDS), chance, SEEDS)
        with socket.create_connection(("127.0.0.1", harness.port), SECONDS) as client:
            cut = chance.randrange(len(data) + 1)
            try:
                client.sendall(data[:cut])
                client.sendall(data[cut:])
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass
            except OSError:
                pass  # sent away
        _is_answered(harness.port)
        harness.seen.clear()

    return run


def _is_answered(port: int, context: ssl.SSLContext | None = None) -> None:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
        if context is not None:
            client = context.wrap_socket(client, server_hostname="localhost")
        client.sendall(b"GET /alive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while more := client.recv(4096):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200"), answer


def handshakes() -> Target:
    """Clients whose certificates bear, well signed, whatever a certificate should not."""
    key = ec.generate_private_key(ec.SECP256R1())
    directory = Path(mkdtemp(prefix="fuzz-"))
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (directory / "key").write_bytes(secret)
    authority = _certificate(key, "authority", [(x509.BasicConstraints(ca=True, path_length=None), True)])
    good = _certificate(key, "localhost", [(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)])
    harness = Harness(Limits(handshake_timeout=2.0, keepalive_min_time=0))
    tls = Tls(good + authority, secret, authority, allowed_hostnames=["h"], check_address=True)
    port = listen_tcp(harness.server, tls=tls)
    plain = listen_tcp(harness.server)
    seeds = [
        x509.SubjectAlternativeName([x509.DNSName("h"), x509.RFC822Name("a@b")]).public_bytes(),
        bytes.fromhex("300c820a2a2e6578616d706c65") + b"\x87\x04\x7f\0\0\1",
        bytes.fromhex("3006870480000001"),
        b"\x30\x84\xff\xff\xff\xff",
    ]
    kinds = (
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    )

    def run(chance: random.Random) -> None:
        extension = x509.UnrecognizedExtension(
            chance.choice(kinds), changed(chance.choice(seeds), chance, seeds)
        )
        name = "".join(chance.choice("a\u00e9*.\u4e2d,=") for _ in range(chance.randrange(1, 20)))
        (directory / "cert").write_bytes(_certificate(key, name, [(extension, chance.random() < 0.2)]))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            context.load_cert_chain(directory / "cert", directory / "key")
        except ssl.SSLError:
            return  # not even OpenSSL sends it
        with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
            try:
                with context.wrap_socket(client, server_hostname="localhost") as secured:
                    secured.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                    secured.recv(100)
            except OSError:
                pass  # refused, as it should be
        _is_answered(plain)
        harness.seen.clear()

    return run


def _certificate(
    key: ec.EllipticCurvePrivateKey, name: str, extensions: list[tuple[x509.ExtensionType, bool]]
) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
