"""The JSON gateways of real etcd and pyetcd side by side: the same plain request to both.

An answer is status, headers and body as they are, but for three things: the spaces Go's protojson puts here
and there by the build, the numbers two clusters differ in (IDs, terms, sizes), and what the transport decides
(Date, Content-Length, Transfer-Encoding).
"""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from servers import Etcd, Server

SECONDS = 20
TRANSPORT = ("Date", "Content-Length", "Transfer-Encoding")
_STRING_OR_SPACE = re.compile(rb'("(?:[^"\\]|\\.)*+")|( )', re.DOTALL)
_CLUSTERS = re.compile(
    rb'"(cluster_id|member_id|raft_term|leader|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse)":"[0-9]+"'
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it is sent. `headers`: whole lines."""

    path: str
    body: bytes = b""
    method: str = "POST"
    headers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What came back, comparable."""

    status: int
    headers: Sequence[tuple[str, str]] = field(default=())
    body: bytes = b""


def ask(server: Server, asked: Asked) -> Told:
    """Send a request and read the whole answer."""
    lines = [f"{asked.method} {asked.path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Connection: close"]
    if asked.body or asked.method == "POST":
        lines.append(f"Content-Length: {len(asked.body)}")
    head = "\r\n".join([*lines, *asked.headers, "", ""]).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(head + asked.body)
        response = http.client.HTTPResponse(connection, method=asked.method)
        response.begin()
        headers = sorted((name, value) for name, value in response.getheaders() if name not in TRANSPORT)
        return Told(response.status, headers, comparable(response.read()))


def comparable(body: bytes) -> bytes:
    """Without what may differ."""
    body = body.replace("proto:\xa0".encode(), b"proto: ")
    body = _STRING_OR_SPACE.sub(lambda match: match[1] or b"", body) if body[:1] == b"{" else body
    return _CLUSTERS.sub(rb'"\1":"_"', body)


class GatewayTwins:
    """Both servers; `same` asks both."""

    def __init__(self, go: Server, ours: Etcd) -> None:
        self.go = go
        self.ours = ours

    def same(self, asked: Asked) -> Told:
        """Ask both and compare; what ours said."""
        theirs, ours = ask(self.go, asked), ask(self.ours, asked)
        assert ours == theirs, f"{asked}\n ours: {ours}\nGo's: {theirs}"
        return ours

    def close(self) -> None:
        self.go.close()
        self.ours.close()
