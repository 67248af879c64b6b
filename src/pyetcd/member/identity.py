"""Who makes a request: its token, else the name in the client's certificate.

Nobody is asked for while authentication is off. A certificate counts only with --client-cert-auth, and never
behind the JSON gateway, where it is not the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.auth.caller import NOBODY, Caller
from pyetcd.auth.store import AuthStore
from pyetcd.auth.tokens import fingerprint
from pyetcd.proto import errors

BEARER: Final = "Bearer "
GATEWAY: Final = "grpcgateway-accept"  # metadata that only the gateway's calls have

_log = logs.get("auth")


class Identity:
    """Each method raises INVALID_AUTH_TOKEN for a token that stands for nobody."""

    def __init__(self, auth: AuthStore, trusts_certificates: bool) -> None:
        self._auth = auth
        self._trusts_certificates = trusts_certificates
        self.on_named: Callable[[str, str], None] | None = None  # told of each token that was good, and whose

    def caller(self, meta: Meta) -> Caller | None:
        """None: nobody says who it is, or authentication is off."""
        auth = self._auth
        if not auth.enabled:
            return None
        token = meta.token
        return self._named_by_certificate(meta) if token is None else self._named_by_token(token)

    def _named_by_token(self, token: str) -> Caller:
        auth = self._auth
        token = token.removeprefix(BEARER)
        caller = auth.tokens.caller(token, auth.revision)
        if caller is None:
            _log.warn("invalid auth token", {"token-fingerprint": fingerprint(token)})
            raise errors.INVALID_AUTH_TOKEN
        if self.on_named is not None:
            self.on_named(token, caller.name)
        return caller

    def require(self, meta: Meta) -> None:
        """Anybody with a name. USER_EMPTY."""
        if self._auth.enabled and self.caller(meta) is None:
            raise errors.USER_EMPTY

    def require_admin(self, meta: Meta) -> None:
        """A root. USER_EMPTY, USER_NOT_FOUND or PERMISSION_DENIED."""
        if self._auth.enabled:
            self._auth.check_admin(self.caller(meta) or NOBODY)

    def require_admin_token(self, token: str | None) -> None:
        """The same, of a client whose token another member hands on."""
        if self._auth.enabled:
            self._auth.check_admin(NOBODY if token is None else self._named_by_token(token))

    def awaited_index(self, meta: Meta) -> int:
        """The entry that must be applied before one can say who it is; 0: none."""
        token = meta.token if self._auth.enabled else None
        return 0 if token is None else self._auth.tokens.index_of(token.removeprefix(BEARER))

    def _named_by_certificate(self, meta: Meta) -> Caller | None:
        if not self._trusts_certificates:
            return None
        names = meta.certificate_names
        if not names or any(name == GATEWAY for name, _ in meta.headers):
            return None
        return Caller(names[0], self._auth.revision)
