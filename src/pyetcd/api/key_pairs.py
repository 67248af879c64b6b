"""Why a certificate and its key, or an authority's certificates, cannot be used, in the words of Go's
crypto/tls and crypto/x509.

Asked only once the TLS library has refused them: it says so in words of its own, or in none.
"""

from __future__ import annotations

import re
from typing import Final

_BEGIN: Final = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----\s*$", re.MULTILINE)
_CERTIFICATE: Final = "CERTIFICATE"
_KEY: Final = "PRIVATE KEY"
_MALFORMED: Final = "x509: malformed certificate"


def pair_trouble(certificate: bytes, key: bytes) -> str | None:
    """What Go has against the pair, in PEM; None: nothing."""
    return _no_certificate(_blocks(certificate)) or _no_key(_blocks(key)) or _apart(certificate, key)


def authority_trouble(certificates: bytes, path: str) -> str | None:
    """The same of certificates of authorities. Go takes a file without any, and trusts nobody then."""
    from cryptography import x509

    if _CERTIFICATE not in _blocks(certificates):
        return f"no certificate was found in {path}"
    try:
        x509.load_pem_x509_certificates(certificates)
    except ValueError:
        return _MALFORMED
    return None


def _blocks(pem: bytes) -> list[str]:
    """The kinds of what is in it."""
    return [kind.decode() for kind in _BEGIN.findall(pem)]


def _no_certificate(blocks: list[str]) -> str | None:
    if _CERTIFICATE in blocks:
        return None
    if not blocks:
        return "tls: failed to find any PEM data in certificate input"
    if len(blocks) == 1 and blocks[0].endswith(_KEY):
        return (
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; "
            "PEM inputs may have been switched"
        )
    found = " ".join(blocks)
    return (
        f'tls: failed to find "{_CERTIFICATE}" PEM block in certificate input after skipping PEM blocks '
        f"of the following types: [{found}]"
    )


def _no_key(blocks: list[str]) -> str | None:
    if any(kind == _KEY or kind.endswith(f" {_KEY}") for kind in blocks):
        return None
    if not blocks:
        return "tls: failed to find any PEM data in key input"
    if blocks == [_CERTIFICATE]:
        return "tls: found a certificate rather than a key in the PEM for the private key"
    found = " ".join(blocks)
    return (
        f'tls: failed to find PEM block with type ending in "{_KEY}" in key input after skipping PEM '
        f"blocks of the following types: [{found}]"
    )


def _apart(certificate: bytes, key: bytes) -> str | None:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        public = x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return _MALFORMED
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "tls: failed to parse private key"
    own = private.public_key()
    if type(own) is not type(public):
        return "tls: private key type does not match public key type"
    return None if own == public else "tls: private key does not match public key"
