"""`etcd grpc-proxy start`: from its flags to a running proxy. Refusals, their order and words are etcd's."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pyetcd import logs
from pyetcd._native import Channel, ClientTls
from pyetcd.api.certificates import BadCertificate, Certificates, describe
from pyetcd.api.http_profiles import PREFIX
from pyetcd.api.self_signed import CannotSign, generated
from pyetcd.cli.command import Invocation
from pyetcd.cli.etcd.descriptors import raise_limit
from pyetcd.cli.etcd.signals import until_stopped
from pyetcd.cli.etcd.systemd import notify_ready
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.cli.flag import SECOND_NS
from pyetcd.cli.gotext import UINT32_MAX
from pyetcd.cluster.endpoints import Target
from pyetcd.cluster.urls import Url, UrlError, parse_url, split_host_port
from pyetcd.listen import Entrance, Sockets
from pyetcd.logs.sinks import Writer
from pyetcd.loop import run as run_loop
from pyetcd.member.config import ServerConfig, TlsConfig
from pyetcd.member.process_metrics import ProcessMetrics
from pyetcd.member.tls_choice import VERSIONS
from pyetcd.metrics import Registry
from pyetcd.proxy.discovered import NothingDiscovered, discover
from pyetcd.proxy.endpoints import Dial
from pyetcd.proxy.server import GrpcProxy, ProxyConfig
from pyetcd.proxy.upstream import Sizes
from pyetcd.storage.files import Files, OsFiles

DIAL_SECONDS = 5.0
DEFAULT_SEND_BYTES = 2 << 20  # where --max-send-bytes is 0
MAX_INT32 = (1 << 31) - 1

_log = logs.get("etcdmain")

REFUSALS = (BadCertificate, CannotSign, NothingDiscovered, OSError)


def start(call: Invocation) -> None:
    """Serve until a signal ends it. Exit for what cannot be served."""
    _check(call)
    if call.on("debug"):
        logs.setup("debug", "json", [Writer(2)])
    files = OsFiles()
    try:
        serving = _serving_tls(files, call)
        certificates = Certificates(
            files,
            ServerConfig(
                cipher_suites=tuple(call.items("listen-cipher-suites")),
                tls_min_version=call.text("tls-min-version"),
                tls_max_version=call.text("tls-max-version"),
            ),
        )
        sockets = Sockets()
        tls = None if serving is None else certificates.serve(serving, check_address=True)
        if serving is not None:
            _log.info("gRPC proxy server TLS", {"tls-info": describe(serving)})
        listen = call.text("listen-addr")
        scheme = "http" if tls is None else "https"
        _listenable(listen)
        entrances = sockets.bind([Url(f"{scheme}://{listen}", scheme, listen, "")], tls)
        _log.info("listening for gRPC proxy client requests", {"address": listen})
        found = discover(
            call.text("discovery-srv"),
            call.text("discovery-srv-name"),
            call.text("cacert"),
            insecure=call.on("insecure-discovery"),
        )
        dialling = _Dialling(files, call, certificates)
        metrics = _metrics_entrances(call, sockets, certificates, serving)
    except REFUSALS as error:
        raise Exit(ERROR, str(error)) from None
    raise_limit()
    config = _config(call, found.endpoints or call.items("endpoints"))
    doors = (entrances, metrics)
    run_loop(until_stopped(_serve(files, call, config, dialling, serving, certificates, doors)))


async def _serve(
    files: Files,
    call: Invocation,
    config: ProxyConfig,
    dialling: _Dialling,
    serving: TlsConfig | None,
    certificates: Certificates,
    doors: tuple[Sequence[Entrance], Sequence[Entrance]],
) -> None:
    loop = asyncio.get_running_loop()
    logs.attach(loop)
    registry = Registry()
    ProcessMetrics(registry, files, loop.time, time.time)
    secure = any(entrance.tls is not None for entrance in doors[0])
    own = _own_dial(files, serving)
    proxy = GrpcProxy(config, registry, dialling.dial, own, dialling.tls, loop, is_secure=secure)
    dialling.changed = proxy.renew
    if serving is not None:
        certificates.watch(serving, proxy.renew_own)
    with ThreadPoolExecutor(1, "certificates") as executor:
        certificates.start(loop, executor)
        proxy.start()
        if config.ordering:
            await proxy.recover_order()
        if config.advertised:
            _log.info("create proxy client", {"grpcProxyAdvertiseClientURL": config.advertised})
        if config.profiles:
            _log.info("gRPC proxy enabled pprof", {"path": PREFIX[:-1]})
        proxy.open(*doors)
        if doors[1]:
            _log.info("gRPC proxy server metrics URL serving")
        _log.info("started gRPC proxy", {"address": call.text("listen-addr")})
        notify_ready(os.environ)
        await proxy.run()


def _check(call: Invocation) -> None:
    prefix, ttl = call.text("resolver-prefix"), call.number("resolver-ttl")
    if prefix and ttl < 1:
        raise Exit(ERROR, f"invalid resolver-ttl {ttl}")
    if not prefix and ttl > 0:
        raise Exit(ERROR, f"invalid resolver-prefix {logs.quote(prefix)}")
    if prefix and not call.text("advertise-client-url"):
        raise Exit(ERROR, 'invalid advertise-client-url ""')
    if call.on("auto-tls") and not call.number("self-signed-cert-validity"):
        raise Exit(ERROR, "selfSignedCertValidity is invalid,it should be greater than 0")
    lowest, highest = call.text("tls-min-version"), call.text("tls-max-version")
    for name, version in (("tls-min-version", lowest), ("tls-max-version", highest)):
        if version not in VERSIONS:
            known = "(must be one of: TLS1.2, TLS1.3)"
            raise Exit(ERROR, f"{name} is invalid: unexpected TLS version {logs.quote(version)} {known}")
    if VERSIONS[highest] and VERSIONS[lowest] > VERSIONS[highest]:
        raise Exit(ERROR, f"min version ({lowest}) is greater than max version ({highest})")
    if lowest == "TLS1.3" and call.items("listen-cipher-suites"):
        raise Exit(ERROR, "cipher suites cannot be configured when only TLS1.3 is enabled")


def _config(call: Invocation, endpoints: Sequence[str]) -> ProxyConfig:
    def seconds(flag: str) -> float:
        return max(call.number(flag), 0) / SECOND_NS

    send, receive = call.number("max-send-bytes"), call.number("max-recv-bytes")
    streams = call.number("max-concurrent-streams")
    return ProxyConfig(
        endpoints=tuple(endpoints),
        sizes=Sizes(send if send > 0 else DEFAULT_SEND_BYTES, receive if receive > 0 else MAX_INT32),
        namespace=os.fsencode(call.text("namespace")),
        leasing_prefix=os.fsencode(call.text("experimental-leasing-prefix")),
        advertised=call.text("advertise-client-url"),
        resolver_prefix=call.text("resolver-prefix"),
        resolver_ttl=call.number("resolver-ttl"),
        auto_sync_seconds=seconds("endpoints-auto-sync-interval"),
        ordering=call.on("experimental-serializable-ordering"),
        profiles=call.on("enable-pprof"),
        log_calls=call.on("experimental-enable-grpc-logging"),
        concurrent_streams=0 if streams == UINT32_MAX else streams,
        keepalive_interval=seconds("grpc-keepalive-interval"),
        keepalive_timeout=seconds("grpc-keepalive-timeout") or 20.0,
        keepalive_min_time=seconds("grpc-keepalive-min-time"),
    )


def _listenable(address: str) -> None:
    try:
        _, port = split_host_port(address)
    except UrlError as error:
        raise OSError(f"listen tcp: {error}") from None
    if not port.isdigit() or int(port) > 65535:
        why = f"address {port}: invalid port" if port.isdigit() else f"lookup tcp/{port}: unknown port"
        raise OSError(f"listen tcp: {why}")


def _serving_tls(files: Files, call: Invocation) -> TlsConfig | None:
    """Certificates for clients; None for plain text."""
    ca, cert, key = call.text("trusted-ca-file"), call.text("cert-file"), call.text("key-file")
    if ca or cert or key:
        return TlsConfig(
            cert_file=cert, key_file=key, trusted_ca_file=ca, crl_file=call.text("client-crl-file")
        )
    if not call.on("auto-tls"):
        return None
    years = call.number("self-signed-cert-validity")
    hosts = [call.text("listen-addr")]
    return generated(files, call.text("data-dir"), "proxy", hosts, years, time.time())


def _metrics_entrances(
    call: Invocation, sockets: Sockets, certificates: Certificates, serving: TlsConfig | None
) -> list[Entrance]:
    given = call.text("metrics-addr")
    if not given:
        return []
    try:
        url = parse_url(given)
    except UrlError:
        raise OSError(f"cannot parse {logs.quote(given)}") from None
    tls = None
    if url.is_secure:
        if serving is None:
            raise OSError(f"cannot listen on TLS for {url.host}: KeyFile and CertFile are not presented")
        tls = certificates.serve(serving, check_address=True)
    entrances = sockets.bind([url], tls, grpc=False)
    _log.info("gRPC proxy listening for metrics", {"address": url.text})
    return entrances


class _Dialling:
    """Connections to the cluster, with what the files of their certificates hold. BadCertificate or OSError
    when it cannot be made. `changed` is called when they hold something else."""

    def __init__(self, files: Files, call: Invocation, certificates: Certificates) -> None:
        ca, cert, key = call.text("cacert"), call.text("cert"), call.text("key")
        self._files = files
        self._side = TlsConfig(cert_file=cert, key_file=key, trusted_ca_file=ca)
        self._skip = call.on("insecure-skip-tls-verify")
        self._is_configured = bool(ca or cert or key or self._skip)
        self.changed: Callable[[ClientTls], None] = lambda tls: None
        if bool(cert) != bool(key):
            raise BadCertificate(f"KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")
        certificates.watch(self._side, self._reload)
        self._load()
        self._keepalive = call.number("dial-keepalive-time") / SECOND_NS
        self._keepalive_timeout = call.number("dial-keepalive-timeout") / SECOND_NS
        self._idle = call.on("permit-without-stream")
        if self._is_configured:
            if self._skip:
                _log.warn(
                    "--insecure-skip-tls-verify was given: certificates of the cluster are not verified. "
                    "This is for tests only."
                )
            _log.info("gRPC proxy client TLS", {"tls-info": describe(self._side)})

    def _load(self) -> None:
        side, read = self._side, self._files.read
        ca = read(side.trusted_ca_file) if side.trusted_ca_file else None
        cert = read(side.cert_file) if side.cert_file else None
        key = read(side.key_file) if side.key_file else None
        if cert is not None:
            _check_common_name(side.cert_file, cert)
        try:
            self.tls = ClientTls(ca=ca, cert=cert, key=key, insecure_skip_verify=self._skip)
        except ValueError as error:
            raise BadCertificate(str(error)) from None
        self._ca, self._cert, self._key = ca, cert, key

    def _reload(self) -> None:
        self._load()
        self.changed(self.tls)

    def dial(self, target: Target) -> Channel:
        return Channel(
            target.address,
            authority=target.authority,
            tls=target.speaks_tls(self._is_configured),
            ca=self._ca,
            cert=self._cert,
            key=self._key,
            server_name=target.server_name,
            insecure_skip_verify=self._skip,
            connect_timeout=DIAL_SECONDS,
            keepalive_time=max(self._keepalive, 10.0) if self._keepalive > 0 else 0.0,
            keepalive_timeout=self._keepalive_timeout,
            keepalive_idle=self._idle,
        )


def _check_common_name(path: str, pem: bytes) -> None:
    """A client certificate's name is a user's to the cluster, and that is not the proxy's to be."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        names = x509.load_pem_x509_certificate(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise BadCertificate(str(error)) from None
    if names and names[0].value:
        raise BadCertificate(f"cert has non empty Common Name ({names[0].value!s}): {path}")


def _own_dial(files: Files, serving: TlsConfig | None) -> Dial:
    """Connections to the address that clients are told."""

    def dial(target: Target) -> Channel:
        ca = cert = key = None
        if serving is not None:
            cert, key = files.read(serving.cert_file), files.read(serving.key_file)
            ca = files.read(serving.trusted_ca_file) if serving.trusted_ca_file else None
        return Channel(
            target.address,
            authority=target.authority,
            tls=target.speaks_tls(serving is not None),
            ca=ca,
            cert=cert,
            key=key,
            server_name=target.server_name,
            insecure_skip_verify=serving is not None and serving.self_signed,
            connect_timeout=DIAL_SECONDS,
        )

    return dial
