"""The common name of a client's certificate as its user, over real TLS: gRPC and JSON, ours and real etcd."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from authority import Authority
from tls_servers import TlsServer, context

from pyetcd.proto import rpc_pb2
from pyetcd.proto.rpc_pb2 import AuthenticateRequest, AuthenticateResponse, PutRequest

SECONDS = 10.0
AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
IGNORED = (
    "CommonName of client sending a request against gateway will be ignored and not used as expected\n"
)
Told = tuple[int, str]


class Both:
    """Each with authentication on: root, low (who may write `own`); clients show certificates."""

    def __init__(self, mainetcd: Path, authority: Authority, directory: Path) -> None:
        self.authority = authority
        files = {
            "cert_file": authority.directory / "server.pem",
            "key_file": authority.directory / "server.key",
            "trusted_ca_file": authority.ca,
            "client_cert_auth": "true",
            "bcrypt_cost": 4,
        }
        self.servers = [
            TlsServer(None, directory / "ours", **files),
            TlsServer(mainetcd, directory / "theirs", **files),
        ]
        self.tokens: list[str] = []
        for server in self.servers:
            for path, request in (
                ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password="r")),
                ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="low", password="l")),
                ("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="owner")),
                (
                    "Auth/RoleGrantPermission",
                    rpc_pb2.AuthRoleGrantPermissionRequest(
                        name="owner", perm={"permType": "READWRITE", "key": b"own"}
                    ),
                ),
                ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
                ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="low", role="owner")),
                ("Auth/AuthEnable", rpc_pb2.AuthEnableRequest()),
            ):
                assert self.grpc(server, "low", path, request.SerializeToString()) == (0, "")
            self.tokens.append(self.token(server))

    def token(self, server: TlsServer) -> str:
        """Of low, over gRPC."""
        files = (self.authority.ca, *(self.authority.directory / f"low.{end}" for end in ("key", "pem")))
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
        payload = AuthenticateRequest(name="low", password="l").SerializeToString()
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            answer = channel.unary_unary(AUTHENTICATE)(payload, timeout=SECONDS)
        return AuthenticateResponse.FromString(answer).token

    def grpc(self, server: TlsServer, name: str, path: str, payload: bytes, token: str = "") -> Told:
        files = (self.authority.ca, *(self.authority.directory / f"{name}.{end}" for end in ("key", "pem")))
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
        metadata = (("token", token),) if token else ()
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            try:
                channel.unary_unary(f"/etcdserverpb.{path}")(payload, metadata=metadata, timeout=SECONDS)
            except grpc.RpcError as error:
                return error.code().value[0], error.details()
        return 0, ""

    def body(
        self,
        server: TlsServer,
        name: str,
        path: str,
        body: dict[str, str],
        token: str = "",
    ) -> dict[str, object]:
        headers = {"Authorization": token} if token else {}
        request = urllib.request.Request(
            f"https://localhost:{server.port}{path}", json.dumps(body).encode(), headers
        )
        how = context(self.authority, name)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS, context=how) as answer:
                told: dict[str, object] = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            told = {"status": error.code, **(json.loads(text) if text[:1] == "{" else {"text": text})}
        told.pop("header", None)
        return told


@pytest.fixture(scope="module")
def both(mainetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    directory = tmp_path_factory.mktemp("names")
    authority = Authority(directory / "authority")
    authority.issue("server", ["127.0.0.1", "localhost"])
    for name in ("root", "low", "stranger"):
        authority.issue(name)
    authority.issue("", file="nameless")
    made = Both(mainetcd, authority, directory)
    yield made
    for server in made.servers:
        server.close()


@pytest.mark.parametrize("name", ["root", "low", "stranger"])
@pytest.mark.parametrize("key", [b"own", b"foreign"])
def test_a_name_in_a_certificate_may_what_the_user_may(both: Both, name: str, key: bytes) -> None:
    payload = PutRequest(key=key, value=b"v").SerializeToString()
    ours, theirs = (both.grpc(server, name, "KV/Put", payload) for server in both.servers)
    assert ours == theirs
    allowed = name == "root" or (name == "low" and key == b"own")
    assert (ours == (0, "")) is allowed


def test_a_token_goes_before_the_certificate(both: Both) -> None:
    payload = PutRequest(key=b"foreign", value=b"v").SerializeToString()
    told = [
        both.grpc(server, "root", "KV/Put", payload, token)
        for server, token in zip(both.servers, both.tokens, strict=True)
    ]
    assert told[0] == told[1] == (7, "etcdserver: permission denied")


@pytest.mark.parametrize("name", ["root", "low", "stranger"])
@pytest.mark.parametrize("path", ["/v3/kv/put", "/v3beta/kv/range", "/v3/auth/user/list", "/v3/none"])
@pytest.mark.parametrize("with_token", [False, True])
def test_the_gateway_tells_who_shows_a_name_that_it_would_be_ignored(
    both: Both, name: str, path: str, with_token: bool
) -> None:
    told = [
        both.body(server, name, path, {"key": "b3du"}, token if with_token else "")
        for server, token in zip(both.servers, both.tokens, strict=True)
    ]
    assert told[0] == told[1]
    assert told[0] == {"status": 400, "text": IGNORED}


def test_plain_paths_and_clients_without_a_name_are_served(both: Both) -> None:
    for name, path in (("low", "/version"), ("low", "/health"), ("nameless", "/v3/auth/status")):
        told = [both.body(server, name, path, {}) for server in both.servers]
        assert [each.get("text") for each in told] == [None, None] or name == "low"
        assert told[0].get("status") == told[1].get("status")


def test_a_client_may_be_the_authority_itself(mainetcd: Path, tmp_path: Path) -> None:
    """Its own certificate is the one that is trusted, as of those who sign for themselves."""
    authority = Authority(tmp_path / "authority")
    authority.issue("server", ["127.0.0.1", "localhost"])
    (authority.directory / "authority.pem").write_bytes(authority.ca.read_bytes())
    (authority.directory / "authority.key").write_bytes(authority.key_pem())
    told = []
    for place, executable in (("ours", None), ("theirs", mainetcd)):
        server = TlsServer(
            executable,
            tmp_path / place,
            cert_file=authority.directory / "server.pem",
            key_file=authority.directory / "server.key",
            trusted_ca_file=authority.ca,
            client_cert_auth="true",
        )
        try:
            how = context(authority, "authority")
            url = f"https://localhost:{server.port}/version"
            with urllib.request.urlopen(url, timeout=SECONDS, context=how) as answer:
                told.append(answer.status)
        finally:
            server.close()
    assert told == [200, 200]
