"""Locks and elections of users, beside real etcd: a recipe needs what the requests it is made of need, also
when what its caller may do changes while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from auth_twins import AuthTwins
from google.protobuf.message import Message
from servers import Server
from twins import CALL_SECONDS, Outcome, outcome_of
from two_users import TWO_USERS

from pyetcd.proto.election_pb2 import (
    CampaignRequest,
    LeaderKey,
    LeaderRequest,
    ProclaimRequest,
    ResignRequest,
)
from pyetcd.proto.lock_pb2 import LockRequest, UnlockRequest
from pyetcd.proto.rpc_pb2 import (
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
)

LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
PATHS: dict[type[Message], str] = {
    LockRequest: LOCK + "Lock",
    UnlockRequest: LOCK + "Unlock",
    CampaignRequest: ELECTION + "Campaign",
    ProclaimRequest: ELECTION + "Proclaim",
    LeaderRequest: ELECTION + "Leader",
    ResignRequest: ELECTION + "Resign",
}
CALLERS = (None, "stranger", "low", "reader", "root")
OWN_LEASE, FOREIGN_LEASE, HELD_LEASE = 0x11, 0x12, 0x13
WAIT_SECONDS = 15.0


@pytest.fixture(scope="module")
def twins(mainetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthTwins]:
    """`low` reads and writes from `own` on, `reader` reads there."""
    both = AuthTwins(mainetcd, tmp_path_factory.mktemp("locks"), bcrypt_cost=4)
    both.title = "locks of users"
    reads = {"permType": "READ", "key": b"own", "range_end": b"owo"}
    for _, request in TWO_USERS:
        assert both.ask_as(None, request) is not None
    for request in (
        AuthUserAddRequest(name="reader", password="pass-of-reader"),
        AuthRoleAddRequest(name="reads"),
        AuthRoleGrantPermissionRequest(name="reads", perm=reads),
        AuthUserGrantRoleRequest(user="reader", role="reads"),
        AuthEnableRequest(),
    ):
        assert both.ask_as(None, request) is not None
    login(both)
    yield both
    both.close()


def login(twins: AuthTwins) -> None:
    for name in ("root", "low", "reader"):
        twins.authenticate(name, f"pass-of-{name}")


@pytest.fixture(autouse=True)
def clean(twins: AuthTwins) -> None:
    login(twins)
    twins.ask_as("root", DeleteRangeRequest(key=b"\0", range_end=b"\0"))
    for lease in (OWN_LEASE, FOREIGN_LEASE, HELD_LEASE):
        twins.ask_as("root", LeaseRevokeRequest(ID=lease))
        twins.ask_as("root", LeaseGrantRequest(ID=lease, TTL=600))
    twins.ask_as("root", PutRequest(key=b"secret", value=b"v", lease=FOREIGN_LEASE))


def begin(twins: AuthTwins, place: int, caller: str | None, request: Message) -> grpc.Future:
    """On ours (0) or real etcd (1)."""
    server = (twins.ours, twins.theirs)[place]
    method = server.channel.unary_unary(PATHS[type(request)])
    metadata = twins.metadata(caller, place)
    return method.future(request.SerializeToString(), metadata=metadata, timeout=CALL_SECONDS)


def same(twins: AuthTwins, caller: str | None, request: Message) -> str:
    """The same outcome on both; why not, empty if it went well."""
    outcomes = []
    for place in (0, 1):
        call = begin(twins, place, caller, request)
        outcomes.append((call.code(), call.details() or ""))
    twins.same(f"{PATHS[type(request)]} as {caller}\n{request}", *outcomes)
    return outcomes[0][1]


def leader(name: bytes, lease: int) -> LeaderKey:
    return LeaderKey(name=name, key=name + b"/%x" % lease, rev=5, lease=lease)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", [b"own", b"secret"])
@pytest.mark.parametrize("lease", [OWN_LEASE, FOREIGN_LEASE, 0, 404])
def test_each_call_is_for_the_same_callers(
    twins: AuthTwins, caller: str | None, name: bytes, lease: int
) -> None:
    if lease == FOREIGN_LEASE:
        twins.ask_as("root", PutRequest(key=b"secret", value=b"v", lease=FOREIGN_LEASE))
    requests: list[Message] = [LockRequest(name=name, lease=lease), LeaderRequest(name=name)]
    if lease:  # else each member makes a lease of its own, which nobody else knows
        requests += (
            UnlockRequest(key=name + b"/%x" % lease),
            CampaignRequest(name=name, lease=lease, value=b"v"),
            LeaderRequest(name=name),
            ProclaimRequest(leader=leader(name, lease), value=b"w"),
            ResignRequest(leader=leader(name, lease)),
        )
    told = [same(twins, caller, request) for request in requests]
    if caller == "low" and name == b"own" and lease == OWN_LEASE:
        assert told[:5] == [""] * 5
    if caller == "low" and (name == b"secret" or lease == FOREIGN_LEASE):
        assert told[0] == "etcdserver: permission denied"
    if caller is None:
        assert told[0] == "etcdserver: user name is empty"


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", [b"own", b"secret"])
def test_an_election_is_observed_by_the_same_callers(
    twins: AuthTwins, caller: str | None, name: bytes
) -> None:
    assert same(twins, "root", CampaignRequest(name=name, lease=HELD_LEASE, value=b"v")) == ""
    outcomes: list[Outcome | str] = []
    for place, server in enumerate((twins.ours, twins.theirs)):
        method = server.channel.unary_stream(ELECTION + "Observe")
        metadata = twins.metadata(caller, place)
        call = method(LeaderRequest(name=name).SerializeToString(), metadata=metadata, timeout=3)
        first = next(iter(call), None)
        if first is None:
            outcomes.append(outcome_of(call, ()))
        else:
            outcomes.append("told")
            call.cancel()
    twins.same(f"Observe {name!r} as {caller}", *outcomes)
    assert (outcomes[0] == "told") == (
        caller == "root" or (name == b"own" and caller in ("low", "reader"))
    )


def keys(twins: AuthTwins, server: Server, place: int) -> list[bytes]:
    method = server.channel.unary_unary("/etcdserverpb.KV/Range")
    asked = RangeRequest(key=b"own/", range_end=b"own0").SerializeToString()
    answer = method(asked, metadata=twins.metadata("root", place), timeout=CALL_SECONDS)
    return [kv.key for kv in RangeResponse.FromString(answer).kvs]


def nothing(twins: AuthTwins) -> None:
    """All stays as it was."""


def less_is_permitted(twins: AuthTwins) -> None:
    revoked = AuthRoleRevokePermissionRequest(role="owner", key=b"own", range_end=b"owo")
    assert twins.ask_as("root", revoked) is not None


def more_is_permitted(twins: AuthTwins) -> None:
    more = {"permType": "READ", "key": b"more"}
    assert twins.ask_as("root", AuthRoleGrantPermissionRequest(name="owner", perm=more)) is not None


def another_password(twins: AuthTwins) -> None:
    changed = AuthUserChangePasswordRequest(name="low", password="pass-of-low")
    assert twins.ask_as("root", changed) is not None


def the_user_is_gone(twins: AuthTwins) -> None:
    assert twins.ask_as("root", AuthUserDeleteRequest(name="low")) is not None


CHANGES = (nothing, more_is_permitted, another_password, less_is_permitted, the_user_is_gone)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", [LockRequest, CampaignRequest], ids=["lock", "campaign"])
def test_who_waits_is_judged_again_at_its_turn(
    twins: AuthTwins, change: Callable[[AuthTwins], None], kind: type[LockRequest] | type[CampaignRequest]
) -> None:
    """What is done is the same on both, and so is what is left of the line."""
    assert same(twins, "root", kind(name=b"own", lease=HELD_LEASE)) == ""
    waiting = [begin(twins, place, "low", kind(name=b"own", lease=OWN_LEASE)) for place in (0, 1)]
    try:
        for place, server in enumerate((twins.ours, twins.theirs)):
            until(lambda server=server, place=place: len(keys(twins, server, place)) == 2)
        change(twins)
        twins.authenticate("root", "pass-of-root")
        assert same(twins, "root", UnlockRequest(key=b"own/%x" % HELD_LEASE)) == ""
        ours, theirs = ((call.code(), call.details() or "") for call in waiting)
        twins.same(f"{kind.__name__} after {change.__name__}", ours, theirs)
        assert (ours[0] is grpc.StatusCode.OK) == (change in (nothing, more_is_permitted))
        left = [keys(twins, server, place) for place, server in enumerate((twins.ours, twins.theirs))]
        twins.same("the line", *left)
    finally:
        for call in waiting:
            call.cancel()
        restore(twins)


def restore(twins: AuthTwins) -> None:
    twins.ask_as("root", TWO_USERS[1][1])
    for _, request in TWO_USERS[5:]:
        twins.ask_as("root", request)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # there is no event to await: keys are looked at
