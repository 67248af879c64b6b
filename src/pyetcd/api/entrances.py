"""Which sockets a member listens on, bound and with their certificates before anything of its data is
touched: an address that somebody else has, or a certificate that cannot be loaded, leaves nothing behind.

Rules that hold here, all etcd's (server/embed/etcd.go):

* A client URL serves gRPC and plain HTTP; once `--listen-client-http-urls` is set, client URLs serve gRPC
  alone and those URLs plain HTTP alone.
* An https URL is never served in plain text: without a certificate that can be loaded the member does not
  start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from pyetcd import logs
from pyetcd._native import Tls
from pyetcd.api.certificates import BadCertificate, Certificates, describe
from pyetcd.cluster.urls import Url
from pyetcd.listen import Entrance, Sockets
from pyetcd.member.config import ServerConfig, TlsConfig

_log = logs.get("api")


class ListenerFailed(Exception):
    """The certificates of client URLs cannot be used. Etcd finds out once it serves, hence `failed`."""

    failed = "listener failed"


class Unclaimed(Exception):
    """The service manager has passed a socket that no URL asks for: whoever connects there would wait."""


@dataclass(frozen=True, slots=True)
class Entrances:
    """All of one member."""

    peers: Sequence[Entrance]
    clients: Sequence[Entrance]
    metrics: Sequence[Entrance]

    def close(self) -> None:
        """Let go of what was not opened."""
        for entrance in (*self.peers, *self.clients, *self.metrics):
            entrance.close()


def bind_all(config: ServerConfig, certificates: Certificates, sockets: Sockets) -> Entrances:
    """OSError when an address cannot be had, BadCertificate, ListenerFailed, Unclaimed."""
    _warn_of_plain_peers(config)
    peer_tls = _peer_tls(config, certificates)
    urls = config.listen_peer_urls
    _log.info("configuring peer listeners", {"listen-peer-urls": [str(url) for url in urls]})
    with ExitStack() as undo:

        def bind(
            urls: Sequence[Url], tls: Tls | None, *, grpc: bool = True, http: bool = True
        ) -> list[Entrance]:
            bound = sockets.bind(urls, tls, grpc=grpc, http=http)
            for entrance in bound:
                undo.callback(entrance.close)
            return bound

        peers = bind(urls, peer_tls, grpc=False)
        urls, split, side = config.listen_client_urls, config.listen_client_http_urls, config.client_tls
        _log.info("configuring client listeners", {"listen-client-urls": [str(url) for url in urls]})
        _warn_of_plain_clients(config)
        client_tls = metrics_tls = None
        if _any_secure((*urls, *split)):
            client_tls = _client_tls(side, certificates)
        if _any_secure(config.listen_metrics_urls):
            metrics_tls = certificates.serve(side, check_address=True)
        clients = [*bind(urls, client_tls, http=not split), *bind(split, client_tls, grpc=False)]
        metrics = bind(config.listen_metrics_urls, metrics_tls, grpc=False)
        if sockets.unclaimed:
            raise Unclaimed(f"no URL asks for the sockets that were passed: {', '.join(sockets.unclaimed)}")
        undo.pop_all()
    return Entrances(peers, clients, metrics)


def log_serving(entrances: Sequence[Entrance]) -> None:
    """One line for each socket and scheme, as etcd's."""
    for each in entrances:
        fields = {"traffic": _traffic(each), "address": each.url.host}
        if each.plain:
            _log.info("serving client traffic insecurely; this is strongly discouraged!", fields)
        if each.tls is not None:
            _log.info("serving client traffic securely", fields)


def _traffic(entrance: Entrance) -> str:
    return "+".join(kind for kind, on in (("grpc", entrance.grpc), ("http", entrance.http)) if on)


def _any_secure(urls: Iterable[Url]) -> bool:
    return any(url.is_secure for url in urls)


def _peer_tls(config: ServerConfig, certificates: Certificates) -> Tls | None:
    secure = next((url for url in config.listen_peer_urls if url.is_secure), None)
    if secure is None:
        return None
    side = config.peer_tls
    if side.is_empty:
        lacking = "KeyFile and CertFile are not presented"
        raise BadCertificate(f"cannot listen on TLS for {secure.host}: {lacking}")
    told = {"tls-info": describe(side), "cipher-suites": list(config.cipher_suites)}
    _log.info("starting with peer TLS", told)
    try:
        return certificates.serve(side, check_address=True)
    except BadCertificate as error:
        _log.error("creating peer listener failed", {"error": str(error)})
        raise


def _client_tls(side: TlsConfig, certificates: Certificates) -> Tls:
    try:
        return certificates.serve(side, check_address=False)
    except BadCertificate as error:
        _log.error("setting up serving from embedded etcd failed.", {"error": str(error)})
        raise ListenerFailed(str(error)) from None


def _warn_of_plain_peers(config: ServerConfig) -> None:
    for url in config.listen_peer_urls:
        if url.scheme == "http":
            _warn(config.peer_tls, {"peer-url": url.text}, "HTTP", "--peer-client-cert-auth")


def _warn_of_plain_clients(config: ServerConfig) -> None:
    for url in (*config.listen_client_urls, *config.listen_client_http_urls):
        if not url.is_secure:
            _warn(config.client_tls, {"client-url": url.text}, "http or unix", "--client-cert-auth")


def _warn(side: TlsConfig, told: dict[str, object], schemes: str, flag: str) -> None:
    """Certificates were given, and a URL does without."""
    present = "while key and cert files are present; ignoring key and cert files"
    if not side.is_empty:
        _log.warn(f"scheme is {schemes} {present}", told)
    if side.client_cert_auth:
        ignored = "ignoring client cert auth for this URL"
        _log.warn(f"scheme is {schemes} while {flag} is enabled; {ignored}", told)
