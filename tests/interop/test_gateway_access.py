"""Who reaches the JSON gateway, and where: what the flags decide, beside real etcd's; bodies of any size."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway_streams import Lines
from gateway_twins import Asked, GatewayTwins, Told, ask
from servers import BENCH, Etcd, Server, build_go, free_port

RANGE = "/v3/kv/range"
BODY = b'{"key":"YQ=="}'

BUILD_SECONDS = 900

Twins = Callable[..., GatewayTwins]


class RealEtcd(Etcd):
    """Real etcd's own executable, with all its flags."""

    def __init__(self, executable: Path, directory: Path, **flags: object) -> None:
        self.executable = executable
        super().__init__(directory, **flags)

    def command(self) -> list[str]:
        return [str(self.executable), *super().command()[1:]]


@pytest.fixture(scope="module")
def real_etcd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_go(BENCH, "./cmd/etcd", tmp_path_factory.mktemp("real") / "etcd")


@pytest.fixture
def twins(real_etcd: Path, tmp_path: Path) -> Iterator[Twins]:
    made: list[GatewayTwins] = []

    def make(**flags: object) -> GatewayTwins:
        for name in ("ours", "go"):
            (tmp_path / name).mkdir()
        ours = Etcd(tmp_path / "ours", **flags)
        made.append(GatewayTwins(RealEtcd(real_etcd, tmp_path / "go", **flags), ours))
        return made[-1]

    yield make
    for each in made:
        each.close()


def allowed(told: Told) -> str | None:
    return dict(told.headers).get("Access-Control-Allow-Origin")


pytestmark = pytest.mark.timeout(BUILD_SECONDS)


def test_without_the_gateway_its_paths_are_not_there(twins: Twins) -> None:
    both = twins(enable_grpc_gateway="false")
    for path in (RANGE, "/v3/", "/v3", "/v3beta/kv/range"):
        assert both.same(Asked(path, BODY)).status == 404
    assert both.same(Asked("/health", method="GET")).status == 200


def test_only_origins_that_are_listed_are_told_they_may_ask(twins: Twins) -> None:
    both = twins(cors="http://good:80")
    for headers, expected in (
        ([], None),
        (["Origin: http://good:80"], "http://good:80"),
        (["Origin: http://bad"], None),
    ):
        for method in ("POST", "OPTIONS"):
            assert allowed(both.same(Asked(RANGE, BODY, method, headers))) == expected


def test_only_hosts_that_are_listed_are_served(twins: Twins) -> None:
    both = twins(host_whitelist="127.0.0.1,good")
    assert both.same(Asked(RANGE, BODY)).status == 200
    for server in (both.go, both.ours):
        told = ask(server, Asked(f"http://bad{RANGE}", BODY))
        assert told.status == 421
        assert b"CVE-2018-5702" in told.body
        assert ask(server, Asked(f"http://good{RANGE}", BODY)).status == 200


def test_with_a_port_of_its_own_http_is_served_there_alone(real_etcd: Path, tmp_path: Path) -> None:
    for executable, name in ((real_etcd, "go"), (None, "ours")):
        (tmp_path / name).mkdir()
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        directory = tmp_path / name
        server: Server = (
            RealEtcd(executable, directory, listen_client_http_urls=url)
            if executable is not None
            else Etcd(directory, listen_client_http_urls=url)
        )
        try:
            server.put(b"a", b"1")  # gRPC is where it was
            with pytest.raises((http.client.HTTPException, OSError)):
                ask(server, Asked(RANGE, BODY))
            server.port = port
            assert json.loads(ask(server, Asked(RANGE, BODY)).body)["count"] == "1"
        finally:
            server.close()


def test_values_may_be_as_large_as_messages_may(twins: Twins) -> None:
    both = twins(max_request_bytes=6 << 20)
    value = base64.b64encode(b"x" * (5 << 20)).decode()
    assert both.same(Asked("/v3/kv/put", json.dumps({"key": "YQ==", "value": value}).encode())).status == 200
    assert both.same(Asked(RANGE, BODY)).status == 200


def test_a_body_without_end_is_cut_off(tmp_path: Path) -> None:
    server = Etcd(tmp_path)
    try:
        told = ask(server, Asked(RANGE, b" " * (5 << 20)))
        assert told.status == 413
    finally:
        server.close()


def test_a_snapshot_comes_as_lines_and_proves_itself(tmp_path: Path) -> None:
    """Larger than all that waits anywhere, so that the database is sent as the client reads."""
    server = Etcd(tmp_path)
    try:
        for at in range(24):
            server.put(b"k%d" % at, bytes((at,)) * 1_000_000)
        with Lines(server, "/v3/maintenance/snapshot", b"{}") as lines:
            blobs: list[bytes] = []
            while (line := lines.next()) is not None:
                assert set(line) == {"result"}
                blobs.append(base64.b64decode(line["result"]["blob"]))
        database, digest = b"".join(blobs[:-1]), blobs[-1]
        assert len(database) > 24_000_000
        assert hashlib.sha256(database).digest() == digest
    finally:
        server.close()
