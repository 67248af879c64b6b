"""The peers' port: certificates, sockets, and who answers there."""

from __future__ import annotations

from pyetcd import logs
from pyetcd._native import ClientTls
from pyetcd.api.listeners import BadCertificate, load_tls
from pyetcd.member.config import ServerConfig, TlsConfig
from pyetcd.member.member import Member
from pyetcd.member.serving import Serving
from pyetcd.peer.endpoints import Endpoints
from pyetcd.peer.port import PeerPort
from pyetcd.peer.wire import PeerWire
from pyetcd.storage.files import Files

_log = logs.get("api")


def dialling_tls(files: Files, config: TlsConfig, server_name: str) -> ClientTls | None:
    """With which certificates other members are dialled; None where there are none. `server_name`: whose
    theirs must be, empty for that of their URLs. BadCertificate or OSError."""
    cert, key = config.client_cert_file or config.cert_file, config.client_key_file or config.key_file
    if not cert and not config.trusted_ca_file:
        return None
    try:
        return ClientTls(
            ca=files.read(config.trusted_ca_file) if config.trusted_ca_file else None,
            cert=files.read(cert) if cert else None,
            key=files.read(key) if key else None,
            server_name=server_name or None,
        )
    except ValueError as error:
        raise BadCertificate(f"the peer certificate ({cert}, {key}) cannot be used: {error}") from None


def listen_to_peers(files: Files, config: ServerConfig, wire: PeerWire, member: Member) -> PeerPort:
    """Bind, and answer from now on. OSError when an address cannot be had, BadCertificate."""
    urls = config.listen_peer_urls
    tls = load_tls(files, config.peer_tls) if any(url.is_secure for url in urls) else None
    _log.info("configuring peer listeners", {"listen-peer-urls": [url.text for url in urls]})
    endpoints = Endpoints(Serving(member))
    port = PeerPort(wire, member.transport, {}, {"/": endpoints.handle})
    port.listen(urls, tls)
    wire.after_turn = member.end_of_turn
    return port
