"""`--auto-tls` and `--peer-auto-tls`: a certificate that the member makes and signs itself.

Rules that hold here, all etcd's (client/pkg/transport and server/embed):

* The files are `<data-dir>/fixtures/{client,peer}/{cert,key}.pem`; where both are there they are used as they
  are, whoever made them. Given certificates come first.
* A generated certificate replaces everything else said of that side: neither client certificates nor
  revocation lists are asked for. Members that dial with it take any certificate.
* Ours are P-256 (etcd: P-521): a handshake costs a tenth, and every client takes them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyetcd import logs
from pyetcd.cluster.datadir import make_directory
from pyetcd.cluster.urls import Url
from pyetcd.member.config import ServerConfig, TlsConfig
from pyetcd.storage.files import Files

_DAYS_A_YEAR: Final = 365
_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)  # no certificate can say a later year

_log = logs.get("embed")


class CannotSign(Exception):
    """A certificate could not be made. `failed`: what a member says then; both texts are etcd's."""

    def __init__(self, side: str, why: str) -> None:
        super().__init__(why)
        self.failed = f"failed to get {side} self-signed certs"


def with_certificates(files: Files, config: ServerConfig, now_seconds: float) -> ServerConfig:
    """The configuration with generated certificates where they are asked for. CannotSign or OSError."""
    peers = _side(files, config, config.peer_tls, "peer", config.listen_peer_urls, now_seconds)
    served = (*config.listen_client_urls, *config.listen_client_http_urls)
    clients = _side(files, config, config.client_tls, "client", served, now_seconds)
    return replace(config, peer_tls=peers, client_tls=clients)


def _side(
    files: Files, config: ServerConfig, given: TlsConfig, side: str, urls: Sequence[Url], now_seconds: float
) -> TlsConfig:
    if not given.auto_tls:
        return given
    if not given.is_empty:
        _log.warn(f"ignoring {side} auto TLS since certs given")
        return given
    years = config.self_signed_cert_validity_years
    if years == 0:
        error = "selfSignedCertValidity is invalid,it should be greater than 0"
        _log.warn("cannot generate cert", {"error": error})
        raise CannotSign(side, error)
    hosts = [url.host for url in urls]
    return generated(files, config.data_dir, side, hosts, years, now_seconds)


def generated(
    files: Files, data_dir: str, side: str, hosts: Sequence[str], years: int, now_seconds: float
) -> TlsConfig:
    """A certificate for `hosts`, each with its port, made where there is none yet. OSError."""
    directory = f"{data_dir.rstrip('/')}/fixtures/{side}"
    cert_file, key_file = f"{directory}/cert.pem", f"{directory}/key.pem"
    if not files.exists(cert_file) or not files.exists(key_file):
        if not files.exists(directory):
            make_directory(files, directory)
        _make(files, cert_file, key_file, hosts, years, now_seconds)
    return TlsConfig(
        cert_file=cert_file,
        key_file=key_file,
        client_cert_file=cert_file,
        client_key_file=key_file,
        auto_tls=True,
        self_signed=True,
    )


def _make(
    files: Files, cert_file: str, key_file: str, hosts: Sequence[str], years: int, now_seconds: float
) -> None:
    begin = datetime.fromtimestamp(now_seconds, UTC)
    try:
        end = begin + timedelta(days=_DAYS_A_YEAR * years)
    except OverflowError:
        end = _LATEST
    _log.warn("automatically generate certificates", {"certificate-validity-bound-not-after": _stamp(end)})
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "etcd")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    names = _names(hosts)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    _write(files, cert_file, certificate.public_bytes(serialization.Encoding.PEM))
    _log.info("created cert file", {"path": cert_file})
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    _write(files, key_file, secret)
    _log.info("created key file", {"path": key_file})


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        crl_sign=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Of what is listened on, each once; sockets without a port have no name."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        bare = host.rpartition(":")[0].removeprefix("[").removesuffix("]")
        if not bare:
            continue
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(bare))
        except ValueError:
            name = x509.DNSName(bare)
        if name not in names:
            names.append(name)
    return names


def _write(files: Files, path: str, data: bytes) -> None:
    fd = files.open(path, create=True, truncate=True)
    try:
        files.pwrite(fd, data, 0)
    finally:
        files.close(fd)


def _stamp(moment: datetime) -> str:
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{text}Z"
