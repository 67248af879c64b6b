"""Random sequences about users, roles and permissions get the same answers from real etcd and from pyetcd,
errors included, and leave the same users and roles in both databases.

`INTEROP_SEQUENCES` and `INTEROP_SEED` as for the random sequences about keys.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from auth_twins import MORE_PATHS, AuthTwins, MainGoEtcd
from random_auth import ODD_PASSWORDS, PASSWORDS, USERS, AuthRequests
from servers import Etcd, Server
from twins import outcome_of, unary_call

from pyetcd.proto.auth_pb2 import User
from pyetcd.proto.rpc_pb2 import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthStatusRequest,
    AuthStatusResponse,
    AuthUserAddRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    RangeRequest,
    RangeResponse,
)
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles
from pyetcd.storage.schema import AUTH, AUTH_ROLES, AUTH_USERS

FIRST_SEED = int(os.environ.get("INTEROP_SEED", "1"))
SEQUENCES = int(os.environ.get("INTEROP_SEQUENCES", "6"))
LENGTH = 250


class Pool:
    """One running pair for the tests of this module; a new one after a divergence, or where the last sequence
    has locked everybody out."""

    def __init__(self, executable: Path, factory: pytest.TempPathFactory) -> None:
        self._executable = executable
        self._factory = factory
        self._pair: AuthTwins | None = None

    def begin(self, title: str) -> AuthTwins:
        """The pair, with authentication off and a root whose password is "a"."""
        pair = self._pair
        if pair is None or pair.diverged or pair.ended() or not self._unlocked(pair):
            self.close()
            pair = self._pair = AuthTwins(self._executable, self._factory.mktemp("auth"), bcrypt_cost=4)
        pair.title = title
        pair.said = []
        pair.tokens.clear()
        for request in (
            AuthUserDeleteRequest(name="root"),
            AuthUserAddRequest(name="root", password="a"),
            AuthRoleAddRequest(name="root"),
            AuthUserGrantRoleRequest(user="root", role="root"),
        ):
            pair.ask_as(None, request)
        return pair

    @staticmethod
    def _unlocked(pair: AuthTwins) -> bool:
        for password in (*PASSWORDS, *ODD_PASSWORDS):
            pair.authenticate("root", password)
        pair.ask_as("root", AuthDisableRequest())
        status = pair.ask_as(None, AuthStatusRequest())
        assert isinstance(status, AuthStatusResponse)
        return not status.enabled

    def close(self) -> None:
        if self._pair is not None:
            self._pair.close()


@pytest.fixture(scope="module")
def pool(mainetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    made = Pool(mainetcd, tmp_path_factory)
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEQUENCES))
def test_a_random_sequence_about_users_is_answered_alike(
    pool: Pool, seed: int, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(seed)
    requests = AuthRequests(chance)
    twins = pool.begin(request.node.name)
    for _ in range(40):
        twins.ask_as(None, requests.about_auth())
    for _ in range(LENGTH):
        drawn = chance.random()
        if drawn < 0.1:
            for name in USERS:
                twins.authenticate(name, requests.password() if chance.random() < 0.2 else "a")
        elif drawn < 0.4:
            caller = "root" if chance.random() < 0.8 else chance.choice((*USERS, "stranger", None))
            twins.ask_as(caller, requests.about_auth())
        else:
            twins.ask_as(chance.choice((*USERS, "stranger", None)), requests.of_user())
    twins.ask_as(None, AuthStatusRequest())


def test_the_same_changes_leave_the_same_users_and_roles_in_both_databases(pool: Pool) -> None:
    twins = pool.begin("the databases")
    requests = AuthRequests(random.Random(FIRST_SEED))
    for _ in range(300):
        request = requests.about_auth()
        if not isinstance(request, AuthEnableRequest):
            twins.ask_as(None, request)
    twins.ours.stop()
    twins.theirs.stop()
    ours, theirs = (stored(server.directory) for server in (twins.ours, twins.theirs))
    assert ours == theirs
    assert ours["roles"]
    assert ours["users"]


def stored(directory: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    """Without the passwords, which have salt."""
    backend = Backend.open(OsFiles(), str(directory / "data" / "member" / "snap" / "db"), None)
    try:
        users = []
        for name, data in backend.scan(AUTH_USERS, b""):
            user = User.FromString(data)
            if user.password[:3] == b"$2a":
                user.password = user.password[:7] + b"." * (len(user.password) - 7)
            users.append((name, user.SerializeToString()))
        return {"users": users, "roles": backend.scan(AUTH_ROLES, b""), "auth": backend.scan(AUTH, b"")}
    finally:
        backend.discard()


def with_root(server: Server) -> None:
    for request in (
        AuthUserAddRequest(name="root", password="secret"),
        AuthRoleAddRequest(name="root"),
        AuthUserGrantRoleRequest(user="root", role="root"),
        AuthEnableRequest(),
    ):
        path, response = MORE_PATHS[type(request)]
        server.call(path.removeprefix("/etcdserverpb."), request, response)


@pytest.mark.parametrize("theirs_first", [True, False])
def test_a_data_directory_with_authentication_on_is_taken_over(
    mainetcd: Path, tmp_path: Path, theirs_first: bool
) -> None:
    first: Server = MainGoEtcd(mainetcd, tmp_path) if theirs_first else Etcd(tmp_path)
    try:
        first.put(b"k", b"v")
        with_root(first)
        assert first.stop() in (0, -signal.SIGTERM)
    finally:
        first.close()
    ports = first.port, first.peer_port
    second: Server = Etcd(tmp_path, ports) if theirs_first else MainGoEtcd(mainetcd, tmp_path, ports)
    try:
        status = second.call("Auth/AuthStatus", AuthStatusRequest(), AuthStatusResponse)
        assert isinstance(status, AuthStatusResponse)
        assert (status.enabled, status.authRevision) == (True, 4)
        with pytest.raises(grpc.RpcError, match="user name is empty"):
            second.range(b"k")
        asked = AuthenticateRequest(name="root", password="secret")
        answer = second.call("Auth/Authenticate", asked, AuthenticateResponse)
        assert isinstance(answer, AuthenticateResponse)
        call, bodies = unary_call(
            second,
            "/etcdserverpb.KV/Range",
            RangeRequest(key=b"k").SerializeToString(),
            (("token", answer.token),),
        )
        (body,) = outcome_of(call, bodies).bodies
        assert [each.value for each in RangeResponse.FromString(body).kvs] == [b"v"]
    finally:
        second.close()
