"""The peers' port: certificates, sockets, and who answers there."""

from __future__ import annotations

from pyetcd import logs
from pyetcd.api.certificates import BadCertificate, Certificates, describe
from pyetcd.member.config import ServerConfig, TlsConfig
from pyetcd.member.member import Member
from pyetcd.member.serving import Serving
from pyetcd.peer.endpoints import Endpoints
from pyetcd.peer.port import PeerPort
from pyetcd.peer.wire import PeerWire

_log = logs.get("api")


def listen_to_peers(
    certificates: Certificates, config: ServerConfig, wire: PeerWire, member: Member
) -> PeerPort:
    """Bind, and answer from now on. OSError when an address cannot be had, BadCertificate."""
    urls = config.listen_peer_urls
    for url in urls:
        if url.text.startswith("http:"):
            _warn_of_plain(config.peer_tls, url.text)
    tls = None
    secure = next((url for url in urls if url.is_secure), None)
    if secure is not None:
        if config.peer_tls.is_empty:
            lacking = "KeyFile and CertFile are not presented"
            raise BadCertificate(f"cannot listen on TLS for {secure.host}: {lacking}")
        told = {"tls-info": describe(config.peer_tls), "cipher-suites": list(config.cipher_suites)}
        _log.info("starting with peer TLS", told)
        tls = certificates.serve(config.peer_tls, check_address=True)
    _log.info("configuring peer listeners", {"listen-peer-urls": [url.text for url in urls]})
    endpoints = Endpoints(Serving(member))
    port = PeerPort(wire, member.transport, {}, {"/": endpoints.handle})
    port.listen(urls, tls)
    wire.after_turn = member.end_of_turn
    return port


def _warn_of_plain(side: TlsConfig, url: str) -> None:
    told = {"peer-url": url}
    if not side.is_empty:
        _log.warn("scheme is HTTP while key and cert files are present; ignoring key and cert files", told)
    if side.client_cert_auth:
        _log.warn(
            "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL",
            told,
        )
