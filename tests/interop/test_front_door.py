"""What is refused before a service is asked, and authentication that is off: said as by real etcd."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from gateway_twins import Asked, GatewayTwins
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, ResponseReceived, StreamEnded, TrailersReceived
from servers import Server
from twins import Pool, Twins, mask

from pyetcd.proto.rpc_pb2 import AuthenticateRequest, AuthStatusResponse

SECONDS = 20
AUTH = "/etcdserverpb.Auth/"
UNKNOWN_PATHS = (
    "/etcdserverpb.KV/Nope",
    "/etcdserverpb.KV/",
    "/etcdserverpb.KV",
    "/etcdserverpb.KV/Range/",
    "/etcdserverpb.kv/Range",
    "/etcdserverpb.Auth/Nope",
    "/etcdserverpb.Watch/Nope",
    "/v3lockpb.Lock/Nope",
    "/v3electionpb.Election/",
    "/grpc.health.v1.Health/Nope",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/v3/kv/range",
    "/a/b/c",
    "/x",
    "/",
)
STREAMS = (
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.Maintenance/Snapshot",
    "/v3electionpb.Election/Observe",
    "/grpc.health.v1.Health/Watch",
)


@pytest.fixture(scope="module")
def pool(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    both = Pool(goetcd, tmp_path_factory)
    yield both
    both.close()


@pytest.fixture
def twins(pool: Pool, request: pytest.FixtureRequest) -> Twins:
    return pool.begin(request.node.name)


def test_unknown_methods_are_refused_in_the_same_words(twins: Twins) -> None:
    for path in UNKNOWN_PATHS:
        assert twins.ask_raw(path, b"").code is grpc.StatusCode.UNIMPLEMENTED


def ended(server: Server, path: str, version: bytes) -> dict[bytes, bytes]:
    """The trailers of a stream whose client names this API version, which may be no text: grpcio sends none
    such."""
    client = H2Connection(H2Configuration(header_encoding=None, validate_outbound_headers=False))
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"client-api-version", version),
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        client.initiate_connection()
        client.send_headers(1, headers)
        client.send_data(1, bytes(5), end_stream=True)
        trailers: dict[bytes, bytes] = {}
        events: list[Event] = []
        while not any(isinstance(event, StreamEnded) for event in events):
            connection.sendall(client.data_to_send())
            events = client.receive_data(connection.recv(1 << 16))
            for event in events:
                if isinstance(event, (ResponseReceived, TrailersReceived)):
                    trailers.update(event.headers)
    return trailers


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_is_refused_to_a_client_whose_api_version_is_no_text(twins: Twins, path: str) -> None:
    for server in (twins.ours, twins.theirs):
        trailers = ended(server, path, b"caf\xe9")
        assert trailers[b"grpc-status"] == b"3"
        assert trailers[b"grpc-message"] == b"etcdserver: invalid client api version"


def test_a_client_may_have_any_text_as_its_api_version(twins: Twins) -> None:
    for server in (twins.ours, twins.theirs):
        assert ended(server, "/etcdserverpb.KV/RangeStream", "café".encode())[b"grpc-status"] == b"3"
        message = ended(server, "/etcdserverpb.KV/RangeStream", "café".encode())[b"grpc-message"]
        assert message == b"etcdserver: key is not provided"


def test_authentication_that_is_off_says_so(twins: Twins) -> None:
    for request in (AuthenticateRequest(name="a", password="b"), AuthenticateRequest()):
        theirs = twins.ask_raw(AUTH + "Authenticate", request.SerializeToString())
        assert theirs.details == "etcdserver: authentication is not enabled"
    ours, theirs = twins.exchange(AUTH + "AuthStatus", b"")
    told = []
    for outcome in (ours, theirs):
        assert outcome.code is grpc.StatusCode.OK
        status = AuthStatusResponse.FromString(outcome.bodies[0])
        mask(status.header)
        told.append(status)
    twins.same("AuthStatus", *told)
    assert told[0].authRevision == 1
    for path in ("Authenticate", "AuthStatus"):
        twins.ask_raw(AUTH + path, b"\x0a\x05a")
    gateways = GatewayTwins(twins.theirs, twins.ours)
    assert gateways.same(Asked("/v3/auth/status", b"{}")).status == 200
    body = json.dumps({"name": "a", "password": "b"}).encode()
    assert gateways.same(Asked("/v3/auth/authenticate", body)).status == 400


def test_etcdctl_with_a_password_works_where_authentication_is_off(twins: Twins) -> None:
    etcdctl = Path(sys.executable).parent / "etcdctl"
    told = []
    for server in (twins.ours, twins.theirs):
        command = [str(etcdctl), f"--endpoints={server.client_url}", "--user=a:b", "put", "k", "v"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        told.append((done.returncode, done.stdout))
    twins.same("put", *told)
    assert told[0] == (0, "OK\n")
