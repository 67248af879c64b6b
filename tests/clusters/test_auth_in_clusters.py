"""Authentication in a cluster of both kinds: a token from one member is good on every other at once, whoever
is behind; users, keys and what is refused are the same everywhere; leases of locked keys run out."""

from __future__ import annotations

import random

import grpc
import pytest
from cluster import until
from conftest import Start
from google.protobuf.message import Message
from members import Member
from programs import GO, OURS

from pyetcd.proto.rpc_pb2 import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)

SECONDS = 15
DENIED = "etcdserver: permission denied"


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
