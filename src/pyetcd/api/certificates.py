"""Certificates of both sides, from their files to the wire, and again whenever the files change.

Rules that hold here:

* What etcd checks before it listens is checked with its words (client/pkg/transport).
* The files are looked at every quarter of a second, by a thread, and compared by content: whatever replaces
  them, a rename, a link or an editor, is seen. New connections meet what is new; those that stand go on.
* Files that do not fit (a new certificate whose key is still to come) are named in a warning, and what was
  there before stays. A revocation list that cannot be read lets nobody with a certificate in, as in etcd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from pyetcd import logs
from pyetcd._native import ClientTls, Tls
from pyetcd.api.key_pairs import authority_trouble, pair_trouble
from pyetcd.member.config import ServerConfig, TlsConfig
from pyetcd.member.tls_choice import UnknownSuite, suite_numbers, suites_not_offered, version_numbers
from pyetcd.storage.files import Files

PERIOD_SECONDS: Final = 0.25

_log = logs.get("embed")


class BadCertificate(Exception):
    """The certificate, key or CA of a side cannot be used; the message says why."""


class _NoFile(BadCertificate):
    """A file is not there."""


class _Watched:
    """Files, what they held when they were last loaded, and how they are loaded again."""

    __slots__ = ("config", "held", "paths", "reload")

    def __init__(self, config: TlsConfig, held: list[bytes | None], reload: Callable[[], None]) -> None:
        self.config = config
        self.paths = _paths(config)
        self.held = held
        self.reload = reload


class Certificates:
    """Make it, ask it for what listeners and dials need, `start` it, `stop` it."""

    def __init__(self, files: Files, config: ServerConfig) -> None:
        self._files = files
        self._config = config
        self._watched: list[_Watched] = []
        self._task: asyncio.Task[None] | None = None
        try:
            self._suites = suite_numbers(config.cipher_suites)
        except UnknownSuite as error:
            raise BadCertificate(str(error)) from None
        missing = suites_not_offered(config.cipher_suites)
        if missing:
            _log.warn("cipher suites are not offered by the TLS library", {"cipher-suites": missing})
        self._lowest, self._highest = version_numbers(config.tls_min_version, config.tls_max_version)
        if missing and not self._suites and self._highest == version_numbers("TLS1.2", "TLS1.2")[1]:
            raise BadCertificate("none of the cipher suites is offered by the TLS library")

    def serve(self, side: TlsConfig, *, check_address: bool) -> Tls:
        """For listeners of one side. `check_address`: the hosts that a client's certificate names must be
        where it comes from. BadCertificate."""
        held = _contents(self._files, _paths(side))
        tls = self._serving(side, check_address=check_address)
        self._watch(side, held, lambda: tls.replace(self._serving(side, check_address=check_address)))
        return tls

    def dial(
        self, side: TlsConfig, server_name: str, changed: Callable[[ClientTls], None]
    ) -> ClientTls | None:
        """With which certificates other members are dialled; None where there are none. `server_name`: whose
        theirs must be, empty for that of their URLs. `changed` is given what replaces it. BadCertificate."""
        if side.is_empty and not side.client_cert_file and not side.trusted_ca_file:
            return None
        held = _contents(self._files, _paths(side))
        tls = self._dialling(side, server_name)
        self._watch(side, held, lambda: changed(self._dialling(side, server_name)))
        return tls

    def watch(self, side: TlsConfig, reload: Callable[[], None]) -> None:
        """Call `reload` whenever the files are not what they are now; it raises BadCertificate or OSError."""
        if paths := _paths(side):
            self._watch(side, _contents(self._files, paths), reload)

    def start(self, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        """Look after the files from now on."""
        if self._watched:
            self._task = loop.create_task(self._look(loop, executor))

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _watch(self, side: TlsConfig, held: list[bytes | None], reload: Callable[[], None]) -> None:
        self._watched.append(_Watched(side, held, reload))

    async def _look(self, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            for watched in self._watched:
                held = await loop.run_in_executor(executor, _contents, self._files, watched.paths)
                if held != watched.held:
                    watched.held = held
                    _again(watched)

    def _serving(self, side: TlsConfig, *, check_address: bool) -> Tls:
        self._check(side)
        cert, key = self._read(side.cert_file), self._read(side.key_file)
        if side.trusted_ca_file:
            _log.info("Loading cert pool", {"cs": [side.trusted_ca_file], "tlsinfo": describe(side)})
        ca = self._read(side.trusted_ca_file) if side.trusted_ca_file else None
        crl, crl_error = self._revocations(side)
        try:
            return Tls(
                cert,
                key,
                ca,
                client_auth=side.client_cert_auth or bool(side.trusted_ca_file),
                crl=crl,
                crl_error=crl_error,
                allowed_cns=side.allowed_cns,
                allowed_hostnames=side.allowed_hostnames,
                check_address=check_address and not side.skip_client_san_verify,
                cipher_suites=self._suites,
                min_version=self._lowest,
                max_version=self._highest,
            )
        except ValueError as error:
            raise BadCertificate(_trouble(side, cert, key, ca, error)) from None

    def _dialling(self, side: TlsConfig, server_name: str) -> ClientTls:
        if not side.is_empty:
            self._check(side)
        cert_file, key_file = side.client_cert_file or side.cert_file, side.client_key_file or side.key_file
        cert = self._read(cert_file) if cert_file else None
        key = self._read(key_file) if key_file else None
        ca = self._read(side.trusted_ca_file) if side.trusted_ca_file else None
        try:
            return ClientTls(
                ca=ca,
                cert=cert,
                key=key,
                server_name=server_name or None,
                insecure_skip_verify=side.self_signed,
                allowed_cns=side.allowed_cns,
                allowed_hostnames=side.allowed_hostnames,
                cipher_suites=self._suites,
                min_version=self._lowest,
                max_version=self._highest,
            )
        except ValueError as error:
            raise BadCertificate(_trouble(side, cert, key, ca, error)) from None

    def _check(self, side: TlsConfig) -> None:
        """What etcd looks at before it listens, in its order."""
        if not side.cert_file or not side.key_file:
            files = f"[key: {side.key_file}, cert: {side.cert_file}]"
            raise BadCertificate(f"KeyFile and CertFile must both be present{files}")
        if bool(side.client_cert_file) != bool(side.client_key_file):
            raise BadCertificate(
                "ClientKeyFile and ClientCertFile must both be present or both absent: "
                f"key: {side.client_key_file}, cert: {side.client_cert_file}]"
            )
        dialling = side.client_cert_file, side.client_key_file
        if side.client_cert_file and dialling != (side.cert_file, side.key_file):
            cert, key = (self._read(path) for path in dialling)
            try:
                ClientTls(cert=cert, key=key)
            except ValueError as error:
                raise BadCertificate(_trouble(side, cert, key, None, error)) from None
        if side.allowed_cns and side.allowed_hostnames:
            raise BadCertificate(
                "AllowedCNs and AllowedHostnames are mutually exclusive "
                f"(cns={_quoted(side.allowed_cns)}, hostnames={_quoted(side.allowed_hostnames)})"
            )

    def _read(self, path: str) -> bytes:
        try:
            return self._files.read(path)
        except FileNotFoundError as error:
            raise _NoFile(_unread(path, error)) from None
        except OSError as error:
            raise BadCertificate(_unread(path, error)) from None

    def _revocations(self, side: TlsConfig) -> tuple[bytes | None, str | None]:
        if not side.crl_file:
            return None, None
        try:
            return self._files.read(side.crl_file), None
        except OSError as error:
            return None, _unread(side.crl_file, error)


def describe(side: TlsConfig) -> str:
    """One side's files, as etcd prints them."""
    return (
        f"cert = {side.cert_file}, key = {side.key_file}, client-cert={side.client_cert_file}, "
        f"client-key={side.client_key_file}, trusted-ca = {side.trusted_ca_file}, "
        f"client-cert-auth = {str(side.client_cert_auth).lower()}, crl-file = {side.crl_file}"
    )


def _again(watched: _Watched) -> None:
    files = {"cert-file": watched.config.cert_file, "key-file": watched.config.key_file}
    try:
        watched.reload()
    except _NoFile as error:
        _log.warn("failed to find peer cert files", {**files, "error": str(error)})
    except BadCertificate as error:
        _log.warn("failed to create peer certificate", {**files, "error": str(error)})
    else:
        _log.info("certificates were loaded again", files)


def _paths(side: TlsConfig) -> list[str]:
    named = (
        side.cert_file,
        side.key_file,
        side.client_cert_file,
        side.client_key_file,
        side.trusted_ca_file,
        side.crl_file,
    )
    return [path for path in dict.fromkeys(named) if path]


def _contents(files: Files, paths: Sequence[str]) -> list[bytes | None]:
    """None for a file that cannot be read."""
    held: list[bytes | None] = []
    for path in paths:
        try:
            held.append(files.read(path))
        except OSError:
            held.append(None)
    return held


def _unread(path: str, error: OSError) -> str:
    """Go's words for a file that cannot be read."""
    action = "read" if isinstance(error, IsADirectoryError) else "open"
    return f"{action} {path}: {(error.strerror or str(error)).lower()}"


def _trouble(
    side: TlsConfig, cert: bytes | None, key: bytes | None, ca: bytes | None, error: ValueError
) -> str:
    """Why the TLS library takes none of it: in Go's words where it would not either."""
    if cert is not None and key is not None:
        why = pair_trouble(cert, key)
        if why is not None:
            return why
    why = None if ca is None else authority_trouble(ca, side.trusted_ca_file)
    return str(error) if why is None else why


def _quoted(names: Sequence[str]) -> str:
    return "[" + " ".join(logs.quote(name) for name in names) + "]"
