"""Authentication in a cluster of both kinds: a token from one member is good on every other at once, whoever
is behind; users, keys and what is refused are the same everywhere; leases of locked keys run out."""

from __future__ import annotations

import os
import random
import signal
import urllib.request
from pathlib import Path

import grpc
import pytest
from auth_twins import MORE_PATHS
from cluster import Cluster, until
from conftest import Start
from google.protobuf.message import Message
from members import Member
from programs import GO, OURS
from random_auth import USERS, AuthRequests

from pyetcd.proto.rpc_pb2 import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleListRequest,
    AuthStatusRequest,
    AuthUserAddRequest,
    AuthUserGetRequest,
    AuthUserGrantRoleRequest,
    AuthUserListRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles
from pyetcd.storage.schema import AUTH, AUTH_ROLES, AUTH_USERS

SECONDS = 15
DENIED = "etcdserver: permission denied"
SEED = int(os.environ.get("CLUSTERS_SEED", "7"))
REQUESTS = 250  # of a random sequence
QUESTIONS = (
    AuthStatusRequest,
    AuthUserGetRequest,
    AuthUserListRequest,
    AuthRoleGetRequest,
    AuthRoleListRequest,
)


class Caller:
    """Calls as a user, of any member."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.token = ""

    def login(self, member: Member) -> None:
        asked = AuthenticateRequest(name=self.name, password=self.name)
        self.token = ""
        answer = AuthenticateResponse.FromString(self.call(member, "Auth/Authenticate", asked))
        self.token = answer.token

    def call(self, member: Member, path: str, request: Message) -> bytes:
        metadata = (("token", self.token),) if self.token else ()
        with grpc.insecure_channel(member.client_url.removeprefix("http://")) as channel:
            answer: bytes = channel.unary_unary(f"/etcdserverpb.{path}")(
                request.SerializeToString(), metadata=metadata, timeout=SECONDS
            )
            return answer

    def told(self, member: Member, path: str, request: Message) -> str:
        """Why not; empty: it went well."""
        try:
            self.call(member, path, request)
        except grpc.RpcError as error:
            return str(error.details())
        return ""


@pytest.mark.parametrize("leading", [OURS, GO], ids=["ours leads", "go leads"])
def test_a_locked_cluster_of_both_kinds_is_one(start: Start, leading: str) -> None:
    cluster = start([OURS, GO], 3, bcrypt_cost=4)
    cluster.move_leader(next(member for member in cluster.members if member.kind == leading))
    root, low = Caller("root"), Caller("low")
    members = list(cluster.members)
    permission = {"permType": "READWRITE", "key": b"own/", "range_end": b"own0"}
    for number, (path, request) in enumerate(
        (
            ("Auth/UserAdd", AuthUserAddRequest(name="root", password="root")),
            ("Auth/UserAdd", AuthUserAddRequest(name="low", password="low")),
            ("Auth/RoleAdd", AuthRoleAddRequest(name="root")),
            ("Auth/RoleAdd", AuthRoleAddRequest(name="owner")),
            ("Auth/UserGrantRole", AuthUserGrantRoleRequest(user="root", role="root")),
            ("Auth/UserGrantRole", AuthUserGrantRoleRequest(user="low", role="owner")),
            ("Auth/RoleGrantPermission", AuthRoleGrantPermissionRequest(name="owner", perm=permission)),
            ("Auth/AuthEnable", AuthEnableRequest()),
        )
    ):
        assert root.told(members[number % 3], path, request) == ""
    chance = random.Random(1)
    serializable = RangeRequest(key=b"own/", serializable=True)

    def all_know_the_token(caller: Caller = low) -> bool:
        return all(not caller.told(member, "KV/Range", serializable) for member in members)

    for number in range(12):
        low.login(members[number % 3])
        other = members[(number + 1) % 3]
        if other.kind == OURS:  # real etcd waits for the entry before the one that makes the token
            assert low.told(other, "KV/Range", serializable) == "", "the token is good at once"
        until(all_know_the_token, "all know the token")
        for key, wanted in ((b"own/%d" % number, ""), (b"other", DENIED)):
            assert low.told(chance.choice(members), "KV/Put", PutRequest(key=key)) == wanted
        both = TxnRequest(
            success=[
                RequestOp(request_put=PutRequest(key=b"own/x", value=b"%d" % number)),
                RequestOp(request_put=PutRequest(key=b"other")),
            ]
        )
        assert low.told(chance.choice(members), "KV/Txn", both) == DENIED
    root.login(members[0])
    until(lambda: all_know_the_token(root), "all know the token")
    assert root.told(members[1], "Lease/LeaseGrant", LeaseGrantRequest(ID=5, TTL=2)) == ""
    assert root.told(members[2], "KV/Put", PutRequest(key=b"leased", lease=5)) == ""

    def gone() -> bool:
        answer = RangeResponse.FromString(root.call(members[0], "KV/Range", RangeRequest(key=b"leased")))
        return not answer.kvs

    until(gone, "the lease ends")
    assert root.told(members[0], "Auth/AuthDisable", AuthDisableRequest()) == ""
    cluster.same_hashes()

class Everybody:
    """The users of random sequences. Their requests go to random members, questions to all of them."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._callers = {name: Caller(name) for name in USERS}

    def login(self, name: str, password: str) -> None:
        caller = self._callers[name]
        caller.token = ""
        member = self._chance.choice(self._cluster.members)
        request = AuthenticateRequest(name=name, password=password)
        try:
            answer = caller.call(member, "Auth/Authenticate", request)
        except grpc.RpcError:
            return
        caller.token = AuthenticateResponse.FromString(answer).token
        settled(self._cluster)  # real etcd takes a token only once it has applied the entry that made it

    def ask(self, name: str, request: Message) -> None:
        path = MORE_PATHS[type(request)][0].removeprefix("/etcdserverpb.")
        caller = self._callers[name]
        if isinstance(request, QUESTIONS):
            told = [self._answer(caller, member, path, request) for member in self._cluster.members]
            assert told[0] == told[1] == told[2], f"{path} as {name}: {request}"
        else:
            caller.told(self._chance.choice(self._cluster.members), path, request)
            settled(self._cluster)

    @staticmethod
    def _answer(caller: Caller, member: Member, path: str, request: Message) -> Message | str:
        try:
            answer = MORE_PATHS[type(request)][1].FromString(caller.call(member, path, request))
        except grpc.RpcError as error:
            return str(error.details())
        answer.ClearField("header")
        return answer


def settled(cluster: Cluster) -> None:
    """Until every member has applied all that the log has. Metrics need no name."""

    def equal() -> bool:
        places = [place for member in cluster.members for place in positions(member)]
        return len({*places}) == 1

    until(equal, "all have applied all")


def positions(member: Member) -> list[float]:
    """How far its log is committed, and applied."""
    with urllib.request.urlopen(f"{member.client_url}/metrics", timeout=SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    names = ("etcd_server_proposals_committed_total ", "etcd_server_proposals_applied_total ")
    return [float(line.split()[1]) for line in lines if line.startswith(names)]


@pytest.mark.parametrize("leading", [OURS, GO], ids=["ours leads", "go leads"])
def test_random_changes_leave_the_same_users_and_roles_on_members_of_both_kinds(
    start: Start, leading: str
) -> None:
    """What is asked of any is answered alike by all, and so is what their databases hold in the end."""
    cluster = start([OURS, GO], 3, bcrypt_cost=4)
    cluster.move_leader(next(member for member in cluster.members if member.kind == leading))
    chance = random.Random(SEED)
    requests, everybody = AuthRequests(chance), Everybody(cluster, chance)
    for request in (
        AuthUserAddRequest(name="root", password="a"),
        AuthRoleAddRequest(name="root"),
        AuthUserGrantRoleRequest(user="root", role="root"),
    ):
        everybody.ask("root", request)
    for number in range(REQUESTS):
        if number % 25 == 24:
            for name in USERS:
                everybody.login(name, "a" if chance.random() < 0.8 else requests.password())
        everybody.ask("root" if chance.random() < 0.8 else chance.choice(USERS), requests.about_auth())
    settled(cluster)
    for member in cluster.members:
        assert member.stop() in (0, -signal.SIGTERM)
    first, *others = (stored(member.data / "member" / "snap" / "db") for member in cluster.members)
    assert all(other == first for other in others), cluster.directory
    assert first["users"]
    assert first["roles"]


def stored(database: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    """Hashes of passwords too: they went through the log."""
    backend = Backend.open(OsFiles(), str(database), None)
    try:
        return {
            "users": backend.scan(AUTH_USERS, b""),
            "roles": backend.scan(AUTH_ROLES, b""),
            "auth": backend.scan(AUTH, b""),
        }
    finally:
        backend.discard()
