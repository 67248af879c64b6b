"""How tokens are signed, and with which keys: the algorithms of RFC 7518 that etcd knows, with keys in PEM.

What is taken is what etcd takes: a signature over a salt of any length (PS), a key of another curve until
something is to be signed with it (ES), any bytes as a shared secret (HS).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509 import load_pem_x509_certificate

from pyetcd.auth.tokens import BadTokenOptions

MISSING_KEY: Final = "auth: missing key data"
KEY_MISMATCH: Final = "auth: public and private keys don't match"
NOT_PEM: Final = "invalid key: Key must be a PEM encoded PKCS1 or PKCS8 key"
PEM: Final = b"-----BEGIN "

Hash: TypeAlias = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_HASHES: Final[Mapping[str, Hash]] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVE_BITS: Final = {"256": 256, "384": 384, "512": 521}
METHODS: Final = ("EdDSA", *(kind + size for kind in ("RS", "PS", "ES", "HS") for size in _HASHES))

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
_KINDS: Final[Mapping[str, tuple[str, type[PrivateKey], type[PublicKey]]]] = {
    "RS": ("RSA", RSAPrivateKey, RSAPublicKey),
    "PS": ("RSA", RSAPrivateKey, RSAPublicKey),
    "ES": ("ECDSA", EllipticCurvePrivateKey, EllipticCurvePublicKey),
    "Ed": ("Ed25519", Ed25519PrivateKey, Ed25519PublicKey),
}


class CannotSign(Exception):
    """This key does not sign by this method; the text is that of etcd's library."""


class Signer(Protocol):
    """One method with its keys."""

    mismatch: str
    """What etcd's library says of a signature that is not right."""
    verifies_only: bool

    def sign(self, data: bytes) -> bytes:
        """CannotSign; never asked of one that verifies only."""

    def verify(self, data: bytes, signature: bytes) -> bool: ...


class Secret:
    """HS: one secret on both sides."""

    mismatch = "signature is invalid"
    verifies_only = False

    def __init__(self, size: str, secret: bytes) -> None:
        self._digest = f"sha{size}"
        self._secret = secret

    def sign(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, self._digest)

    def verify(self, data: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(data), signature)


class Rsa:
    """RS and PS, which differ in their padding."""

    mismatch = "crypto/rsa: verification error"

    def __init__(
        self, public: RSAPublicKey, private: RSAPrivateKey | None, size: str, *, probabilistic: bool
    ) -> None:
        self._public = public
        self._private = private
        self.verifies_only = private is None
        self._hash = _HASHES[size]
        self._signed_with: AsymmetricPadding = PKCS1v15()
        self._verified_with: AsymmetricPadding = self._signed_with
        if probabilistic:
            self._signed_with = PSS(MGF1(self._hash), PSS.DIGEST_LENGTH)
            self._verified_with = PSS(MGF1(self._hash), PSS.AUTO)

    def sign(self, data: bytes) -> bytes:
        assert self._private is not None, "asked of one that verifies only"
        try:
            return self._private.sign(data, self._signed_with, self._hash)
        except ValueError as error:  # a key too short for the digest
            raise CannotSign(str(error)) from None

    def verify(self, data: bytes, signature: bytes) -> bool:
        try:
            self._public.verify(signature, data, self._verified_with, self._hash)
        except InvalidSignature:
            return False
        return True


class Ecdsa:
    """ES: two numbers of the curve's size, one behind the other."""

    mismatch = "crypto/ecdsa: verification error"

    def __init__(
        self, public: EllipticCurvePublicKey, private: EllipticCurvePrivateKey | None, size: str
    ) -> None:
        self._public = public
        self._private = private
        self.verifies_only = private is None
        self._scheme = ECDSA(_HASHES[size])
        self._bits = _CURVE_BITS[size]
        self._bytes = (self._bits + 7) // 8

    def sign(self, data: bytes) -> bytes:
        assert self._private is not None, "asked of one that verifies only"
        if self._private.key_size != self._bits:
            raise CannotSign("key is invalid")
        numbers = decode_dss_signature(self._private.sign(data, self._scheme))
        return b"".join(number.to_bytes(self._bytes, "big") for number in numbers)

    def verify(self, data: bytes, signature: bytes) -> bool:
        if len(signature) != 2 * self._bytes:
            return False
        first, second = (
            int.from_bytes(part, "big") for part in (signature[: self._bytes], signature[self._bytes :])
        )
        try:
            self._public.verify(encode_dss_signature(first, second), data, self._scheme)
        except InvalidSignature:
            return False
        return True


class Ed25519:
    """EdDSA."""

    mismatch = "ed25519: verification error"

    def __init__(self, public: Ed25519PublicKey, private: Ed25519PrivateKey | None) -> None:
        self._public = public
        self._private = private
        self.verifies_only = private is None

    def sign(self, data: bytes) -> bytes:
        assert self._private is not None, "asked of one that verifies only"
        return self._private.sign(data)

    def verify(self, data: bytes, signature: bytes) -> bool:
        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def signer(method: str, private: bytes, public: bytes) -> Signer:
    """`method`: one of METHODS; keys in PEM, a public one also as a certificate; or the secret in `private`.
    BadTokenOptions."""
    kind, size = method[:2], method[2:]
    if kind == "HS":
        if not private:
            raise BadTokenOptions(MISSING_KEY)
        return Secret(size, private)
    name, private_kind, public_kind = _KINDS[kind]
    signing = _private_key(private, private_kind, name) if private else None
    given = _public_key(public, public_kind, name) if public else None
    verifying = given if signing is None else signing.public_key()
    if verifying is None:
        raise BadTokenOptions(MISSING_KEY)
    if given is not None and given != verifying:
        raise BadTokenOptions(KEY_MISMATCH)
    if isinstance(verifying, RSAPublicKey):
        assert signing is None or isinstance(signing, RSAPrivateKey)
        return Rsa(verifying, signing, size, probabilistic=kind == "PS")
    if isinstance(verifying, EllipticCurvePublicKey):
        assert signing is None or isinstance(signing, EllipticCurvePrivateKey)
        return Ecdsa(verifying, signing, size)
    assert signing is None or isinstance(signing, Ed25519PrivateKey)
    return Ed25519(verifying, signing)


def _private_key(data: bytes, kind: type[PrivateKey], name: str) -> PrivateKey:
    if PEM not in data:
        raise BadTokenOptions(NOT_PEM)
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadTokenOptions(f"invalid key: {error}") from None
    if not isinstance(key, kind):
        raise BadTokenOptions(f"key is not a valid {name} private key")
    return key


def _public_key(data: bytes, kind: type[PublicKey], name: str) -> PublicKey:
    if PEM not in data:
        raise BadTokenOptions(NOT_PEM)
    try:
        if PEM + b"CERTIFICATE-----" in data:
            key: object = load_pem_x509_certificate(data).public_key()
        else:
            key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadTokenOptions(f"invalid key: {error}") from None
    if not isinstance(key, kind):
        raise BadTokenOptions(f"key is not a valid {name} public key")
    return key
