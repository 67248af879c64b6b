"""The same plain requests to real etcd and to pyetcd get the same answers: status, headers, body."""

from __future__ import annotations

import http.client
import socket

import pytest
from scrape import Pair
from servers import Server

TARGETS = [
    "/version",
    "/health",
    "/health?exclude=NOSPACE",
    "/health?serializable=true",
    "/health?serializable=1",
    "/health?exclude=%zz",
    "/health?a;b",
    "/livez",
    "/livez?verbose",
    "/livez?verbose=false",
    "/livez?exclude=serializable_read",
    "/livez?exclude=serializable_read&verbose",
    "/livez?exclude=foo&verbose",
    "/livez?verbose&exclude",
    "/livez/serializable_read",
    "/livez/serializable_read?verbose",
    "/livez/linearizable_read",
    "/readyz",
    "/readyz?exclude=",
    "/readyz?exclude=linearizable_read&exclude=data_corruption",
    "/readyz/data_corruption?verbose",
    "/readyz/linearizable_read?verbose",
    "/readyz/non_learner?verbose",
    "/readyz/foo",
    "/",
    "/foo",
    "/version/",
    "/health/",
    "/metrics/",
    "/debug/vars/",
    "/debug/pprof/",
    "/debug/requests",
    "//version",
    "/./version",
    "/foo/../version",
    "/foo//bar",
    "/a/b/../../health?x=1",
    "/a&b//c",
    "/%76ersion",
    "/version%2f",
    "/%2e%2e/version",
    "/version?a=%zz",
    "*",
    "http://127.0.0.1:2379/version",
    "http://other.com/version",
]
METHODS = ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "FOO", "get"]
METHOD_TARGETS = ["/version", "/health", "/livez", "/readyz/non_learner", "/debug/vars", "/foo", "//version"]
HEADERS = [
    "Origin: http://a",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "Range: bytes=0-3",
    "Accept-Encoding: gzip",
    "Content-Length: 0",
    "X: " + "a" * 1_000_000,
]
CHANGES = ("Date", "Content-Length", "Transfer-Encoding")  # these tell nothing of whether the answer is right


def ask(server: Server, head: str, body: bytes = b"") -> tuple[int, list[tuple[str, str]], bytes]:
    """Send a request as it is; Connection: close is added."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
        response = http.client.HTTPResponse(connection, method=head.split(" ")[0])
        response.begin()
        headers = sorted((name, value) for name, value in response.getheaders() if name not in CHANGES)
        return response.status, headers, response.read()


def request(target: str, method: str = "GET", header: str = "") -> str:
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:2379"
    return f"{head}\r\n{header}" if header else head


@pytest.mark.parametrize("target", TARGETS)
def test_a_get_is_answered_alike(pair: Pair, target: str) -> None:
    assert ask(pair.ours, request(target)) == ask(pair.go, request(target))


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_are_answered_alike(pair: Pair, method: str) -> None:
    for target in METHOD_TARGETS:
        assert ask(pair.ours, request(target, method)) == ask(pair.go, request(target, method)), target


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.split(":")[0])
def test_headers_are_minded_or_not_alike(pair: Pair, header: str) -> None:
    assert ask(pair.ours, request("/version", header=header)) == ask(
        pair.go, request("/version", header=header)
    )


@pytest.mark.parametrize(
    ("header", "body"),
    [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")],
)
def test_a_body_nobody_wants_harms_nothing(pair: Pair, header: str, body: bytes) -> None:
    for method in ("GET", "POST"):
        head = request("/version", method, header)
        assert ask(pair.ours, head, body) == ask(pair.go, head, body)


def test_old_clients_are_answered_alike(pair: Pair) -> None:
    for head in ("GET /version HTTP/1.0", "GET /livez HTTP/1.0\r\nHost: a"):
        assert ask(pair.ours, head) == ask(pair.go, head)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
def test_metrics_are_answered_whatever_the_method(pair: Pair, method: str) -> None:
    ours, go = (ask(server, request("/metrics", method))[:2] for server in (pair.ours, pair.go))
    assert ours == go


def test_a_malformed_host_or_two_of_them_are_refused_alike(pair: Pair) -> None:
    for hosts in ("Host: a b", "Host: a\r\nHost: b"):
        head = f"GET /version HTTP/1.1\r\n{hosts}"
        (status, _, body), (wanted, _, text) = ask(pair.ours, head), ask(pair.go, head)
        assert (status, body) == (wanted, text)
        assert status == 400
