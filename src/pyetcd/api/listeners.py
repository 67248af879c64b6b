"""Which sockets the client side listens on, and what each of them serves.

Rules that hold here, all etcd's (server/embed/serve.go):

* A client URL serves gRPC and plain HTTP; once `--listen-client-http-urls` is set, client URLs serve gRPC
  alone and those URLs plain HTTP alone.
* `http://` and `https://` of one address are one socket that takes both.
* An https URL is never served in plain text: without a certificate that can be loaded the member does not
  start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyetcd import logs
from pyetcd._native import Server, Tls
from pyetcd.cluster.urls import Url
from pyetcd.member.config import ServerConfig

_log = logs.get("api")


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket to be, and what it takes."""

    url: Url
    secure: bool
    plain: bool
    grpc: bool
    http: bool


def planned(config: ServerConfig) -> list[Listener]:
    """The sockets a configuration asks for, in order."""
    split = bool(config.listen_client_http_urls)
    listeners = _merged(config.listen_client_urls, grpc=True, http=not split)
    return listeners + _merged(config.listen_client_http_urls, grpc=False, http=True)


def warn_of_plain(config: ServerConfig) -> None:
    """Certificates were given, and some client URLs do without."""
    for url in (*config.listen_client_urls, *config.listen_client_http_urls):
        if url.is_secure:
            continue
        told = {"client-url": url.text}
        if not config.client_tls.is_empty:
            _log.warn(
                "scheme is http or unix while key and cert files are present; ignoring key and cert files",
                told,
            )
        if config.client_tls.client_cert_auth:
            _log.warn(
                "scheme is http or unix while --client-cert-auth is enabled; "
                "ignoring client cert auth for this URL",
                told,
            )


def _merged(urls: Sequence[Url], *, grpc: bool, http: bool) -> list[Listener]:
    places: dict[str, list[Url]] = {}
    for url in urls:
        places.setdefault(url.host + url.path, []).append(url)
    return [
        Listener(
            same[0],
            secure=any(url.is_secure for url in same),
            plain=not all(url.is_secure for url in same),
            grpc=grpc,
            http=http,
        )
        for same in places.values()
    ]


def listen(server: Server, listeners: Sequence[Listener], tls: Tls | None) -> None:
    """Bind; connections wait to be answered. OSError when an address cannot be had."""
    for each in listeners:
        secured = tls if each.secure else None
        assert secured is not None or not each.secure, "an https URL is never served in plain text"
        if each.url.is_unix:
            server.listen_unix(each.url.socket_path, secured, each.plain, each.grpc, each.http)
        else:
            port = int(each.url.port)
            server.listen_tcp(each.url.hostname, port, secured, each.plain, each.grpc, each.http)


def log_serving(listeners: Sequence[Listener]) -> None:
    """One line for each socket and scheme, as etcd's."""
    for each in listeners:
        fields = {"traffic": _traffic(each), "address": each.url.host}
        if each.plain:
            _log.info("serving client traffic insecurely; this is strongly discouraged!", fields)
        if each.secure:
            _log.info("serving client traffic securely", fields)


def _traffic(listener: Listener) -> str:
    return "+".join(kind for kind, on in (("grpc", listener.grpc), ("http", listener.http)) if on)
