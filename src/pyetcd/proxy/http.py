"""Plain HTTP of the proxy: its own health and metrics below `/proxy/`, the cluster's where a member has them.

`/metrics` is asked of one endpoint, the same as long as the proxy runs. `/health` reads a key through the
proxy's own way to the cluster; `/proxy/health` does so through the address that clients are told, and watches
as well, so it fails where clients would.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine, Sequence
from typing import Final
from urllib.parse import unquote

from pyetcd import logs
from pyetcd._native import ClientTls, HttpRequest, HttpResponse, Meta, Server
from pyetcd.api.http_metrics import Scrapes
from pyetcd.api.http_profiles import PREFIX, Profiles
from pyetcd.api.http_reply import NOT_ALLOWED, NOT_FOUND, Reply
from pyetcd.cluster.endpoints import Target
from pyetcd.proto.errors import PERMISSION_DENIED, EtcdError
from pyetcd.proto.rpc_pb2 import RangeRequest, RangeResponse, WatchCreateRequest, WatchResponse
from pyetcd.proxy.calls import Caller, Kv, ask
from pyetcd.proxy.kv import RANGE
from pyetcd.proxy.upstream import Upstream, status_text
from pyetcd.proxy.watch_line import WatchLine

TASKS_MAX: Final = 256
GET_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 3.0
FETCH_SECONDS: Final = 10.0
KEY: Final = b"a"
TEXT_4: Final = (("Content-Type", "text/plain; version=0.0.4"),)
PLAIN: Final = (("Content-Type", "text/plain; charset=utf-8"),)

_log = logs.get("etcdhttp")


class Health:
    """Whether a read works: by `kv`, made of `upstream`."""

    def __init__(self, upstream: Upstream, kv: Kv) -> None:
        self._upstream = upstream
        self._kv = kv

    async def reason(self) -> str:
        """Why it does not; empty when it does."""
        loop = self._upstream.loop
        caller = Caller("", loop.time() + GET_SECONDS)
        payload = RangeRequest(key=KEY).SerializeToString()
        try:
            async with asyncio.timeout(GET_SECONDS):
                await ask(lambda done: self._kv.begin(RANGE, payload, caller, done), RangeResponse, loop)
        except EtcdError as error:
            if error.message != PERMISSION_DENIED.message:
                return f"GET ERROR:{status_text(error.code, error.message)}"
        except TimeoutError:
            return "GET ERROR:context deadline exceeded"
        return ""


class ProxyHealth:
    """Whether clients can read and watch through the proxy. `own`: the way to its advertised address."""

    def __init__(self, own: Upstream | None, kv: Kv | None) -> None:
        self._own = own
        self._read = Health(own, kv) if own is not None and kv is not None else None

    async def reason(self) -> str:
        if self._own is None or self._read is None:
            return "no connection to proxy"
        reason = await self._read.reason()
        if reason:
            return reason
        line = WatchLine(self._own, "")
        watch = _Created()
        line.add(watch)
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                await watch.happened.wait()
        except TimeoutError:
            return "WATCH TIMEOUT"
        finally:
            line.close()
        return ""


class _Created:
    """A watch that wants to know no more than that it is there, or is not to be."""

    def __init__(self) -> None:
        self.happened = asyncio.Event()

    def creation(self) -> WatchCreateRequest:
        return WatchCreateRequest(key=KEY)

    def told(self, response: WatchResponse) -> None:
        self.happened.set()

    def lost(self, reason: str) -> None:
        self.happened.set()


class Routes:
    """Answers the paths. `endpoints`: one of which is asked for its metrics."""

    def __init__(
        self,
        server: Server,
        loop: asyncio.AbstractEventLoop,
        endpoints: Sequence[str],
        health: Health,
        proxy_health: ProxyHealth,
        scrapes: Scrapes,
        tls: ClientTls | None,
        *,
        profiles: bool,
        fetch_securely: bool,
    ) -> None:
        self._server = server
        self._loop = loop
        self._endpoint = random.choice(endpoints) if endpoints else ""
        self._health = health
        self._proxy_health = proxy_health
        self._scrapes = scrapes
        self._tls = tls
        self._profiles = Profiles() if profiles else None
        self._fetch_securely = fetch_securely
        self._fetches: dict[int, asyncio.Future[HttpResponse | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def use_tls(self, tls: ClientTls) -> None:
        """Metrics are fetched with these certificates from now on."""
        self._tls = tls

    def handle(self, call: int, request: HttpRequest, meta: Meta, server: Server | None = None) -> None:
        """Answer at `server`, by default the one that clients use."""
        raw, _, query = request.target.partition("?")
        answer = self._answer(unquote(raw), query, request)
        if isinstance(answer, Reply):
            self._send(server or self._server, call, answer)
        elif len(self._tasks) >= TASKS_MAX:
            answer.close()
            self._send(server or self._server, call, Reply.error(503, "too many requests"))
        else:
            task = self._loop.create_task(self._finish(server or self._server, call, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def fetched(self, call: int, response: HttpResponse | None) -> None:
        """What a member has answered; None: it could not be asked."""
        future = self._fetches.pop(call, None)
        if future is not None and not future.done():
            future.set_result(response)

    def _answer(self, path: str, query: str, request: HttpRequest) -> Reply | Coroutine[None, None, Reply]:
        if path == "/metrics":
            return self._metrics()
        if path == "/proxy/metrics":
            accepted = next((value for name, value in request.headers if name == "accept-encoding"), "")
            return self._scrapes.answer(accepted)
        if path in ("/health", "/proxy/health"):
            if request.method != "GET":
                _log.warn("/health error", {"status-code": 405})
                return NOT_ALLOWED
            return self._judged(self._health if path == "/health" else self._proxy_health)
        if self._profiles is not None and path.startswith(PREFIX):
            return self._profiles.answer(path, query)
        return NOT_FOUND

    async def _judged(self, health: Health | ProxyHealth) -> Reply:
        reason = await health.reason()
        verdict = {"health": "false" if reason else "true", "reason": reason}
        text = json.dumps(verdict, separators=(",", ":"), ensure_ascii=False)
        if reason:
            _log.warn("/health error", {"output": text, "status-code": 503})
            return Reply.error(503, text)
        return Reply(200, PLAIN, text.encode())

    async def _metrics(self) -> Reply:
        target = Target(self._endpoint)
        tls = None
        if self._endpoint.startswith("https://") or (
            self._fetch_securely and not self._endpoint.startswith("http://")
        ):
            tls = self._tls or ClientTls()
        try:
            call = self._server.dial(
                target.address, "GET", "/metrics", [], tls=tls, connect_timeout=5.0, timeout=FETCH_SECONDS
            )
        except ValueError:
            return Reply.error(500, "Internal server error")
        future: asyncio.Future[HttpResponse | None] = self._loop.create_future()
        self._fetches[call] = future
        response = await future
        if response is None:
            return Reply.error(500, "Internal server error")
        return Reply(200, TEXT_4, response.body)

    async def _finish(self, server: Server, call: int, answer: Coroutine[None, None, Reply]) -> None:
        try:
            reply = await answer
        except Exception as error:
            _log.warn("HTTP handler failed", {"error": repr(error)}, exc=error)
            reply = Reply.error(500, "Internal Server Error")
        self._send(server, call, reply)

    def _send(self, server: Server, call: int, reply: Reply) -> None:
        server.http_reply(call, reply.status, reply.headers, reply.body)
