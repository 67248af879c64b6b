"""Calls that come as JSON are in the gRPC metrics, as real etcd's are, and slow ones in the log."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from scrape import Pair, Scrape, scrape, scrape_until
from servers import Etcd, Server

CANCELED = (
    'grpc_server_handled_total{grpc_code="Canceled",grpc_method="Watch",'
    'grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}'
)
COUNTED = ("grpc_server_", "etcd_network_client_grpc_received", "etcd_server_client_requests_total")
WATCHES = 3


def post(server: Server, path: str, body: object, **headers: str) -> int:
    """The HTTP status."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def watch_once(server: Server) -> None:
    """Until it is created; then the client goes away."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/v3/watch", json.dumps({"create_request": {"key": "YQ=="}}))
    response = connection.getresponse()
    response.readline()
    response.close()
    connection.close()


def one_of_each(server: Server) -> None:
    assert post(server, "/v3/kv/put", {"key": "YQ==", "value": "YQ=="}) == 200
    assert post(server, "/v3/kv/put", {"key": "YQ=="}, **{"Grpc-Metadata-Client-Api-Version": "3.7"}) == 200
    assert post(server, "/v3/kv/range", {}) == 400
    assert post(server, "/v3/kv/range", {"key": 5}) == 400  # never becomes a call
    assert post(server, "/v3/lease/revoke", {"ID": 5}) == 404
    assert post(server, "/v3/lease/keepalive", {"ID": 5}) == 200
    assert post(server, "/v3/maintenance/status", {}) == 200
    for _ in range(WATCHES):
        watch_once(server)


def counted(now: Scrape) -> dict[str, float]:
    return {name: value for name, value in now.values.items() if name.startswith(COUNTED)}


def test_calls_of_the_gateway_are_counted_as_real_etcd_counts_them(pair: Pair) -> None:
    moved = []
    for server in (pair.go, pair.ours):
        before = counted(scrape(server))
        one_of_each(server)
        wanted = before[CANCELED] + WATCHES
        after = counted(scrape_until(server, lambda now, wanted=wanted: now.values[CANCELED] == wanted))
        moved.append(
            {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)}
        )
    assert moved[1] == moved[0]
    assert moved[0][CANCELED] == WATCHES


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Etcd]:
    server = Etcd(tmp_path, warning_unary_request_duration="1us")
    yield server
    server.close()


def test_slow_calls_of_the_gateway_are_told_of(slow: Etcd) -> None:
    assert post(slow, "/v3/kv/put", {"key": "YQ==", "value": "YQ=="}) == 200
    slow.stop()
    lines = [line for line in slow.printed.text().splitlines() if '"request stats"' in line]
    assert any('"response type":"/etcdserverpb.KV/Put"' in line for line in lines)
