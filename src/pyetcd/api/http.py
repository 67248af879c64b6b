"""Plain HTTP on the client port: version, health, metrics, variables; the gateway's paths are handed on.

Paths, texts, headers and codes are those of etcd 3.7.1 (etcdhttp and the access control in front of it).
Every answer of a client port carries the CORS headers the operator allows; `OPTIONS` is answered for every
path; a request over plaintext for a host name that is not on the whitelist is refused (CVE-2018-5702). A
listener for metrics alone has fewer paths and none of that.

Answers that need a read of the store are made in tasks, bounded in number; all others at once.
"""

from __future__ import annotations

import asyncio
import json
import posixpath
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from pyetcd import logs
from pyetcd.api import http_log_level
from pyetcd.api.http_health import HealthChecks, HealthSource
from pyetcd.api.http_metrics import Scrapes
from pyetcd.api.http_profiles import PREFIX, Profiles
from pyetcd.api.http_reply import NOT_ALLOWED, NOT_FOUND, PLAIN, Headers, Replier, Reply
from pyetcd.api.recent_requests import EVENTS, REQUESTS, RecentRequests
from pyetcd.logs import quote
from pyetcd.version import SERVER_VERSION

if TYPE_CHECKING:
    from pyetcd._native import HttpRequest, Meta

    GatewayHandler = Callable[[int, HttpRequest, Meta, str, Headers], None]

TASKS_MAX: Final = 1_000
GATEWAY_PREFIX: Final = "/v3/"
NAME_IGNORED: Final = (
    "CommonName of client sending a request against gateway will be ignored and not used as expected"
)
_BETA_PREFIX: Final = "/v3beta/"
_HOST: Final = re.compile(r"[a-zA-Z0-9!$%&()*+,\-.:;=\[\]'_~]*")  # golang.org/x/net/http/httpguts
_ORIGIN: Final = re.compile(r"https?://[^/?]*", re.IGNORECASE)
EMPTY: Final = Reply(200, (), b"")
BAD_TARGET: Final = Reply(400, (), b"")

_log = logs.get("etcdhttp")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask: origins for browsers and host names over plaintext. `*` or nothing allows all."""

    cors: frozenset[str] = frozenset(("*",))
    host_whitelist: frozenset[str] = frozenset(("*",))

    def origin_headers(self, origin: str) -> Headers:
        """The CORS headers for a request of this origin, none when it is not allowed."""
        if "*" in self.cors or not self.cors:
            allowed = "*"
        elif origin in self.cors:
            allowed = origin
        else:
            return ()
        return (
            ("Access-Control-Allow-Headers", "accept, content-type, authorization"),
            ("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE"),
            ("Access-Control-Allow-Origin", allowed),
        )

    def host_allowed(self, host: str) -> bool:
        return not self.host_whitelist or "*" in self.host_whitelist or host in self.host_whitelist


class HttpRoutes:
    """One port's routes. `handle` fits the dispatcher's `HttpHandler`.

    `member` is asked for versions, `checks` for health, `scrapes` for metrics, `variables` for `/debug/vars`
    (a callable for each key; the result must fit JSON), `profiles` for `/debug/pprof/`, `recent` for
    `/debug/requests`. `gateway` takes what lies under `/v3/`: the call, the request, its path and the headers
    of every answer. `access` None makes a metrics-only port. `is_secure`: whether a request came over TLS.
    `ignores_names`: whether a certificate's name counts elsewhere, and not behind the gateway.
    """

    def __init__(
        self,
        server: Replier,
        member: HealthSource,
        checks: HealthChecks,
        scrapes: Scrapes,
        *,
        access: Access | None = None,
        gateway: GatewayHandler | None = None,
        variables: Mapping[str, Callable[[], object]] | None = None,
        profiles: Profiles | None = None,
        recent: RecentRequests | None = None,
        is_secure: Callable[[Meta], bool] = lambda meta: False,
        ignores_names: Callable[[], bool] = lambda: False,
    ) -> None:
        self._server = server
        self._member = member
        self._checks = checks
        self._scrapes = scrapes
        self._access = access
        self._gateway = gateway
        self._variables = variables or {}
        self._profiles = profiles
        self._recent = recent
        self._is_secure = is_secure
        self._ignores_names = ignores_names
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, call: int, request: HttpRequest, meta: Meta) -> None:
        """Answer a request, now or in a task."""
        problem = _problem(request)
        if problem is not None:
            self._send(call, problem, ())
            return
        headers: Headers = ()
        if self._access is not None:
            host = _hostname(meta.authority or _header(request, "host"))
            if not self._is_secure(meta) and not self._access.host_allowed(host):
                _log.warn("rejecting HTTP request to prevent DNS rebinding attacks", {"host": host})
                self._send(call, Reply.error(421, _wrong_host(host)), ())
                return
            if self._ignores_names() and self._is_nameless_call(request, meta):
                self._send(call, Reply.error(400, NAME_IGNORED), ())
                return
            headers = self._access.origin_headers(_header(request, "origin"))
            if request.method == "OPTIONS":
                self._send(call, EMPTY, headers)
                return
        if request.target == "*":
            self._send(call, BAD_TARGET, headers)
            return
        raw, _, query = _without_origin(request.target).partition("?")
        path = unquote(raw)
        if path.startswith(_BETA_PREFIX):
            path = raw = GATEWAY_PREFIX + path[len(_BETA_PREFIX) :]
        has_gateway = self._access is not None and self._gateway is not None
        if has_gateway and path == GATEWAY_PREFIX[:-1]:
            self._send(call, _redirect(GATEWAY_PREFIX, query, request.method), headers)
            return
        clean = raw if request.method == "CONNECT" else _clean(raw)
        if clean != raw:
            self._send(call, _redirect(clean, query, request.method), headers)
        elif has_gateway and path.startswith(GATEWAY_PREFIX):
            assert self._gateway is not None
            self._gateway(call, request, meta, path, headers)
        else:
            self._route(call, request, path, query, headers)

    def _is_nameless_call(self, request: HttpRequest, meta: Meta) -> bool:
        """Whether a client who shows a name in its certificate would be taken for nobody: as with etcd, it is
        told so, even when it has a token."""
        if self._gateway is None or not meta.certificate_names:
            return False
        path = unquote(_without_origin(request.target).partition("?")[0])
        return path.startswith((GATEWAY_PREFIX, _BETA_PREFIX))

    async def close(self) -> None:
        """Cancel what is still being answered."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _route(self, call: int, request: HttpRequest, path: str, query: str, headers: Headers) -> None:
        if path == "/metrics":
            self._start(call, self._scrapes.answer(_header(request, "accept-encoding")), headers)
        elif self._checks.knows(path):
            if request.method != "GET":
                if path == "/health":
                    _log.warn("/health error", {"status-code": 405})
                else:
                    _log.warn("Health request error", {"path": path, "status-code": 405})
                self._send(call, NOT_ALLOWED, headers)
            else:
                self._start(call, self._checks.answer(path, query), headers)
        elif self._access is not None and path in ("/version", "/debug/vars"):
            if request.method != "GET":
                self._send(call, NOT_ALLOWED, headers)
            else:
                self._send(call, self._version() if path == "/version" else self._vars(), headers)
        elif self._access is not None and path == http_log_level.PATH:
            self._send(call, http_log_level.change(request.method, request.body), headers)
        elif self._profiles is not None and path == PREFIX[:-1]:
            self._send(call, _redirect(PREFIX, query, request.method), headers)
        elif self._profiles is not None and path.startswith(PREFIX):
            self._start(call, self._profiles.answer(path, query), headers)
        elif self._recent is not None and path in (REQUESTS, EVENTS):
            self._send(call, self._recent.answer(path, query), headers)
        else:
            self._send(call, NOT_FOUND, headers)

    def _send(self, call: int, reply: Reply, headers: Headers) -> None:
        self._server.http_reply(call, reply.status, (*headers, *reply.headers), reply.body)

    def _start(self, call: int, answer: Coroutine[None, None, Reply], headers: Headers) -> None:
        if len(self._tasks) >= TASKS_MAX:
            answer.close()
            self._send(call, Reply.error(503, "too many requests"), headers)
            return
        task = asyncio.get_running_loop().create_task(self._finish(call, answer, headers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, call: int, answer: Coroutine[None, None, Reply], headers: Headers) -> None:
        try:
            reply = await answer
        except Exception as error:
            _log.warn("HTTP handler failed", {"error": repr(error)}, exc=error)
            reply = Reply.error(500, "Internal Server Error")
        self._send(call, reply, headers)

    def _version(self) -> Reply:
        versions = {
            "etcdserver": SERVER_VERSION,
            "etcdcluster": self._member.cluster_version() or "not_decided",
            "storage": self._member.storage_version() or "unknown",
        }
        body = json.dumps(versions, separators=(",", ":")).encode()
        return Reply(200, (("Content-Type", "application/json"),), body)

    def _vars(self) -> Reply:
        rows = (
            f"{quote(key)}: {json.dumps(read(), default=str)}"
            for key, read in sorted(self._variables.items())
        )
        body = ("{\n" + ",\n".join(rows) + "\n}\n").encode()
        return Reply(200, (("Content-Type", "application/json; charset=utf-8"),), body)


def _problem(request: HttpRequest) -> Reply | None:
    """What Go's server refuses before anybody has looked at the request."""
    hosts = [value for key, value in request.headers if key == "host"]
    if len(hosts) > 1:
        return Reply(400, PLAIN, b"400 Bad Request")
    if hosts and not _HOST.fullmatch(hosts[0]):
        return Reply(400, PLAIN, b"400 Bad Request: malformed Host header")
    if request.method == "OPTIONS" and request.target == "*":
        return EMPTY
    return None


def _without_origin(target: str) -> str:
    """The path and query of a target; proxies send whole URLs."""
    match = _ORIGIN.match(target)
    return target if match is None else target[match.end() :] or "/"


def _header(request: HttpRequest, name: str) -> str:
    for key, value in request.headers:
        if key == name:
            return value
    return ""


def _hostname(host: str) -> str:
    """Without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _clean(path: str) -> str:
    """The path Go's mux would serve: no empty, `.` or `..` parts; a slash at the end is kept."""
    if path == "" or path[0] != "/":
        path = "/" + path
    clean = posixpath.normpath(path)
    if clean.startswith("//"):
        clean = clean[1:]
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def _redirect(path: str, query: str, method: str) -> Reply:
    location = f"{path}?{query}" if query else path
    headers: Sequence[tuple[str, str]] = (("Location", location),)
    if method not in ("GET", "HEAD"):
        return Reply(307, tuple(headers), b"")
    body = f'<a href="{escape(location)}">Temporary Redirect</a>.\n\n'.encode()
    return Reply(307, (("Content-Type", "text/html; charset=utf-8"), *headers), body)


def _wrong_host(host: str) -> str:
    return (
        f"The host name of this request, {quote(host)}, is not one this server answers to over plaintext\n"
        '(a guard against "DNS Rebinding" attacks, CVE-2018-5702).\n'
        "Serve TLS, or add the name to the whitelist:\n"
        f"  etcd --host-whitelist {quote(host)}\n"
    )
