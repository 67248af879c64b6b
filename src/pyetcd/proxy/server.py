"""The gRPC proxy put together: its services, what serves them, and what it does by itself.

Between a client's key-value call and the cluster stand, in this order, the cache, leased keys, the
namespace and the ordering of reads; watches are shared by range, keepalives by lease, and everything else
passes as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd import logs
from pyetcd._native import HTTP, ClientTls, HttpRequest, Limits, Server, Wake
from pyetcd.api.dispatch import Outbox
from pyetcd.api.grpc_metrics import CALLER_HEADER, GrpcMetrics
from pyetcd.api.http_metrics import Scrapes
from pyetcd.listen import Entrance
from pyetcd.metrics import Registry
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import MemberListRequest, MemberListResponse, RangeRequest, RangeResponse
from pyetcd.proxy import kv as kv_paths
from pyetcd.proxy.broadcasts import Ranges
from pyetcd.proxy.cache import RangeCache
from pyetcd.proxy.calls import NOBODY, Kv, ask
from pyetcd.proxy.endpoints import Dial
from pyetcd.proxy.front import Front, OpenStream, Unary
from pyetcd.proxy.http import Health, ProxyHealth, Routes
from pyetcd.proxy.kv import DirectKv, KvService, NoRangeStream
from pyetcd.proxy.leadership import Leadership
from pyetcd.proxy.leases import KEEP_ALIVE, LeaseStreams
from pyetcd.proxy.leasing import LeasingKv
from pyetcd.proxy.members import MEMBER_LIST, Members, Registered, Registration
from pyetcd.proxy.namespace import NamespaceKv
from pyetcd.proxy.ordering import OrderedKv
from pyetcd.proxy.passing import passed, passed_streams
from pyetcd.proxy.upstream import Sizes, Upstream, status_text
from pyetcd.proxy.watch import WatchService
from pyetcd.proxy.watch_line import WATCH, WatchLine
from pyetcd.proxy.watch_news import News

RECEIVED_BYTES_MAX: Final = 4 << 20  # of a client's message, grpc-go's own bound
STREAM_BACKLOG_BYTES: Final = 1 << 20
RETRY_SECONDS: Final = 1.0
METRICS_CONNECTIONS_MAX: Final = 64
MAX_INT32: Final = (1 << 31) - 1

_log = logs.get("grpcproxy")


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """What the flags say. Times in seconds, 0 for never."""

    endpoints: Sequence[str]
    sizes: Sizes
    namespace: bytes = b""
    advertised: str = ""
    leasing_prefix: bytes = b""
    resolver_prefix: str = ""
    resolver_ttl: int = 0
    auto_sync_seconds: float = 0.0
    ordering: bool = False
    profiles: bool = False
    log_calls: bool = False
    concurrent_streams: int = 0
    keepalive_interval: float = 0.0
    keepalive_timeout: float = 0.0
    keepalive_min_time: float = 0.0


class GrpcProxy:
    """Make it, `start`, `open` and `run` it."""

    def __init__(
        self,
        config: ProxyConfig,
        registry: Registry,
        dial: Dial,
        dial_own: Dial,
        tls: ClientTls | None,
        loop: asyncio.AbstractEventLoop,
        *,
        is_secure: bool,
    ) -> None:
        """`dial`: connections to the cluster; `dial_own`: to the advertised address. `tls`: for metrics."""
        self._config = config
        self._loop = loop
        self._wake = Wake()
        self._limits = Limits(
            recv_message_bytes=RECEIVED_BYTES_MAX,
            concurrent_streams=config.concurrent_streams,
            keepalive_interval=config.keepalive_interval,
            keepalive_timeout=config.keepalive_timeout,
            keepalive_min_time=config.keepalive_min_time,
            stream_backlog_bytes=STREAM_BACKLOG_BYTES,
        )
        self._upstream = Upstream(self._wake, loop, config.endpoints, dial, config.sizes)
        kv: Kv = DirectKv(self._upstream)
        if config.ordering:
            kv = OrderedKv(kv, len(config.endpoints))
        if config.namespace:
            kv = NamespaceKv(kv, config.namespace)
        self._kv = kv
        self._cache = RangeCache()
        self._lines: dict[str, WatchLine] = {}
        self._ranges = Ranges(self._line, config.namespace, self._seen)
        self._leasing: LeasingKv | None = None
        if config.leasing_prefix:
            self._leasing = LeasingKv(self._upstream, kv, self._ranges, config.leasing_prefix)
            kv = self._kv = self._leasing
        self._registered: Registered | None = None
        if config.resolver_prefix and config.advertised:
            self._registered = Registered(kv, self._ranges, config.resolver_prefix, loop)
        self._serve(registry)
        own = own_kv = None
        if config.advertised:
            own = Upstream(self._wake, loop, [config.advertised], dial_own, Sizes(MAX_INT32, MAX_INT32))
            own_kv = DirectKv(own)
        self._own = own
        self._routes = Routes(
            self._server,
            loop,
            config.endpoints,
            Health(self._upstream, kv),
            ProxyHealth(own, own_kv),
            Scrapes(registry),
            tls,
            profiles=config.profiles,
            fetch_securely=is_secure,
        )
        self._metrics_server: Server | None = None
        self._metrics_wake = Wake()

    def start(self) -> None:
        """Speak to the cluster from now on."""
        self._loop.add_reader(self._wake.fileno(), self._turn)

    def open(self, entrances: Sequence[Entrance], metrics: Sequence[Entrance]) -> None:
        """Serve from now on."""
        for entrance in entrances:
            entrance.open(self._server)
        if metrics:
            limits = Limits(connections=METRICS_CONNECTIONS_MAX)
            self._metrics_server = Server(self._metrics_wake, [], limits)
            for entrance in metrics:
                entrance.open(self._metrics_server)
            self._loop.add_reader(self._metrics_wake.fileno(), self._metrics_turn)

    def renew(self, tls: ClientTls) -> None:
        """Certificates for the cluster have changed: what is dialled from now on shows the new ones. `tls`:
        for metrics."""
        self._upstream.endpoints.renew()
        self._routes.use_tls(tls)

    def renew_own(self) -> None:
        """The same for the advertised address."""
        if self._own is not None:
            self._own.endpoints.renew()

    async def run(self) -> None:
        """Do what the proxy does by itself, until cancelled."""
        config = self._config
        work: list[Coroutine[None, None, None]] = []
        if config.resolver_prefix:
            address, ttl = config.advertised, config.resolver_ttl
            prefix = config.resolver_prefix
            registration = Registration(self._upstream, self._kv, prefix, address, ttl, self._loop)
            work.append(registration.hold())
        if self._registered is not None:
            work.append(self._registered.follow())
        if self._leasing is not None:
            work.append(self._leasing.hold())
        if config.auto_sync_seconds > 0:
            work.append(self._sync_endpoints())
        await asyncio.gather(*work, self._for_ever())

    async def recover_order(self) -> None:
        """Know how far the cluster is before a client reads, where reads are to be in order."""
        _log.info("waiting for linearized read from cluster to recover ordering")
        payload = RangeRequest(key=b"_", keys_only=True).SerializeToString()
        while True:
            try:
                await ask(
                    lambda done: self._kv.begin(kv_paths.RANGE, payload, NOBODY, done),
                    RangeResponse,
                    self._loop,
                )
                return
            except EtcdError as error:
                told = {"error": status_text(error.code, error.message)}
                _log.warn("ordering recovery failed, retrying in 1s", told)
                await asyncio.sleep(RETRY_SECONDS)

    async def _for_ever(self) -> None:
        await self._loop.create_future()

    async def _sync_endpoints(self) -> None:
        payload = MemberListRequest(linearizable=True).SerializeToString()
        while True:
            await asyncio.sleep(self._config.auto_sync_seconds)
            try:
                answer = await ask(
                    lambda done: self._upstream.begin(MEMBER_LIST, payload, NOBODY, done, reads=True),
                    MemberListResponse,
                    self._loop,
                )
            except EtcdError as error:
                told = {"error": status_text(error.code, error.message)}
                _log.info("Auto sync endpoints failed.", told)
                continue
            named = [
                url
                for member in answer.members
                if member.name and not member.isLearner
                for url in member.clientURLs
            ]
            if named and named != self._upstream.endpoints.names:
                _log.info("endpoints of the cluster have changed", {"endpoints": named})
                self._upstream.endpoints.set(named)

    def _line(self, token: str) -> WatchLine:
        line = self._lines.get(token)
        if line is None:
            for idle in [each for each, known in self._lines.items() if not len(known)]:
                del self._lines[idle]
            line = self._lines[token] = WatchLine(self._upstream, token)
        return line

    def _seen(self, news: News) -> None:
        if len(self._cache):
            for event in news.events:
                self._cache.invalidate(event.kv.key, b"", event.kv.mod_revision)

    def _serve(self, registry: Registry) -> None:
        """The wire and what answers on it."""
        # The services need the wire for their answers, the wire needs the methods: these are known by name.
        unary_names = [*kv_methods(), *passed(self._upstream, b""), MEMBER_LIST]
        stream_names = [WATCH, KEEP_ALIVE, kv_paths.RANGE_STREAM, *SOURCES]
        self._server = Server(
            self._wake, Front.methods(unary_names, stream_names), self._limits, caller_header=CALLER_HEADER
        )
        outbox = self._outbox = Outbox(self._server, self._loop)
        upstream, config = self._upstream, self._config
        service = KvService(self._kv, self._cache)
        unary: Mapping[str, Unary] = {
            kv_paths.RANGE: service.range,
            kv_paths.PUT: service.put,
            kv_paths.DELETE_RANGE: service.delete_range,
            kv_paths.TXN: service.txn,
            kv_paths.COMPACT: service.compact,
            **passed(upstream, config.namespace),
            MEMBER_LIST: Members(upstream, config.advertised, self._registered).list,
        }
        leadership = Leadership(WatchLine(upstream, "", has_leader=True), self._loop)
        watches = WatchService(self._ranges, self._kv, outbox, leadership, self._loop.call_soon)
        streams: Mapping[str, OpenStream] = {
            WATCH: watches.open,
            KEEP_ALIVE: LeaseStreams(upstream, outbox, leadership).open,
            kv_paths.RANGE_STREAM: lambda call, meta: NoRangeStream(),
            **passed_streams(upstream, outbox),
        }
        assert list(unary) == unary_names
        assert list(streams) == stream_names
        self._front = Front(
            self._server,
            outbox,
            self._loop,
            unary,
            streams,
            lambda call, request, meta: self._routes.handle(call, request, meta),
            lambda call, response: self._routes.fetched(call, response),
        )
        if config.log_calls:
            from pyetcd.proxy.call_log import CallLog

            self._front.watcher = CallLog([*unary_names, *stream_names])
        GrpcMetrics(
            registry,
            [*unary_names, *stream_names],
            self._server.call_counts,
            self._server.caller_counts,
            self._front.malformed,
        )
        cache, ranges = self._cache, self._ranges
        for name, text, read in (
            ("cache_hits_total", "Answers that the cache had.", lambda: cache.hits),
            ("cache_misses_total", "Answers that the cache did not have.", lambda: cache.misses),
            ("cache_keys_total", "Answers in the cache.", lambda: len(cache)),
            (
                "watchers_coalescing_total",
                "Watchers that share another's watch.",
                lambda: ranges.watchers_shared,
            ),
        ):
            registry.gauge(f"etcd_grpc_proxy_{name}", text).read = read
        shared = registry.counter("etcd_grpc_proxy_events_coalescing_total", "Answers that were shared.")
        shared.read = lambda: ranges.events_shared

    def _turn(self) -> None:
        self._wake.clear()
        again = self._front.turn()
        again = self._upstream.turn() or again
        if self._own is not None:
            again = self._own.turn() or again
        if again:
            self._loop.call_soon(self._turn)
        self._outbox.flush()

    def _metrics_turn(self) -> None:
        assert self._metrics_server is not None
        self._metrics_wake.clear()
        for kind, call, _, payload, meta in self._metrics_server.drain(512):
            if kind == HTTP:
                assert isinstance(payload, HttpRequest)
                assert meta is not None
                self._routes.handle(call, payload, meta, self._metrics_server)


SOURCES: Final = ("/etcdserverpb.Maintenance/Snapshot", "/v3electionpb.Election/Observe")


def kv_methods() -> Sequence[str]:
    return (kv_paths.RANGE, kv_paths.PUT, kv_paths.DELETE_RANGE, kv_paths.TXN, kv_paths.COMPACT)
