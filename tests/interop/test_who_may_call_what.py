"""Every RPC, gateway path and HTTP path: what nobody, a stranger, a low user and root are told, as the table
of permissions says; and that the table leaves nothing out."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from servers import Etcd
from twins import Outcome, outcome_of
from two_users import TWO_USERS

from pyetcd.api.gateway.paths import PATHS
from pyetcd.api.permissions import HTTP_PATHS, PEER_PATHS, RPCS, Need
from pyetcd.api.server import STREAMS, UNARY
from pyetcd.peer import calls
from pyetcd.proto import election_pb2, lock_pb2, rpc_pb2
from pyetcd.proto.rpc_pb2 import (
    AuthenticateRequest,
    AuthenticateResponse,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

FOREIGN = b"secret"  # a key that the low user may not touch
FOREIGN_LEASE, OWN_LEASE = 11, 12
SECONDS = 5
INVALID_TOKEN = "etcdserver: invalid auth token"
USER_EMPTY = "etcdserver: user name is empty"
DENIED = "etcdserver: permission denied"

OK_FOR_ANYBODY = {"/etcdserverpb.Auth/AuthStatus"}
NO_TOKEN_LOOKED_AT = {"/etcdserverpb.Auth/Authenticate"}

# What each RPC is asked; those not named are asked an empty message.
REQUESTS = {
    "/etcdserverpb.KV/Range": RangeRequest(key=FOREIGN),
    "/etcdserverpb.KV/RangeStream": RangeRequest(key=FOREIGN),
    "/etcdserverpb.KV/Put": PutRequest(key=FOREIGN, value=b"v"),
    "/etcdserverpb.KV/DeleteRange": DeleteRangeRequest(key=FOREIGN),
    "/etcdserverpb.KV/Txn": TxnRequest(success=[RequestOp(request_put=PutRequest(key=FOREIGN))]),
    "/etcdserverpb.Lease/LeaseGrant": LeaseGrantRequest(TTL=100),
    "/etcdserverpb.Lease/LeaseRevoke": rpc_pb2.LeaseRevokeRequest(ID=FOREIGN_LEASE),
    "/etcdserverpb.Lease/LeaseKeepAlive": rpc_pb2.LeaseKeepAliveRequest(ID=FOREIGN_LEASE),
    "/etcdserverpb.Lease/LeaseTimeToLive": rpc_pb2.LeaseTimeToLiveRequest(ID=FOREIGN_LEASE, keys=True),
    "/etcdserverpb.Watch/Watch": WatchRequest(create_request=WatchCreateRequest(key=FOREIGN)),
    "/etcdserverpb.Cluster/MemberAdd": rpc_pb2.MemberAddRequest(
        peerURLs=["http://127.0.0.1:1"], isLearner=True
    ),
    "/etcdserverpb.Cluster/MemberRemove": rpc_pb2.MemberRemoveRequest(ID=7),
    "/etcdserverpb.Cluster/MemberUpdate": rpc_pb2.MemberUpdateRequest(ID=7, peerURLs=["http://127.0.0.1:1"]),
    "/etcdserverpb.Cluster/MemberPromote": rpc_pb2.MemberPromoteRequest(ID=7),
    "/etcdserverpb.Maintenance/Alarm": rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.DEACTIVATE),
    "/etcdserverpb.Maintenance/MoveLeader": rpc_pb2.MoveLeaderRequest(targetID=7),
    "/etcdserverpb.Auth/Authenticate": AuthenticateRequest(name="low", password="pass-of-low"),
    "/etcdserverpb.Auth/AuthDisable": None,  # by root it would end the test
    "/etcdserverpb.Auth/UserAdd": rpc_pb2.AuthUserAddRequest(name="new", password="n"),
    "/etcdserverpb.Auth/UserGet": rpc_pb2.AuthUserGetRequest(name="root"),
    "/etcdserverpb.Auth/RoleGet": rpc_pb2.AuthRoleGetRequest(role="root"),
    "/v3lockpb.Lock/Lock": lock_pb2.LockRequest(name=FOREIGN, lease=FOREIGN_LEASE),
    "/v3lockpb.Lock/Unlock": lock_pb2.UnlockRequest(key=FOREIGN),
    "/v3electionpb.Election/Campaign": election_pb2.CampaignRequest(name=FOREIGN, lease=FOREIGN_LEASE),
    "/v3electionpb.Election/Proclaim": election_pb2.ProclaimRequest(
        leader=election_pb2.LeaderKey(name=FOREIGN, key=FOREIGN, lease=FOREIGN_LEASE, rev=1)
    ),
    "/v3electionpb.Election/Leader": election_pb2.LeaderRequest(name=FOREIGN),
    "/v3electionpb.Election/Observe": election_pb2.LeaderRequest(name=FOREIGN),
    "/v3electionpb.Election/Resign": election_pb2.ResignRequest(
        leader=election_pb2.LeaderKey(name=FOREIGN, key=FOREIGN, lease=FOREIGN_LEASE, rev=1)
    ),
}


class Locked:
    """A server with authentication on, a root and a low user who may read and write `own`."""

    def __init__(self, directory: Path) -> None:
        self.etcd = Etcd(directory, bcrypt_cost=4)
        self.tokens: dict[str, str | None] = {"nobody": None, "stranger": "abc.1"}
        for path, request in (
            *TWO_USERS,
            (
                "Auth/RoleGrantPermission",
                rpc_pb2.AuthRoleGrantPermissionRequest(
                    name="owner", perm={"permType": "WRITE", "key": b"post"}
                ),
            ),
            ("Lease/LeaseGrant", LeaseGrantRequest(ID=FOREIGN_LEASE, TTL=1000)),
            ("Lease/LeaseGrant", LeaseGrantRequest(ID=OWN_LEASE, TTL=1000)),
            ("KV/Put", PutRequest(key=FOREIGN, value=b"v", lease=FOREIGN_LEASE)),
            ("KV/Put", PutRequest(key=b"own", value=b"v", lease=OWN_LEASE)),
            ("Auth/AuthEnable", rpc_pb2.AuthEnableRequest()),
        ):
            assert self.ask(f"/etcdserverpb.{path}", request.SerializeToString(), "nobody").details == ""
        for name in ("root", "low"):
            asked = AuthenticateRequest(name=name, password=f"pass-of-{name}")
            answer = self.etcd.call("Auth/Authenticate", asked, AuthenticateResponse)
            assert isinstance(answer, AuthenticateResponse)
            self.tokens[name] = answer.token

    def ask(self, path: str, payload: bytes, caller: str) -> Outcome:
        """Streams are read up to their first message."""
        token = self.tokens[caller]
        metadata = (("token", token),) if token is not None else ()
        channel = self.etcd.channel
        if path not in STREAMS:
            call = channel.unary_stream(path)(payload, metadata=metadata, timeout=SECONDS)
            return outcome_of(call, call)
        call = channel.stream_stream(path)(iter([payload]), metadata=metadata, timeout=SECONDS)
        try:
            body = next(call)
        except StopIteration:
            return Outcome(call.code(), "", ())
        except grpc.RpcError:
            return Outcome(call.code(), call.details(), ())
        call.cancel()
        return Outcome(grpc.StatusCode.OK, "", (body,))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    made = Locked(tmp_path_factory.mktemp("locked"))
    yield made
    made.etcd.close()


@pytest.fixture
def locked(server: Locked) -> Locked:
    """With the keys and leases there, whatever root has done in a test before."""
    for lease, key in ((FOREIGN_LEASE, FOREIGN), (OWN_LEASE, b"own")):
        granted = LeaseGrantRequest(ID=lease, TTL=1000).SerializeToString()
        server.ask("/etcdserverpb.Lease/LeaseGrant", granted, "root")
        put = PutRequest(key=key, value=b"v", lease=lease).SerializeToString()
        assert server.ask("/etcdserverpb.KV/Put", put, "root").details == ""
    return server


def told(path: str, outcome: Outcome) -> str:
    """Why not, empty if it went well, or failed for a reason that is none of permission."""
    text = outcome.details
    if path == "/etcdserverpb.Watch/Watch":
        text = WatchResponse.FromString(outcome.bodies[0]).cancel_reason.rpartition("desc = ")[2]
    if path == "/v3electionpb.Election/Observe" and not outcome.bodies:
        return "ended"  # real etcd ends such a stream as if all had been said
    permission = (INVALID_TOKEN, USER_EMPTY, DENIED)
    return text if text in permission else ""


@pytest.mark.parametrize("path", sorted({*UNARY, *STREAMS}))
def test_an_rpc_is_for_those_the_table_says(locked: Locked, path: str) -> None:
    need = RPCS[path]
    request = REQUESTS.get(path)
    if path == "/etcdserverpb.Auth/AuthDisable":
        callers = ("nobody", "stranger", "low")
    else:
        callers = ("nobody", "stranger", "low", "root")
    payload = request.SerializeToString() if request is not None else b""
    if path in ("/grpc.health.v1.Health/Watch", "/v3electionpb.Election/Observe"):
        callers = tuple(caller for caller in callers if caller != "root" or need is Need.NOBODY)
    got = {caller: told(path, locked.ask(path, payload, caller)) for caller in callers}
    wanted = {"nobody": "", "stranger": "", "low": "", "root": ""}
    if need is not Need.NOBODY:
        wanted = {"nobody": USER_EMPTY, "stranger": INVALID_TOKEN, "low": DENIED, "root": ""}
    elif path in OK_FOR_ANYBODY:
        wanted["stranger"] = INVALID_TOKEN
    if need is Need.NAMED:
        wanted["low"] = ""
    if path == "/v3electionpb.Election/Observe":
        wanted = dict.fromkeys(wanted, "ended")
    assert got == {caller: wanted[caller] for caller in callers}


def test_every_rpc_has_a_need_and_every_path_of_the_gateway_an_rpc() -> None:
    assert {*UNARY, *STREAMS} <= set(RPCS)
    assert set(PATHS.values()) <= set(RPCS)


@pytest.mark.parametrize("path", sorted(PATHS))
def test_a_path_of_the_gateway_is_guarded_as_its_rpc(locked: Locked, path: str) -> None:
    rpc = PATHS[path]
    if rpc in STREAMS:
        return
    need = RPCS[rpc]
    body = {"/etcdserverpb.Maintenance/Alarm": '{"action":"DEACTIVATE"}'}.get(rpc, "{}")
    connection = http.client.HTTPConnection("127.0.0.1", locked.etcd.port, timeout=SECONDS)
    try:
        connection.request("POST", path, body, {"Authorization": "abc.1"})
        answer = connection.getresponse()
        message = json.loads(answer.read()).get("message", "")
    finally:
        connection.close()
    if need is Need.NOBODY and rpc not in OK_FOR_ANYBODY:
        assert message != INVALID_TOKEN
    elif message != INVALID_TOKEN:  # what is wrong with an empty request is told before who asks
        assert need is Need.KEYS
        assert answer.status in (400, 500)


@pytest.mark.parametrize("path", sorted(HTTP_PATHS))
def test_plain_paths_ask_for_no_name_and_tell_no_key(locked: Locked, path: str) -> None:
    assert HTTP_PATHS[path] is Need.NOBODY
    connection = http.client.HTTPConnection("127.0.0.1", locked.etcd.port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    assert answer.status in (200, 404, 405)
    assert FOREIGN not in body


def test_a_promotion_handed_on_by_a_peer_needs_the_token_of_a_root(locked: Locked) -> None:
    assert PEER_PATHS[calls.PROMOTE] is Need.ROOT
    statuses = {}
    for caller, token in locked.tokens.items():
        connection = http.client.HTTPConnection("127.0.0.1", locked.etcd.peer_port, timeout=SECONDS)
        try:
            headers = {"Authorization": token} if token is not None else {}
            connection.request("POST", f"{calls.PROMOTE}7", b"", headers)
            statuses[caller] = connection.getresponse().status
        finally:
            connection.close()
    assert statuses == {"nobody": 500, "stranger": 500, "low": 500, "root": 404}


# Holes that there were


OWN = PutRequest(key=b"own", value=b"v")
HOLES = {
    "a put in a transaction in a transaction": TxnRequest(
        success=[
            RequestOp(
                request_txn=TxnRequest(
                    failure=[RequestOp(request_txn=TxnRequest(success=[RequestOp(request_put=OWN)]))],
                    success=[RequestOp(request_put=PutRequest(key=FOREIGN))],
                )
            )
        ]
    ),
    "a range in the branch that is not taken": TxnRequest(
        compare=[Compare(key=b"own", target=Compare.VERSION, result=Compare.GREATER, version=0)],
        failure=[RequestOp(request_range=RangeRequest(key=FOREIGN))],
    ),
    "a condition on a key": TxnRequest(compare=[Compare(key=FOREIGN)]),
    "a condition on a range": TxnRequest(compare=[Compare(key=b"own", range_end=b"t")]),
    "the value before a put that may only be written": TxnRequest(
        success=[RequestOp(request_put=PutRequest(key=b"post", prev_kv=True))]
    ),
    "the values before a deletion": TxnRequest(
        success=[RequestOp(request_delete_range=DeleteRangeRequest(key=b"post", prev_kv=True))]
    ),
    "somebody else's lease for an own key": TxnRequest(
        success=[RequestOp(request_put=PutRequest(key=b"own", lease=FOREIGN_LEASE))]
    ),
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_transaction_has_no_hole(locked: Locked, hole: str) -> None:
    request = HOLES[hole]
    assert locked.ask("/etcdserverpb.KV/Txn", request.SerializeToString(), "low").details == DENIED
    assert locked.ask("/etcdserverpb.KV/Txn", request.SerializeToString(), "root").details == ""


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("KV/Put", PutRequest(key=b"own", lease=FOREIGN_LEASE)),
        ("KV/Put", PutRequest(key=b"post", prev_kv=True)),
        ("KV/DeleteRange", DeleteRangeRequest(key=b"own", range_end=b"t")),
        ("KV/DeleteRange", DeleteRangeRequest(key=b"own", range_end=b"\0")),
        ("KV/DeleteRange", DeleteRangeRequest(key=b"post", prev_kv=True)),
        ("KV/Range", RangeRequest(key=b"own", range_end=b"\0")),
        ("KV/Range", RangeRequest(key=b"post")),
        ("KV/Range", RangeRequest(key=FOREIGN, serializable=True, count_only=True)),
        ("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=FOREIGN_LEASE)),
        ("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=FOREIGN_LEASE, keys=True)),
        ("Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest()),
        ("Maintenance/Defragment", rpc_pb2.DefragmentRequest()),
        ("KV/Compact", rpc_pb2.CompactionRequest(revision=1)),
    ],
    ids=repr,
)
def test_what_a_low_user_may_not_do(locked: Locked, path: str, request_: object) -> None:
    payload = request_.SerializeToString()  # type: ignore[attr-defined]
    assert locked.ask(f"/etcdserverpb.{path}", payload, "low").details == DENIED


@pytest.mark.parametrize("end", [b"t", b"\0"])
def test_a_watch_of_an_own_key_may_not_span_others(locked: Locked, end: bytes) -> None:
    create = WatchRequest(create_request=WatchCreateRequest(key=b"own", range_end=end))
    outcome = locked.ask("/etcdserverpb.Watch/Watch", create.SerializeToString(), "low")
    response = WatchResponse.FromString(outcome.bodies[0])
    assert response.canceled
    assert response.cancel_reason.endswith(DENIED)


def test_what_a_low_user_may_do(locked: Locked) -> None:
    for path, request in (
        ("KV/Put", PutRequest(key=b"own", value=b"w", prev_kv=True, lease=OWN_LEASE)),
        ("KV/Range", RangeRequest(key=b"own", range_end=b"owo")),
        ("KV/Put", PutRequest(key=b"post", value=b"w")),
        ("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=OWN_LEASE, keys=True)),
        ("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=FOREIGN_LEASE)),
        ("Auth/UserGet", rpc_pb2.AuthUserGetRequest(name="low")),
        ("Auth/RoleGet", rpc_pb2.AuthRoleGetRequest(role="owner")),
        ("Maintenance/Alarm", rpc_pb2.AlarmRequest()),
    ):
        assert locked.ask(f"/etcdserverpb.{path}", request.SerializeToString(), "low").details == ""


@pytest.mark.parametrize("kind", ["simple", "jwt"])
def test_passwords_and_tokens_are_in_no_log_line(tmp_path: Path, kind: str) -> None:
    """Nor wrong ones, which may be right elsewhere; whichever way they come in; nor on any page."""
    password, wrong, strange = "correct-horse-battery", "wrong-staple", "not.a-token.at-all"
    secret = tmp_path / "secret"
    secret.write_bytes(b"key-of-all-members" * 4)
    tokens = "simple" if kind == "simple" else f"jwt,sign-method=HS256,priv-key={secret}"
    flags = {"log_level": "debug", "warning_unary_request_duration": "1ns", "auth_token": tokens}
    etcd = Etcd(tmp_path, bcrypt_cost=4, **flags)
    try:
        for path, request in (
            ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password=password)),
            ("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="root")),
            ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
            (
                "Auth/UserChangePassword",
                rpc_pb2.AuthUserChangePasswordRequest(name="root", password=password),
            ),
            ("Auth/AuthEnable", rpc_pb2.AuthEnableRequest()),
        ):
            call = etcd.channel.unary_unary(f"/etcdserverpb.{path}")
            call(request.SerializeToString(), timeout=SECONDS)
        asked = AuthenticateRequest(name="root", password=password)
        answer = etcd.call("Auth/Authenticate", asked, AuthenticateResponse)
        assert isinstance(answer, AuthenticateResponse)
        with pytest.raises(grpc.RpcError, match="invalid user ID or password"):
            etcd.call(
                "Auth/Authenticate", AuthenticateRequest(name="root", password=wrong), AuthenticateResponse
            )
        ranged = etcd.channel.unary_unary("/etcdserverpb.KV/Range")
        asking = RangeRequest(key=b"k").SerializeToString()
        ranged(asking, metadata=(("token", answer.token),), timeout=SECONDS)
        with pytest.raises(grpc.RpcError, match=INVALID_TOKEN):
            ranged(asking, metadata=(("token", strange),), timeout=SECONDS)
        connection = http.client.HTTPConnection("127.0.0.1", etcd.port, timeout=SECONDS)
        posted = []
        for tried in (password, wrong):
            body = json.dumps({"name": "root", "password": tried})
            connection.request("POST", "/v3/auth/authenticate", body)
            posted.append(json.loads(connection.getresponse().read()).get("token", ""))
        for token in (posted[0], strange):
            connection.request("POST", "/v3/kv/range", '{"key":"aw=="}', {"Authorization": token})
            connection.getresponse().read()
        pages = []
        for page in (
            "/debug/requests",
            "/debug/requests?fam=grpc.Recv.Auth&b=0&exp=1",
            "/debug/requests?fam=grpc.Recv.KV&b=0&exp=1",
            "/debug/vars",
            "/metrics",
        ):
            connection.request("GET", page)
            pages.append(connection.getresponse().read().decode("utf-8", "replace"))
        connection.close()
    finally:
        etcd.stop()
    printed = etcd.printed.text()
    assert "authenticated a user" in printed
    assert posted[0]
    secrets = [password, wrong, strange, secret.read_text()]
    for token in (answer.token, posted[0]):
        secrets += [token, token.partition(".")[0] if kind == "simple" else token.rpartition(".")[2]]
    for text in (printed, *pages):
        assert not [each for each in secrets if each in text]
