"""Signed tokens (JSON web tokens): user, auth revision and expiry, under one key for the whole cluster.

`--auth-token=jwt,sign-method=RS256,pub-key=...,priv-key=...,ttl=5m`: with a public key alone, tokens are only
verified. A token names the auth revision of its making, so any change of users or roles outdates it, and
clients ask for a new one.

A verified signature is remembered until the token expires: a client sends the same one with every request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509 import load_pem_x509_certificate

from pyetcd import logs
from pyetcd.auth.caller import Caller
from pyetcd.auth.tokens import BadTokenOptions
from pyetcd.logs.gotext import parse_duration_ns
from pyetcd.proto.errors import UNKNOWN, EtcdError

INVALID_OPTIONS: Final = "auth: invalid auth options"
VERIFY_ONLY: Final = "auth: token signing attempted with verify-only key"
MISSING_KEY: Final = "auth: missing key data"
KEY_MISMATCH: Final = "auth: public and private keys don't match"
DEFAULT_TTL_SECONDS: Final = 300.0
KNOWN_OPTIONS: Final = ("sign-method", "pub-key", "priv-key", "ttl")
VERIFIED_MAX: Final = 10_000
TOKEN_BYTES_MAX: Final = 8 << 10  # a longer one is not remembered

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_KINDS: Final[Mapping[str, tuple[type[PrivateKey], type[PublicKey]]]] = {
    "RS": (RSAPrivateKey, RSAPublicKey),
    "PS": (RSAPrivateKey, RSAPublicKey),
    "ES": (EllipticCurvePrivateKey, EllipticCurvePublicKey),
    "Ed": (Ed25519PrivateKey, Ed25519PublicKey),
}
_METHODS: Final = (
    "EdDSA",
    *(kind + size for kind in ("RS", "PS", "ES", "HS") for size in ("256", "384", "512")),
)
# What Go's library checks: signature, expiry, and not before.
_CHECKS: Final[Any] = {
    "verify_signature": True,
    "verify_exp": True,
    "verify_nbf": True,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}

_log = logs.get("auth")


@dataclass(frozen=True, slots=True)
class Keys:
    """What tokens are verified with, and signed with unless this is None."""

    verifying: PublicKey | bytes
    signing: PrivateKey | bytes | None


class SignedTokens:
    """`unix`: seconds since 1970."""

    def __init__(self, method: str, keys: Keys, ttl_seconds: float, unix: Callable[[], float]) -> None:
        self._method = method
        self._keys = keys
        self._ttl_seconds = ttl_seconds
        self._unix = unix
        self._verified: dict[str, tuple[Caller, float]] = {}  # with the expiry, seconds since 1970

    def enable(self) -> None: ...
    def disable(self) -> None: ...
    def invalidate(self, name: str) -> None: ...
    def sweep(self) -> None: ...

    def prefix(self) -> str:
        return ""

    def index_of(self, token: str) -> int:
        return 0

    def assign(self, name: str, revision: int, prefix: str, index: int, told: bool) -> str:
        if self._keys.signing is None:
            raise EtcdError(UNKNOWN, VERIFY_ONLY)
        if not told:
            return ""
        claims = {"username": name, "revision": revision, "exp": int(self._unix() + self._ttl_seconds)}
        try:
            return jwt.encode(claims, self._keys.signing, self._method)
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            _log.debug("failed to sign a JWT token", {"user-name": name, "error": str(error)})
            raise EtcdError(UNKNOWN, str(error)) from None

    def caller(self, token: str, revision: int) -> Caller | None:
        known = self._verified.get(token)
        if known is not None:
            if known[1] > self._unix():
                return known[0]
            del self._verified[token]
        try:
            claims = jwt.decode(token, self._keys.verifying, [self._method], options=_CHECKS)
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            _log.warn("failed to parse a JWT token", {"error": str(error)})
            return None
        name, signed_at = claims.get("username"), claims.get("revision")
        if not isinstance(name, str):
            _log.warn("failed to obtain user claims from jwt token")
            return None
        if isinstance(signed_at, bool) or not isinstance(signed_at, int | float):
            _log.warn("failed to obtain revision claims from jwt token")
            return None
        caller = Caller(name, min(max(int(signed_at), 0), (1 << 64) - 1))
        expiry = claims.get("exp")
        if isinstance(expiry, int | float) and len(token) <= TOKEN_BYTES_MAX:
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = caller, float(expiry)
        return caller


def signed_tokens(
    options: Mapping[str, str], read: Callable[[str], bytes], unix: Callable[[], float]
) -> SignedTokens:
    """BadTokenOptions where they cannot be used; `read` gives the bytes of a file."""
    try:
        ttl = parse_duration_ns(options["ttl"]) / 1e9 if options.get("ttl") else DEFAULT_TTL_SECONDS
        public = read(options["pub-key"]) if options.get("pub-key") else b""
        private = read(options["priv-key"]) if options.get("priv-key") else b""
        method = options.get("sign-method", "")
        if method not in _METHODS:
            raise ValueError("auth: invalid auth signature method")
    except (OSError, ValueError) as error:
        _log.error("problem loading JWT options", {"error": str(error)})
        raise BadTokenOptions(INVALID_OPTIONS) from None
    unknown = [name for name in options if name not in KNOWN_OPTIONS]
    if unknown:
        _log.warn("unknown JWT options", {"keys": unknown})
    return SignedTokens(method, _keys(method, private, public), ttl, unix)


def _keys(method: str, private: bytes, public: bytes) -> Keys:
    if method.startswith("HS"):
        if not private:
            raise BadTokenOptions(MISSING_KEY)
        return Keys(private, private)
    private_kind, public_kind = _KINDS[method[:2]]
    signing = _private_key(private, private_kind) if private else None
    verifying = _public_key(public, public_kind) if public else None
    if signing is None:
        if verifying is None:
            raise BadTokenOptions(MISSING_KEY)
        return Keys(verifying, None)
    own = signing.public_key()
    if verifying is not None and _encoded(verifying) != _encoded(own):
        raise BadTokenOptions(KEY_MISMATCH)
    return Keys(own, signing)


def _private_key(data: bytes, kind: type[PrivateKey]) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadTokenOptions(f"invalid key: {error}") from None
    if not isinstance(key, kind):
        raise BadTokenOptions(f"key is not a valid {kind.__name__}")
    return key


def _public_key(data: bytes, kind: type[PublicKey]) -> PublicKey:
    """Of a public key or of a certificate."""
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            key: object = load_pem_x509_certificate(data).public_key()
        else:
            key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadTokenOptions(f"invalid key: {error}") from None
    if not isinstance(key, kind):
        raise BadTokenOptions(f"key is not a valid {kind.__name__}")
    return key


def _encoded(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
