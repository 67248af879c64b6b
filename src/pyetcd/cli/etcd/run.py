"""One member in this process, from its configuration to its end."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd._native import Appender, Wake
from pyetcd.api import http2_debug
from pyetcd.api.audit_writer import AuditWriter
from pyetcd.api.certificates import BadCertificate, Certificates
from pyetcd.api.entrances import Entrances, ListenerFailed, Unclaimed, bind_all
from pyetcd.api.http2_debug import Authorities
from pyetcd.api.self_signed import CannotSign, with_certificates
from pyetcd.api.server import ClientServer
from pyetcd.api.tracing import Tracing, TracingUnavailable
from pyetcd.auth.provider import make_tokens
from pyetcd.auth.tokens import BadTokenOptions
from pyetcd.cli.etcd.audit_log import CannotAudit, open_audit
from pyetcd.cli.etcd.descriptors import RESERVED, TOO_LOW, Connections, TooFewDescriptors, connections
from pyetcd.cli.etcd.host import Host
from pyetcd.cli.etcd.local_address import local_address
from pyetcd.cli.etcd.memory_lock import lock_memory
from pyetcd.cluster.bootstrap import BadCluster
from pyetcd.cluster.datadir import DataDirError
from pyetcd.cluster.versions import NewerCluster
from pyetcd.lease.lease import BadLease
from pyetcd.listen import Sockets
from pyetcd.member.config import ServerConfig
from pyetcd.member.config_log import log_start
from pyetcd.member.corruption import Inconsistent
from pyetcd.member.initial import Initial
from pyetcd.member.instruments import Instruments
from pyetcd.member.joining import find_cluster, find_initial
from pyetcd.member.loop_lag import LoopLag
from pyetcd.member.member import Member
from pyetcd.member.metrics import MemberMetrics
from pyetcd.member.opening import CannotOpen, open_member
from pyetcd.member.process_metrics import ProcessMetrics
from pyetcd.member.serving import Serving
from pyetcd.metrics import Registry
from pyetcd.peer.endpoints import Endpoints
from pyetcd.peer.port import PeerPort
from pyetcd.peer.wire import PeerWire
from pyetcd.storage.backend import BackendFailed
from pyetcd.storage.bolt import DatabaseError
from pyetcd.storage.files import Files, OsFiles
from pyetcd.storage.wal import WalError, exists

_log = logs.get("etcd")

FAILED = 1
REMOVED_SECONDS = 1.0  # until a member that was removed ends, so that its last word gets out
REMOVED = "the member has been permanently removed from the cluster"
SETUP_FAILED = "discovery failed"  # etcd's words for nearly all that can fail

REFUSALS = (
    BadCertificate,
    BadTokenOptions,
    CannotAudit,
    CannotOpen,
    Inconsistent,
    BadCluster,
    DataDirError,
    DatabaseError,
    NewerCluster,
    TracingUnavailable,
    Unclaimed,
    WalError,
    OSError,
)


async def run(config: ServerConfig, host: Host) -> int:
    """Serve until the host ends it, or until the disk fails. Returns the exit code, or minus the signal."""
    files = OsFiles()
    loop = asyncio.get_running_loop()
    host.begins(loop)
    async with AsyncExitStack() as undo:
        executor = undo.enter_context(ThreadPoolExecutor(4, "etcd-io"))
        hashing = undo.enter_context(ThreadPoolExecutor(os.cpu_count(), "etcd-hash"))
        try:
            if config.memory_mlock:
                lock_memory()
            tracing = None
            if config.tracing.enabled:
                tracing = Tracing(config.tracing, time.time, loop.call_soon_threadsafe)
                undo.push_async_callback(loop.run_in_executor, executor, tracing.close)
            allowed = connections(host.descriptors())
            config = with_certificates(files, config, time.time())
            certificates = Certificates(files, config)
            sockets = Sockets(host.passed_sockets(), reuse_port=config.socket_reuse_port)
            entrances = bind_all(config, certificates, sockets)
            undo.callback(entrances.close)
            initialized = exists(files, config.effective_wal_dir)
            initial = None if initialized else await find_initial(config, executor)
            local = local_address(config)
            log_start(config, member_initialized=initialized, initial=initial, local_address=local)
            audit = open_audit(config.audit, executor, loop)
            if audit is not None:
                undo.push_async_callback(audit.close)
            outside = _Outside(
                host, undo, files, executor, hashing, certificates, entrances, allowed, local, tracing, audit
            )
            return await _serve(config, initial, outside)
        except TooFewDescriptors as error:
            _log.fatal(TOO_LOW, {"limit": error.limit, "recommended-limit": RESERVED})
            host.failed(error)
        except (CannotSign, ListenerFailed) as error:
            _log.fatal(error.failed, {"error": str(error)})
            host.failed(error)
        except REFUSALS as error:
            _log.fatal(SETUP_FAILED, {"error": str(error)})
            host.failed(error)
        except Exception as error:  # nobody foresaw it: say where it comes from, in the same one line
            _log.fatal(SETUP_FAILED, {"error": repr(error)}, exc=error)
            host.failed(error)
        return 1


@dataclass(frozen=True, slots=True)
class _Outside:
    """What a member is given by those around it. `undo`: what is to be closed in the end. `local`: the
    address that other members are dialled from."""

    host: Host
    undo: AsyncExitStack
    files: Files
    executor: ThreadPoolExecutor
    hashing: ThreadPoolExecutor
    certificates: Certificates
    entrances: Entrances
    allowed: Connections
    local: str | None
    tracing: Tracing | None
    audit: AuditWriter | None


async def _serve(config: ServerConfig, initial: Initial | None, outside: _Outside) -> int:
    host, undo, files, executor = outside.host, outside.undo, outside.files, outside.executor
    certificates = outside.certificates
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    failures: list[BaseException] = []

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def failed(error: BaseException) -> None:
        if failures:
            return  # one failure brings others with it; the first says why
        failures.append(error)
        foreseen = isinstance(error, BackendFailed | DatabaseError | OSError)
        _log.fatal("the member cannot go on", {"error": str(error)}, exc=None if foreseen else error)
        host.failed(error)
        end(FAILED)

    def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, DatabaseError):
            failed(error)  # what reads in the background has nobody to tell
            return
        exc = error if isinstance(error, BaseException) else None
        _log.error("a callback failed", {"error": context["message"]}, exc=exc)

    def removed() -> None:
        if not ended.done():
            loop.call_later(REMOVED_SECONDS, gone)

    def gone() -> None:
        if not ended.done():
            _log.warn("server error", {"error": REMOVED})
            _log.warn("data-dir used by this member must be removed")
            end(0)

    loop.set_exception_handler(unhandled)
    server_name = initial.server_name if initial is not None else ""
    peer_wire = PeerWire(
        loop,
        tls=certificates.dial(config.peer_tls, server_name, lambda tls: peer_wire.use_tls(tls)),
        dial_timeout_seconds=config.peer_dial_timeout_seconds,
        connections=outside.allowed.peers,
        local_address=outside.local,
    )
    peer_wire.start()
    undo.push_async_callback(peer_wire.close)  # both may be closed twice: by a start that fails, only here
    wake = Wake()
    appender = Appender(wake)
    undo.callback(appender.close)
    chance = random.Random()
    beginning = await find_cluster(config, files, peer_wire, executor, initial=initial)
    tokens = make_tokens(
        config.auth_token,
        config.auth_token_ttl_seconds,
        loop.time,
        time.time,
        random.SystemRandom(),
        files.read,
    )
    opened = open_member(config, files, executor, appender, chance, cluster=beginning)
    try:
        member = Member(config, opened, loop, int(time.time() * 1000), peer_wire, failed, removed, tokens)
        if initial is None and config.feature("InitialCorruptCheck") and not config.force_new_cluster:
            await member.compare_at_first()
        registry = Registry()
        metrics = MemberMetrics(registry)
        Instruments(metrics, member, appender, loop.time, time.time)
        process = ProcessMetrics(registry, files, loop.time, time.time)
        lag = LoopLag(loop, metrics.histogram("pyetcd_loop_lag_seconds"), metrics.gather)
        server = ClientServer(
            member,
            wake,
            registry,
            metrics,
            loop,
            chance,
            time.time,
            outside.hashing,
            outside.tracing,
            outside.allowed.clients,
            outside.audit,
            Authorities(sys.stderr.write) if http2_debug.is_asked_for(os.environ) else None,
        )
        server.listen(outside.entrances)
        peer_port = PeerPort(peer_wire, member.transport, {}, {"/": Endpoints(Serving(member)).handle})
        peer_port.listen(outside.entrances.peers)
        peer_wire.before_turn, peer_wire.after_turn = server.begin_turn, server.end_of_turn
    except (BadLease, DecodeError, ValueError) as error:
        opened.discard()
        raise CannotOpen(f"{opened.backend.path}: what it holds cannot be read: {error}") from None
    except Exception:
        opened.discard()
        raise
    host.started(loop, end)
    published = asyncio.Event()
    member.start()
    certificates.start(loop, executor)
    lag.start()
    publishing = loop.create_task(member.publish())
    publishing.add_done_callback(lambda task: published.set())
    ended.add_done_callback(lambda future: published.set())
    await published.wait()
    if not ended.done():
        host.loaded()
        server.serve()
        _log.info("ready to serve client requests")
        host.ready()
    code = await ended
    _log.info("closing etcd server", {"name": config.name, "data-dir": config.data_dir})
    publishing.cancel()
    if not failures:
        await member.transfer.before_stop()
    member.cease()
    await certificates.stop()
    lag.stop()
    process.close()
    try:
        await server.close()
        await member.transport.stop()
        await peer_port.close()
        await peer_wire.close()
        appender.close()
        await member.stop()
    except Exception as error:
        failed(error)
    _log.info("closed etcd server", {"name": config.name, "data-dir": config.data_dir})
    return FAILED if failures else code
