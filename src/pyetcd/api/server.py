"""The client ports: which services there are, on which addresses, and how one turn of the loop serves
them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from pyetcd import logs
from pyetcd._native import Limits, Meta, Server, Wake
from pyetcd.api.audit import Audit, Lines
from pyetcd.api.auth import LOGGED, Auth
from pyetcd.api.certificates import describe
from pyetcd.api.cluster import Cluster
from pyetcd.api.dispatch import (
    AsyncUnary,
    Body,
    Dispatcher,
    Event,
    OnSlow,
    OnStreamEnd,
    OpenStream,
    Outbox,
    Unary,
)
from pyetcd.api.election import Election
from pyetcd.api.entrances import Entrances, log_serving
from pyetcd.api.gateway.exchanges import Parts
from pyetcd.api.gateway.gateway import Gateway
from pyetcd.api.grpc_metrics import CALLER_HEADER, HANDLING_BOUNDS, GrpcMetrics
from pyetcd.api.guard import Guard
from pyetcd.api.health import Health
from pyetcd.api.http import Access, HttpRoutes
from pyetcd.api.http2_debug import Authorities
from pyetcd.api.http_health import HealthChecks
from pyetcd.api.http_metrics import Scrapes
from pyetcd.api.http_profiles import PREFIX, Profiles
from pyetcd.api.http_vars import variables
from pyetcd.api.inside import Inside
from pyetcd.api.kv import KV
from pyetcd.api.leadership import Leadership
from pyetcd.api.lease import Leases
from pyetcd.api.local_counts import LocalCounts
from pyetcd.api.lock import Lock
from pyetcd.api.maintenance import Maintenance
from pyetcd.api.metrics_port import MetricsPort
from pyetcd.api.permissions import Doors
from pyetcd.api.recent_requests import RecentRequests
from pyetcd.api.request_limits import RequestLimits
from pyetcd.api.request_stats import EVERY_CALL_SECONDS, RequestStats
from pyetcd.api.tracing import StreamCalls, Tracing, UnaryCalls
from pyetcd.api.watch import Watch
from pyetcd.api.wire_metrics import bind_wire
from pyetcd.auth.caller import NOBODY
from pyetcd.auth.passwords import Passwords
from pyetcd.auth.remembered import Remembered
from pyetcd.listen import Entrance
from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.member.metrics import MemberMetrics
from pyetcd.metrics import Registry
from pyetcd.mvcc.watch_hub import WatchHub

STOP_GRACE_SECONDS = 1.0
STREAM_BACKLOG_BYTES = 1 << 20  # unsent bytes beyond which a stream counts as slow
GRPC_OVERHEAD_BYTES = 512 << 10  # what etcd allows a message beyond max-request-bytes
MAX_UINT32 = 0xFFFFFFFF
HTTP_BODY_BYTES = 4 << 20  # a message in JSON takes a third more than it has bytes, and the spaces between
HEADER_BYTES = (1 << 20) + 4096  # of an HTTP request, as Go's server takes

_log = logs.get("api")


class ClientServer:
    """One member's client side. Make it, `listen`, and `serve` once the member is ready."""

    def __init__(
        self,
        member: Member,
        wake: Wake,
        registry: Registry,
        metrics: MemberMetrics,
        loop: asyncio.AbstractEventLoop,
        chance: random.Random,
        unix: Callable[[], float],
        hashing: Executor,
        tracing: Tracing | None = None,
        connections: int = 0,
        audit_lines: Lines | None = None,
        authorities: Authorities | None = None,
    ) -> None:
        """`hashing`: where passwords are hashed. `connections`: of clients at once, 0 for any number.
        `audit_lines`: where it is noted who asks for what. `authorities`: notes all calls."""
        config = member.config
        self._member = member
        self._wake = wake
        self._loop = loop
        # The services need the wire for their answers, the wire needs the methods: these are known by name.
        methods = [(name, False) for name in UNARY] + [(name, True) for name in STREAMS]
        names = [name for name, _ in methods]
        stats = RequestStats(names, config.warning_unary_request_duration_seconds)
        slow_seconds = stats.slow_seconds
        note: OnSlow = stats.note
        if tracing is not None:
            slow_seconds, note = EVERY_CALL_SECONDS, _both(stats.note, UnaryCalls(tracing, names).note)
        recent = None
        if config.logging.level == "debug":  # then all calls are named, for `request stats`
            recent = RecentRequests(names)
            note = _both(note, recent.note)
        audit = None
        if audit_lines is not None:
            audit = Audit(names, audit_lines, loop.time)
            member.identity.on_named = audit.names.note
            slow_seconds, note = EVERY_CALL_SECONDS, _both(note, audit.note)
        extensive = config.metrics == "extensive"
        self._server = Server(
            wake,
            methods,
            _limits(config, connections),
            slow_seconds=slow_seconds,
            duration_bounds=HANDLING_BOUNDS if extensive else (),
            caller_header=CALLER_HEADER,
        )
        outbox = Outbox(self._server, loop)
        outbox.on_slow = note
        counts = LocalCounts(len(names))
        outbox.local.counts, outbox.local.on_slow = counts, note
        outbox.local.slow_seconds = slow_seconds
        kv, cluster, self._health = KV(member, outbox), Cluster(member, unix), Health(outbox)
        maintenance = Maintenance(member, outbox, self._health)
        self._leadership = Leadership(member)
        self._leadership_seconds = config.election_ticks * config.heartbeat_interval_ms / 1000
        self.hub = WatchHub(
            member.store,
            outbox.server,
            member.header,
            loop,
            chance,
            backlog_bytes_max=STREAM_BACKLOG_BYTES,
            message_bytes_max=config.max_request_bytes + GRPC_OVERHEAD_BYTES,
            progress_seconds=config.effective_watch_progress_notify_interval_seconds,
        )
        member.store.watch(self.hub.on_change, self.hub.on_bulk, self.hub.restored)
        auth, identity = member.auth, member.identity

        def permit(meta: Meta, key: bytes, range_end: bytes) -> None:
            if auth.enabled:
                auth.check_read(identity.caller(meta) or NOBODY, key, range_end)

        may_watch = permit if audit is None else audit.watches(permit)
        watch = Watch(self.hub, self._leadership, outbox.finish, may_watch)
        doors = Doors(identity)
        passwords = Passwords(hashing, max(1, (os.cpu_count() or 1) // 2), member.bcrypt_cost)
        remembered = None
        if config.password_cache_ttl_seconds > 0:
            unguessable = random.SystemRandom()
            remembered = Remembered(
                config.password_cache_ttl_seconds, loop.time, loop.call_later, unguessable
            )
        leases = Leases(member, outbox, self._leadership, loop)
        unary: Mapping[str, Unary] = doors.unary(
            {**kv.unary, **leases.unary, **maintenance.unary, **self._health.unary}
        )
        inside = Inside(member, self.hub, outbox.local)
        lock, election = Lock(inside), Election(inside, outbox, self._leadership)
        coroutines: Mapping[str, AsyncUnary] = doors.coroutines(
            {
                **maintenance.coroutines,
                **cluster.coroutines,
                **Auth(member, passwords, remembered).coroutines,
                **lock.coroutines,
                **election.coroutines,
            }
        )
        guard = Guard(self._leadership, outbox)
        guarded: Mapping[str, OpenStream] = {**kv.streams, **maintenance.streams, **self._health.streams}
        others: Mapping[str, OpenStream] = {**watch.streams, **leases.streams, **election.streams}
        admission = self._leadership.admission
        if config.max_requests_per_user or config.max_requests_per_connection:
            limits = RequestLimits(
                config.max_requests_per_user,
                config.max_requests_per_connection,
                identity,
                outbox,
                loop.time,
            )
            admission = limits.admission(admission)
            guarded, others = limits.streams(guarded), limits.streams(others)
        if audit is not None:
            guarded, others = audit.inside(guarded), audit.inside(others)
        streams: Mapping[str, OpenStream] = doors.streams({**guard.guarded(guarded), **others})
        if audit is not None:
            streams, outbox.on_stream_end = audit.outside(streams), audit.ended
        if tracing is not None:
            spans = StreamCalls(tracing, loop.time)
            streams = spans.traced(streams)
            outbox.on_stream_end = spans.ended if audit is None else _both_ends(audit.ended, spans.ended)
        if authorities is not None:
            admission, streams = authorities.admission(admission), authorities.streams(streams)
        assert {*unary, *coroutines} == set(UNARY), "every announced method has a handler"
        assert set(streams) == set(STREAMS), "every announced stream has a handler"
        checks = HealthChecks(
            member,
            registry,
            metrics.counter("etcd_server_health_success"),
            metrics.counter("etcd_server_health_failures"),
        )
        scrapes = Scrapes(registry)
        self._metrics_port: MetricsPort | None = None
        if config.listen_metrics_urls:
            self._metrics_port = MetricsPort(member, checks, scrapes, loop)
        access = Access(frozenset(config.cors), frozenset(config.host_whitelist))
        self._outbox = outbox
        self._dispatcher = Dispatcher(
            self._server,
            outbox,
            names,
            unary,
            coroutines,
            streams,
            lambda call, request, meta: self._http.handle(call, request, meta),
            admission,
            member.end_of_turn,
            lambda: member.late_tokens.hold if auth.enabled else None,
        )
        server = self._server
        gateway = None
        if config.enable_grpc_gateway:
            limit = config.max_receive_bytes
            gateway = Gateway(Parts(server, outbox, self._dispatcher, member.jobs, loop, limit)).handle
        profiles = None
        if config.enable_pprof:
            _log.info("pprof is enabled", {"path": PREFIX[:-1]})
        if config.enable_pprof or config.logging.level == "debug":
            profiles = Profiles()
        self._http = HttpRoutes(
            server,
            member,
            checks,
            scrapes,
            access=access,
            gateway=gateway,
            variables=variables(member),
            profiles=profiles,
            recent=recent,
            ignores_names=lambda: auth.enabled and config.client_tls.client_cert_auth,
        )
        GrpcMetrics(
            registry,
            names,
            lambda: counts.with_rows(server.call_counts()),
            lambda: counts.with_callers(server.caller_counts()),
            self._dispatcher.malformed,
            extensive=extensive,
        )
        bind_wire(metrics, lambda: counts.with_bytes(server.message_bytes()), self.hub)
        self._entrances: Sequence[Entrance] = ()
        self._serving = False
        self._leadership_timer: asyncio.TimerHandle | None = None

    def listen(self, entrances: Entrances) -> None:
        """Accept; what clients ask waits until `serve`, metrics are told at once."""
        self._entrances = entrances.clients
        for entrance in entrances.clients:
            entrance.open(self._server)
        if self._metrics_port is not None:
            self._metrics_port.listen(entrances.metrics)
        self._loop.add_reader(self._wake.fileno(), self._turn)

    def serve(self) -> None:
        """Answer from now on."""
        self._serving = True
        self._health.set_serving(True)
        self._check_leadership()
        self._turn()
        if not self._member.config.client_tls.is_empty:
            config = self._member.config
            told = {"tls-info": describe(config.client_tls), "cipher-suites": list(config.cipher_suites)}
            _log.info("starting with client TLS", told)
        log_serving(self._entrances)

    def _check_leadership(self) -> None:
        self._leadership.check()
        self._leadership_timer = self._loop.call_later(self._leadership_seconds, self._check_leadership)

    def _turn(self) -> None:
        self._wake.clear()
        self.begin_turn()
        if not self._serving:
            self._member.end_of_turn()
        elif self._dispatcher.turn():
            self._loop.call_soon(self._turn)
        self._flush()

    def begin_turn(self) -> None:
        """What is answered from now on, and sent to other members, leaves at the end of this turn."""
        self._outbox.hold()
        self._member.begin_turn()

    def end_of_turn(self) -> None:
        self._member.end_of_turn()
        self._flush()

    def _flush(self) -> None:
        self.hub.flush()
        self._outbox.flush()

    async def close(self) -> None:
        """Stop accepting, end what is under way, close."""
        self._server.stop_accepting()
        self._serving = False
        if self._leadership_timer is not None:
            self._leadership_timer.cancel()
        await self._dispatcher.close()
        await self._http.close()
        if self._metrics_port is not None:
            await self._metrics_port.close()
        self._outbox.flush()
        self._loop.remove_reader(self._wake.fileno())
        await self._loop.run_in_executor(None, self._server.shutdown, STOP_GRACE_SECONDS)


UNARY = (
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Auth/Authenticate",
    *(f"/etcdserverpb.Auth/{name}" for name in (*LOGGED, "UserAdd", "UserChangePassword")),
    "/v3lockpb.Lock/Lock",
    "/v3lockpb.Lock/Unlock",
    "/v3electionpb.Election/Campaign",
    "/v3electionpb.Election/Proclaim",
    "/v3electionpb.Election/Leader",
    "/v3electionpb.Election/Resign",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
)
STREAMS = (
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Maintenance/Snapshot",
    "/v3electionpb.Election/Observe",
    "/grpc.health.v1.Health/Watch",
)


def _both(first: OnSlow, second: OnSlow) -> OnSlow:
    def note(event: Event, body: Body | None, seconds: float, code: int, message: str) -> None:
        first(event, body, seconds, code, message)
        second(event, body, seconds, code, message)

    return note


def _both_ends(first: OnStreamEnd, second: OnStreamEnd) -> OnStreamEnd:
    def ended(call: int, code: int, message: str) -> None:
        first(call, code, message)
        second(call, code, message)

    return ended


def _limits(config: ServerConfig, connections: int) -> Limits:
    streams = config.max_concurrent_streams
    return Limits(
        recv_message_bytes=config.max_receive_bytes,
        http_body_bytes=max(HTTP_BODY_BYTES, 2 * config.max_receive_bytes),
        concurrent_streams=0 if streams == MAX_UINT32 else streams,
        keepalive_interval=config.grpc_keepalive_interval_seconds,
        keepalive_timeout=config.grpc_keepalive_timeout_seconds,
        keepalive_min_time=config.grpc_keepalive_min_time_seconds,
        stream_backlog_bytes=STREAM_BACKLOG_BYTES,
        header_bytes=HEADER_BYTES,
        connections=connections,
    )
