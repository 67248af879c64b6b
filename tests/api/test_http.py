"""Plain HTTP: the answers here were compared with those of etcd 3.7.1 on the same requests."""

import asyncio
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from pyetcd import logs
from pyetcd.api import http
from pyetcd.api.http import Access, HttpRoutes
from pyetcd.api.http_health import HealthChecks
from pyetcd.api.http_metrics import Scrapes
from pyetcd.metrics import Counter, Registry
from pyetcd.proto.errors import EtcdError

CORS = [
    ("Access-Control-Allow-Headers", "accept, content-type, authorization"),
    ("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE"),
    ("Access-Control-Allow-Origin", "*"),
]
LEVEL = "/config/local/log"
TEXT = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]


@dataclass
class Member:
    leader: int = 1
    is_learner: bool = False
    alarms: list[str] = field(default_factory=list)
    failure: EtcdError | None = None
    version: str = "3.7.0"

    def alarm_names(self) -> Sequence[str]:
        return self.alarms

    def cluster_version(self) -> str:
        return self.version

    def storage_version(self) -> str:
        return self.version

    async def linearizable_read(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def serializable_read(self) -> None:
        return None


class Wire:
    """Keeps what was answered, by call."""

    def __init__(self) -> None:
        self.answers: dict[int, tuple[int, list[tuple[str, str]], bytes]] = {}

    def http_reply(
        self,
        call: int,
        status: int,
        headers: Sequence[tuple[str, str]],
        body: bytes | Sequence[bytes],
        end: bool = True,
    ) -> None:
        assert call not in self.answers, "answered twice"
        self.answers[call] = (status, list(headers), body if isinstance(body, bytes) else b"".join(body))


class Port:
    """One port's routes over a wire that only remembers."""

    def __init__(self, member: Member | None = None, **options: object) -> None:
        self.member = member or Member()
        self.registry = Registry()
        self.passed, self.failed = Counter(), Counter()
        self.wire = Wire()
        checks = HealthChecks(self.member, self.registry, self.passed, self.failed)
        options.setdefault("access", Access())
        self.scrapes = Scrapes(self.registry)
        self.routes = HttpRoutes(self.wire, self.member, checks, self.scrapes, **options)  # type: ignore[arg-type]

    def ask(
        self,
        target: str,
        method: str = "GET",
        host: str = "127.0.0.1:2379",
        body: bytes = b"",
        **headers: str,
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        request = SimpleNamespace(method=method, target=target, headers=named, body=body)
        meta = SimpleNamespace(authority=host)

        async def one() -> None:
            self.routes.handle(1, request, meta)  # type: ignore[arg-type]
            await asyncio.gather(*self.routes._tasks)

        self.wire.answers.clear()
        asyncio.run(one())
        return self.wire.answers[1]


def test_version_names_server_cluster_and_storage() -> None:
    status, headers, body = Port().ask("/version")
    assert status == 200
    assert body == b'{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}'
    assert headers == [*CORS, ("Content-Type", "application/json")]


def test_version_before_the_cluster_has_agreed() -> None:
    body = Port(Member(version="")).ask("/version")[2]
    assert body == b'{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}'


@pytest.mark.parametrize(
    "query", ["", "?exclude=NOSPACE", "?exclude=FOO", "?serializable=true", "?serializable=x"]
)
def test_health_of_a_sound_member(query: str) -> None:
    port = Port()
    status, headers, body = port.ask("/health" + query)
    assert (status, body) == (200, b'{"health":"true","reason":""}')
    assert headers == [*CORS, ("Content-Type", "text/plain; charset=utf-8")]
    assert (port.passed.value, port.failed.value) == (1, 0)


@pytest.mark.parametrize(
    ("member", "target", "reason"),
    [
        (Member(alarms=["NOSPACE"]), "/health", "ALARM NOSPACE"),
        (Member(alarms=["NOSPACE", "CORRUPT"]), "/health?exclude=NOSPACE", "ALARM CORRUPT"),
        (Member(alarms=["9"]), "/health", "ALARM UNKNOWN"),
        (Member(leader=0), "/health", "RAFT NO LEADER"),
        (
            Member(failure=EtcdError(14, "etcdserver: request timed out")),
            "/health?serializable=false",
            "RANGE ERROR:etcdserver: request timed out",
        ),
    ],
)
def test_health_names_the_first_thing_wrong(member: Member, target: str, reason: str) -> None:
    port = Port(member)
    status, headers, body = port.ask(target)
    assert (status, headers) == (503, [*CORS, *TEXT])
    assert body == b'{"health":"false","reason":"' + reason.encode() + b'"}\n'
    assert (port.passed.value, port.failed.value) == (0, 1)


def test_a_serializable_health_check_passes_without_a_leader() -> None:
    member = Member(leader=0, failure=EtcdError(14, "no leader"))
    assert Port(member).ask("/health?serializable=true")[0] == 200


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/livez", b"ok\n"),
        ("/readyz", b"ok\n"),
        ("/livez?verbose", b"[+]serializable_read ok\nok\n"),
        (
            "/readyz?verbose=false",
            b"[+]data_corruption ok\n[+]serializable_read ok\n"
            b"[+]linearizable_read ok\n[+]non_learner ok\nok\n",
        ),
        (
            "/readyz?verbose&exclude=non_learner&exclude=linearizable_read",
            b"[+]data_corruption ok\n[+]serializable_read ok\nok\n",
        ),
        ("/readyz?exclude=foo", b"ok\n"),
        ("/readyz/data_corruption?verbose", b"[+]data_corruption ok\nok\n"),
        ("/livez/serializable_read", b"ok\n"),
    ],
)
def test_probes_of_a_sound_member(target: str, body: bytes) -> None:
    assert Port().ask(target) == (200, [*CORS, *TEXT], body)


def test_readyz_always_says_why_not() -> None:
    member = Member(is_learner=True, alarms=["CORRUPT"], failure=EtcdError(14, "etcdserver: leader changed"))
    port = Port(member)
    status, _, body = port.ask("/readyz")
    assert status == 503
    assert body == (
        b"[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n"
        b"[-]linearizable_read failed: etcdserver: leader changed\n"
        b"[-]non_learner failed: not supported for learner\n\n"
    )
    text = port.registry.expose().decode()
    assert 'etcd_server_healthcheck{name="linearizable_read",type="readyz"} 0' in text
    assert 'etcd_server_healthchecks_total{name="serializable_read",status="success",type="readyz"} 1' in text


def test_a_lack_of_space_leaves_the_probes_well() -> None:
    port = Port(Member(alarms=["NOSPACE"]))
    assert port.ask("/livez")[0] == port.ask("/readyz")[0] == 200


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/foo",
        "/version/",
        "/health/",
        "/readyz/",
        "/readyz/foo",
        "/livez/linearizable_read",
        "/debug/pprof/",
    ],
)
def test_other_paths_are_not_found(target: str) -> None:
    assert Port().ask(target) == (404, [*CORS, *TEXT], b"404 page not found\n")


@pytest.mark.parametrize("path", ["/version", "/health", "/livez", "/readyz/non_learner", "/debug/vars"])
@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE"])
def test_reading_paths_allow_get_alone(path: str, method: str) -> None:
    assert Port().ask(path, method) == (405, [*CORS, ("Allow", "GET"), *TEXT], b"Method Not Allowed\n")


def test_options_is_answered_for_every_path() -> None:
    assert Port().ask("/foo", "OPTIONS") == (200, CORS, b"")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("//version?a=1", "/version?a=1"),
        ("/./version", "/version"),
        ("/foo/../version", "/version"),
        ("/foo//bar/", "/foo/bar/"),
        ("/a&b//c", "/a&b/c"),
    ],
)
def test_a_path_that_is_not_clean_is_redirected(target: str, location: str) -> None:
    status, headers, body = Port().ask(target)
    shown = location.replace("&", "&amp;")
    assert (status, body) == (307, f'<a href="{shown}">Temporary Redirect</a>.\n\n'.encode())
    assert headers[-2:] == [("Content-Type", "text/html; charset=utf-8"), ("Location", location)]
    assert Port().ask(target, "POST")[1:] == ([*CORS, ("Location", location)], b"")


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/%76ersion", "GET", 200),
        ("/version%2f", "GET", 404),
        ("/%2e%2e/version", "GET", 404),
        ("//version", "CONNECT", 404),
        ("http://127.0.0.1:2379/version", "GET", 200),
        ("http://other.com", "GET", 404),
        ("/version?a=%zz", "GET", 200),
    ],
)
def test_escapes_and_whole_urls_are_understood_as_by_go(target: str, method: str, status: int) -> None:
    assert Port().ask(target, method)[0] == status


def test_a_star_is_no_path() -> None:
    assert Port().ask("*") == (400, CORS, b"")
    assert Port().ask("*", "OPTIONS") == (200, [], b"")


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (["a b"], b"400 Bad Request: malformed Host header"),
        (["a/b"], b"400 Bad Request: malformed Host header"),
        (["a@b"], b"400 Bad Request: malformed Host header"),
        (["a", "evil.com"], b"400 Bad Request"),
    ],
)
def test_hosts_that_are_malformed_or_too_many_are_refused(hosts: list[str], text: bytes) -> None:
    port = Port(access=Access(host_whitelist=frozenset(("a",))))
    headers = [("host", host) for host in hosts]
    request = SimpleNamespace(method="GET", target="/version", headers=headers, body=b"")
    port.routes.handle(1, request, SimpleNamespace(authority="a"))  # type: ignore[arg-type]
    assert port.wire.answers[1] == (400, [("Content-Type", "text/plain; charset=utf-8")], text)


def test_metrics_are_served_whole_and_counted() -> None:
    port = Port()
    port.ask("/metrics")
    status, headers, body = port.ask("/metrics", "POST")
    assert status == 200
    assert headers[-1] == ("Content-Type", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
    assert b'promhttp_metric_handler_requests_total{code="200"} 1\n' in body
    assert b"promhttp_metric_handler_requests_in_flight 1\n" in body


def test_ports_of_one_server_count_scrapes_together() -> None:
    port = Port()
    other = HttpRoutes(port.wire, port.member, port.routes._checks, port.scrapes)
    port.ask("/metrics")
    port.routes, port.wire.answers = other, {}
    assert b'promhttp_metric_handler_requests_total{code="200"} 1\n' in port.ask("/metrics")[2]


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("gzip;q=0", False), ("identity", False), ("", False)],
)
def test_metrics_are_compressed_for_who_takes_that(accepted: str, packed: bool) -> None:
    _, headers, body = Port().ask("/metrics", accept_encoding=accepted)
    assert (("Content-Encoding", "gzip") in headers) == packed
    text = gzip.decompress(body) if packed else body
    assert b"promhttp_metric_handler_requests_in_flight 1\n" in text


def test_a_scrape_that_breaks_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port()

    def broken() -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as patched:
        patched.setattr(port.registry, "parts", broken)
        assert port.ask("/metrics")[0] == 500
    assert b'promhttp_metric_handler_requests_total{code="500"} 1\n' in port.ask("/metrics")[2]


def test_variables_are_one_json_object() -> None:
    read: dict[str, Callable[[], object]] = {"b": lambda: 1, "a": lambda: ["x"]}
    status, _, body = Port(variables=read).ask("/debug/vars")
    assert (status, body) == (200, b'{\n"a": ["x"],\n"b": 1\n}\n')
    assert json.loads(body) == {"a": ["x"], "b": 1}


def test_only_listed_origins_get_cors_headers() -> None:
    port = Port(access=Access(cors=frozenset(("http://a:1",))))
    assert ("Access-Control-Allow-Origin", "http://a:1") in port.ask("/version", origin="http://a:1")[1]
    assert port.ask("/version", origin="http://b:1")[1] == [("Content-Type", "application/json")]


@pytest.mark.parametrize(
    ("host", "status"), [("a.b:2379", 200), ("evil.com", 421), ("[::1]:2379", 200), ("", 421)]
)
def test_a_foreign_host_name_is_refused_over_plaintext(host: str, status: int) -> None:
    port = Port(access=Access(host_whitelist=frozenset(("a.b", "::1"))))
    assert port.ask("/version", host=host)[0] == status


def test_any_host_name_is_taken_over_tls() -> None:
    port = Port(access=Access(host_whitelist=frozenset(("a.b",))), is_secure=lambda meta: True)
    assert port.ask("/version", host="evil.com")[0] == 200


def test_the_gateway_takes_its_paths() -> None:
    taken: list[str] = []
    port = Port(gateway=lambda call, request, meta, path, headers: taken.append(path))

    async def two() -> None:
        for target in ("/v3/kv/put", "/v3beta/kv/put"):
            request = SimpleNamespace(method="POST", target=target, headers=[], body=b"")
            port.routes.handle(1, request, SimpleNamespace(authority="a"))  # type: ignore[arg-type]

    asyncio.run(two())
    assert taken == ["/v3/kv/put", "/v3/kv/put"]
    assert port.ask("/v3?a=1")[1][-1] == ("Location", "/v3/?a=1")
    assert Port().ask("/v3")[0] == 404, "without a gateway it is a path like any other"


def test_a_metrics_port_has_fewer_paths_and_no_cors() -> None:
    port = Port(access=None)
    assert port.ask("/version") == (404, TEXT, b"404 page not found\n")
    assert port.ask("/livez") == (200, TEXT, b"ok\n")
    assert port.ask("/metrics")[0] == 200


@pytest.mark.parametrize("name", ["debug", "DEBUG", "Debug"])
def test_the_log_level_is_changed_while_running(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = logs.get("tried")
    log.debug("before")
    try:
        assert Port().ask(LEVEL, "PUT", body=b'{"Level":"%s"}' % name.encode()) == (204, CORS, b"")
        log.debug("meanwhile")
    finally:
        assert Port().ask(LEVEL, "PUT", body=b'{"level":"info"}')[0] == 204
    log.debug("after")
    written = capfd.readouterr().err
    assert "meanwhile" in written
    assert "before" not in written
    assert "after" not in written


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid json body"),
        (b"[]", "Invalid json body"),
        (b'{"Level":7}', "Invalid json body"),
        (b"[" * 100_000, "Invalid json body"),
        (b"{}", "Invalid log level "),
        (b'{"Level":"loud"}', "Invalid log level loud"),
    ],
)
def test_what_names_no_log_level_is_refused(body: bytes, message: str) -> None:
    status, _, text = Port().ask(LEVEL, "PUT", body=body)
    assert (status, json.loads(text)) == (400, {"message": message})
    assert Port().ask(LEVEL, "GET")[0] == 405
    assert Port(access=None).ask(LEVEL, "PUT", body=body)[0] == 404


def test_a_check_that_breaks_is_answered_and_logged() -> None:
    class Broken(Member):
        async def serializable_read(self) -> None:
            raise RuntimeError("boom")

    assert Port(Broken()).ask("/livez")[0] == 500


def test_waiting_answers_are_bounded_and_dropped_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Member):
        async def serializable_read(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(http, "TASKS_MAX", 1)
    port = Port(Hanging())
    request = SimpleNamespace(method="GET", target="/livez", headers=[], body=b"")

    async def two() -> None:
        for call in (1, 2):
            port.routes.handle(call, request, SimpleNamespace(authority="a"))  # type: ignore[arg-type]
            await asyncio.sleep(0)
        await port.routes.close()

    asyncio.run(two())
    assert port.wire.answers[2][0] == 503
    assert 1 not in port.wire.answers, "a closed port answers nothing more"
