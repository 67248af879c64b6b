"""Certificates for tests: an authority that issues, and revokes."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Authority:
    """Its files lie in `directory`: ca.pem, NAME.pem and NAME.key of whom it issued to, revoked.crl."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._serials: dict[str, int] = {}
        self._next = 0x1000
        certificate = (
            self._builder(self._name, self._key.public_key(), 1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.crl = directory / "revoked.crl"
        self.revoke()

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, serial: int, days: tuple[int, int] = (-1, 1)
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
        )

    def issue(
        self,
        name: str,
        hosts: Sequence[str] = (),
        *,
        p521: bool = False,
        file: str | None = None,
        days: tuple[int, int] = (-1, 1),
    ) -> tuple[Path, Path]:
        """A certificate with this common name, if any, for server and client, valid between these days from
        now; its file and its key's, replaced in one step each."""
        key = ec.generate_private_key(ec.SECP521R1() if p521 else ec.SECP256R1())
        self._next += 1
        self._serials[name] = self._next
        builder = self._builder(_named(name), key.public_key(), self._next, days).add_extension(
            x509.ExtendedKeyUsage(USES), critical=False
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        cert_file, key_file = (self.directory / f"{file or name}.{end}" for end in ("pem", "key"))
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        _replace(cert_file, certificate.public_bytes(serialization.Encoding.PEM))
        _replace(key_file, secret)
        return cert_file, key_file

    def serial(self, name: str) -> int:
        """Of the certificate issued to it last."""
        return self._serials[name]

    def key_pem(self) -> bytes:
        """Its own key."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )

    def revoke(self, *names: str | int) -> None:
        """A new list, which holds these: the certificates issued last to names, or those with serials."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - DAY).next_update(now + DAY)
        for name in names:
            serial = name if isinstance(name, int) else self._serials[name]
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(revoked.build())
        signed = builder.sign(self._key, hashes.SHA256())
        _replace(self.crl, signed.public_bytes(serialization.Encoding.DER))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _replace(path: Path, data: bytes) -> None:
    new = path.with_suffix(f"{path.suffix}.new")
    new.write_bytes(data)
    new.replace(path)
