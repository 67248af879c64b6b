"""Certificates, keys and authorities that cannot be used: beside real etcd, the same words before the end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from authority import Authority
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from servers import ETCD, free_port

END_SECONDS = 30
BAD_PEM = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"
PLAIN = serialization.NoEncryption()
LOCKED = serialization.BestAvailableEncryption(b"x")


def pem(key: object, encryption: serialization.KeySerializationEncryption = PLAIN) -> bytes:
    encoded: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return encoded


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """server.pem and server.key fit; nothing else fits these."""
    directory = tmp_path_factory.mktemp("files")
    authority = Authority(directory)
    for name in ("server", "other"):
        authority.issue(name, ["127.0.0.1"])
    authority.issue("curve", ["127.0.0.1"], p521=True)
    locked = ec.generate_private_key(ec.SECP256R1())
    old = serialization.PrivateFormat.TraditionalOpenSSL
    for name, data in {
        "junk": b"junk",
        "empty": b"",
        "rsa.key": pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "ed.key": pem(ed25519.Ed25519PrivateKey.generate()),
        "locked.key": pem(locked, LOCKED),
        "old-locked.key": locked.private_bytes(serialization.Encoding.PEM, old, LOCKED),
        "bad.pem": BAD_PEM.format("CERTIFICATE").encode(),
        "bad.key": BAD_PEM.format("EC PRIVATE KEY").encode(),
        "other.text": BAD_PEM.format("SOMETHING ELSE").encode() * 2,
    }.items():
        (directory / name).write_bytes(data)
    return directory


def end(executable: Path, directory: Path, secured: str, flags: list[str]) -> list[tuple[str, str, str]]:
    """Level, message and error of the lines that say why. `secured`: whose URLs are https, clients' or
    peers'. Real etcd's gateway, which fails as well, is passed over."""
    schemes = ("https", "http") if secured == "clients" else ("http", "https")
    client, peer = (f"{scheme}://127.0.0.1:{free_port()}" for scheme in schemes)
    command = [
        str(executable),
        "--name=named",
        f"--data-dir={directory / 'data'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=named={peer}",
        *flags,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=END_SECONDS)
    assert ended.returncode == 1
    lines = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    return [
        (line["level"], line["msg"], line["error"])
        for line in lines
        if (line["level"] in ("error", "fatal") and line["msg"] != "registerGateway failed")
        or line["msg"] == "cannot generate cert"
    ]


PAIRS = [
    ("server.pem", "other.key"),
    ("server.pem", "curve.key"),
    ("server.pem", "rsa.key"),
    ("server.pem", "ed.key"),
    ("server.pem", "junk"),
    ("server.pem", "empty"),
    ("server.pem", "server.pem"),
    ("server.pem", "bad.key"),
    ("server.pem", "locked.key"),
    ("server.pem", "old-locked.key"),
    ("server.pem", "other.text"),
    ("server.pem", "none"),
    ("server.pem", "."),
    ("server.pem", ""),
    ("junk", "server.key"),
    ("empty", "server.key"),
    ("server.key", "server.key"),
    ("server.key", "server.pem"),
    ("bad.pem", "server.key"),
    ("other.text", "server.key"),
    ("none", "server.key"),
]


def pair(files: Path, prefix: str, certificate: str, key: str) -> list[str]:
    named = {"cert-file": certificate, "key-file": key}
    return [f"--{prefix}{flag}={files / name}" for flag, name in named.items() if name]


@pytest.mark.parametrize(("certificate", "key"), PAIRS)
def test_a_pair_of_clients_urls_that_cannot_be_used(
    mainetcd: Path, files: Path, tmp_path: Path, certificate: str, key: str
) -> None:
    flags = pair(files, "", certificate, key)
    ours = end(ETCD, tmp_path / "ours", "clients", flags)
    assert ours == end(mainetcd, tmp_path / "go", "clients", flags)
    assert [line[1] for line in ours] == ["setting up serving from embedded etcd failed.", "listener failed"]
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    "dialling", [None, ("server.pem", "other.key"), ("junk", "server.key")], ids=lambda name: str(name)
)
def test_a_pair_of_peers_urls_that_cannot_be_used(
    mainetcd: Path, files: Path, tmp_path: Path, dialling: tuple[str, str] | None
) -> None:
    """Also where only what members dial with does not fit."""
    flags = pair(files, "peer-", "server.pem", "other.key" if dialling is None else "server.key")
    if dialling is not None:
        flags += pair(files, "peer-client-", *dialling)
    ours = end(ETCD, tmp_path / "ours", "peers", flags)
    assert ours == end(mainetcd, tmp_path / "go", "peers", flags)
    assert [line[1] for line in ours] == ["creating peer listener failed", "discovery failed"]


@pytest.mark.parametrize("secured", ["clients", "peers"])
@pytest.mark.parametrize("name", ["none", "bad.pem", "."])
def test_authorities_that_cannot_be_used(
    mainetcd: Path, files: Path, tmp_path: Path, secured: str, name: str
) -> None:
    prefix = "" if secured == "clients" else "peer-"
    flags = [*pair(files, prefix, "server.pem", "server.key"), f"--{prefix}trusted-ca-file={files / name}"]
    ours = end(ETCD, tmp_path / "ours", secured, flags)
    assert ours == end(mainetcd, tmp_path / "go", secured, flags)


def test_without_any_authority_a_member_does_not_start(files: Path, tmp_path: Path) -> None:
    """Real etcd starts, and lets nobody in."""
    flags = [*pair(files, "", "server.pem", "server.key"), f"--trusted-ca-file={files / 'junk'}"]
    ours = end(ETCD, tmp_path / "ours", "clients", flags)
    assert ours[-1] == ("fatal", "listener failed", f"no certificate was found in {files / 'junk'}")


def test_certificates_that_would_never_be_valid_are_not_made(mainetcd: Path, tmp_path: Path) -> None:
    for secured, flag in (("clients", "auto-tls"), ("peers", "peer-auto-tls")):
        flags = [f"--{flag}", "--self-signed-cert-validity=0"]
        ours = end(ETCD, tmp_path / "ours", secured, flags)
        assert ours == end(mainetcd, tmp_path / "go", secured, flags)
