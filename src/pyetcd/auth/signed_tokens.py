"""Signed tokens (JSON web tokens): user, auth revision and expiry, under one key for the whole cluster.

`--auth-token=jwt,sign-method=RS256,pub-key=...,priv-key=...,ttl=5m`: with a public key alone, tokens are only
verified. A token names the auth revision of its making, so any change of users or roles outdates it, and
clients ask for a new one. `token_form` says how one looks, `signing` how it is signed.

A verified signature is remembered until the token expires: a client sends the same one with every request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pyetcd import logs
from pyetcd.auth.caller import Caller
from pyetcd.auth.signing import METHODS, CannotSign, Signer, signer
from pyetcd.auth.token_form import NO_METHOD, WrongToken, decoded, encoded
from pyetcd.auth.tokens import BadTokenOptions, fingerprint
from pyetcd.logs.gotext import parse_duration_ns
from pyetcd.proto.errors import UNKNOWN, EtcdError

INVALID_OPTIONS: Final = "auth: invalid auth options"
VERIFY_ONLY: Final = "auth: token signing attempted with verify-only key"
DEFAULT_TTL_SECONDS: Final = 300.0
KNOWN_OPTIONS: Final = ("sign-method", "pub-key", "priv-key", "ttl")
VERIFIED_MAX: Final = 10_000
TOKEN_CHARACTERS_MAX: Final = 8 << 10  # a longer one is not remembered
MAX_UINT64: Final = (1 << 64) - 1

_log = logs.get("auth")


class SignedTokens:
    """`unix`: seconds since 1970."""

    def __init__(self, method: str, signer: Signer, ttl_seconds: float, unix: Callable[[], float]) -> None:
        self._method = method
        self._signer = signer
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
        if self._signer.verifies_only:
            raise EtcdError(UNKNOWN, VERIFY_ONLY)
        if not told:
            return ""
        claims = {"exp": int(self._unix() + self._ttl_seconds), "revision": revision, "username": name}
        about = {"user-name": name, "revision": revision}
        try:
            token = encoded(self._method, claims, self._signer)
        except CannotSign as error:
            _log.debug("failed to sign a JWT token", {**about, "error": str(error)})
            raise EtcdError(UNKNOWN, str(error)) from None
        _log.debug("created/assigned a new JWT token", {**about, "token-fingerprint": fingerprint(token)})
        return token

    def caller(self, token: str, revision: int) -> Caller | None:
        now = self._unix()
        known = self._verified.get(token)
        if known is not None:
            if known[1] > now:
                return known[0]
            del self._verified[token]
        try:
            claims = decoded(token, self._method, self._signer, now)
        except WrongToken as error:
            _log.warn("failed to parse a JWT token", {"error": str(error)})
            return None
        name, signed_at = claims.fields.get("username"), claims.fields.get("revision")
        if not isinstance(name, str):
            _log.warn("failed to obtain user claims from jwt token")
            return None
        if not isinstance(signed_at, float):
            _log.warn("failed to obtain revision claims from jwt token")
            return None
        caller = Caller(_go_text(name), min(max(int(signed_at), 0), MAX_UINT64))
        if claims.expires is not None and len(token) <= TOKEN_CHARACTERS_MAX:
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = caller, claims.expires
        return caller


def _go_text(text: str) -> str:
    """Half a surrogate pair, which JSON can name, stands for no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def signed_tokens(
    options: Mapping[str, str], read: Callable[[str], bytes], unix: Callable[[], float]
) -> SignedTokens:
    """BadTokenOptions where they cannot be used; `read` gives the bytes of a file."""
    try:
        ttl = parse_duration_ns(options["ttl"]) / 1e9 if options.get("ttl") else DEFAULT_TTL_SECONDS
        public = read(options["pub-key"]) if options.get("pub-key") else b""
        private = read(options["priv-key"]) if options.get("priv-key") else b""
        method = options.get("sign-method", "")
        if method not in METHODS and method != NO_METHOD:
            raise ValueError("auth: invalid auth signature method")
    except (OSError, ValueError) as error:
        _log.error("problem loading JWT options", {"error": str(error)})
        raise BadTokenOptions(INVALID_OPTIONS) from None
    unknown = [name for name in options if name not in KNOWN_OPTIONS]
    if unknown:
        _log.warn("unknown JWT options", {"keys": unknown})
    if method == NO_METHOD:
        raise BadTokenOptions("unsupported signing method: *jwt.signingMethodNone")
    return SignedTokens(method, signer(method, private, public), ttl, unix)
