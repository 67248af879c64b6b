"""The same requests to real etcd and to pyetcd get the same answers, errors included, and the same HashKV.

`INTEROP_SEQUENCES` says how many random sequences there are (the default is a few seconds' worth), and
`INTEROP_SEED` at which seed they begin.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from random_kv import Requests, ends_go
from servers import Server
from twins import CALL_SECONDS, PATHS, Pool, Twins, outcome_of

from pyetcd.proto.rpc_pb2 import (
    CORRUPT,
    NONE,
    NOSPACE,
    AlarmRequest,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    MemberListResponse,
    PutRequest,
    RangeRequest,
    RequestOp,
    StatusRequest,
    StatusResponse,
    TxnRequest,
)
from pyetcd.proto.splice import field_bytes

FIRST_SEED = int(os.environ.get("INTEROP_SEED", "1"))
SEQUENCES = int(os.environ.get("INTEROP_SEQUENCES", "12"))
LENGTH = 250


@pytest.fixture(scope="module")
def pool(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    made = Pool(goetcd, tmp_path_factory)
    yield made
    made.close()


@pytest.fixture
def twins(pool: Pool, request: pytest.FixtureRequest) -> Twins:
    return pool.begin(request.node.name)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEQUENCES))
def test_a_random_sequence_of_requests_is_answered_alike(twins: Twins, seed: int) -> None:
    requests = Requests(random.Random(seed), twins.history)
    for number in range(LENGTH):
        twins.ask(requests.one())
        if number % 10 == 0:
            twins.ask_stream(requests.stream())
        if number % 20 == 0:
            twins.ask_keep_alive(requests.keep_alive())
            twins.ask(HashKVRequest())
    for revision in range(max(twins.history.compacted, 1), twins.history.current + 1, 7):
        if revision not in twins.history.unsure:
            twins.ask(HashKVRequest(revision=revision))


def test_a_restart_changes_no_answer(twins: Twins) -> None:
    requests = Requests(random.Random(FIRST_SEED), twins.history)
    for _ in range(60):
        twins.ask(requests.one())
    twins.restart()
    for revision in (0, twins.history.compacted, twins.history.current - 5):
        twins.ask(RangeRequest(key=b"\0", range_end=b"\0", revision=revision))
        twins.ask(HashKVRequest(revision=revision))  # computed anew: those of compactions are forgotten
    for _ in range(60):
        twins.ask(requests.one())
    twins.ask(HashKVRequest())


def test_requests_changed_at_random_are_parsed_and_refused_alike(twins: Twins) -> None:
    chance = random.Random(FIRST_SEED)
    requests = Requests(chance, twins.history)
    for _ in range(300):
        request = requests.one()
        payload = bytearray(request.SerializeToString())
        for _ in range(chance.randrange(1, 3)):
            at = chance.randrange(len(payload) + 1)
            if chance.random() < 0.5 and at < len(payload):
                payload[at] = chance.choice((0, 1, 2, 7, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            else:
                payload[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(3))
        if is_harmless(type(request), bytes(payload)):
            twins.ask_raw(PATHS[type(request)][0], bytes(payload))
    twins.ask(HashKVRequest())


def is_harmless(kind: type, payload: bytes) -> bool:
    """Neither ends real etcd nor keeps the two from being comparable afterwards."""
    if kind is TxnRequest:
        try:
            return not ends_go(TxnRequest.FromString(payload))
        except Exception:
            return True
    # A lease of a random ID or for a short time; and upb takes a field of number 0 where there are no fields.
    return kind not in (LeaseGrantRequest, LeaseLeasesRequest)


@pytest.mark.parametrize(
    "path",
    [
        "KV/Range",
        "KV/RangeStream",
        "KV/Put",
        "KV/DeleteRange",
        "KV/Txn",
        "KV/Compact",
        "Watch/Watch",
        "Lease/LeaseGrant",
        "Lease/LeaseRevoke",
        "Lease/LeaseTimeToLive",
        "Lease/LeaseLeases",
        "Lease/LeaseKeepAlive",
        "Maintenance/Alarm",
        "Maintenance/Hash",
        "Maintenance/HashKV",
        "Maintenance/Status",
        "Cluster/MemberList",
    ],
)
def test_bytes_that_are_no_message_get_the_same_status(twins: Twins, path: str) -> None:
    for payload in (b"\x0a\x05ab", b"\xff", b"\x07", b"\x0b", b"\x0c", b"\x08" + b"\xff" * 11):
        status = twins.ask_raw(f"/etcdserverpb.{path}", payload)
        assert status.code is grpc.StatusCode.INTERNAL, payload


@pytest.mark.parametrize(
    ("method", "payload"),
    [("Check", b""), ("Check", b"\x0a\x01x"), ("Check", b"\xff"), ("List", b""), ("Nope", b"")],
)
def test_health_is_told_alike(twins: Twins, method: str, payload: bytes) -> None:
    twins.same(f"Health/{method}", *twins.exchange(f"/grpc.health.v1.Health/{method}", payload))


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize(
    "path",
    [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/RangeStream",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_requests_that_are_missing_or_too_many_get_the_same_status(
    twins: Twins, path: str, count: int
) -> None:
    payload = b"" if "grpc" in path else RangeRequest(key=b"a").SerializeToString()
    if "KeepAlive" in path:
        payload = b"\x08\x01"
    outcomes = []
    for server in (twins.ours, twins.theirs):
        call = server.channel.stream_stream(path)(iter([payload] * count), timeout=CALL_SECONDS)
        outcome = outcome_of(call, call)
        outcomes.append((outcome.code, outcome.details, len(outcome.bodies)))
    twins.same(f"{path} with {count} requests", *outcomes)


@pytest.mark.parametrize(
    "path",
    [
        "/etcdserverpb.KV/Nope",
        "/etcdserverpb.KV/",
        "/etcdserverpb.KV/Range/",
        "/etcdserverpb.Nope/Range",
        "/etcdserverpb.KV.Range",
        "/Range",
        "/a/b/c",
        "/x",
        "//",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Nope",
    ],
)
def test_unknown_methods_and_services_get_the_same_status(twins: Twins, path: str) -> None:
    assert twins.ask_raw(path, b"").code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("metadata", "is_well"),
    [
        ((("hasleader", "true"),), True),
        ((("hasleader", "false"),), True),
        ((("hasleader", ""),), True),
        ((("client-api-version", "3.7"),), True),
        ((("token", "bogus"),), True),
        ((("authorization", "Bearer bogus"),), True),
        ((("odd-bin", b"\x00\xff"),), True),
        ((("x" * 2000, "y" * 2000),), True),
    ],
)
def test_metadata_is_taken_alike(twins: Twins, metadata: tuple[tuple[str, str]], is_well: bool) -> None:
    payload = RangeRequest(key=b"a").SerializeToString()
    for path in ("KV/Range", "KV/RangeStream"):
        status = twins.ask_raw(f"/etcdserverpb.{path}", payload, metadata)
        assert (status.code is grpc.StatusCode.OK) is is_well


def nested(levels: int) -> bytes:
    """A put within so many transactions, as bytes: Python's protobuf cannot hold more than 50."""
    data = field_bytes(2, field_bytes(2, PutRequest(key=b"deep", value=b"down").SerializeToString()))
    for _ in range(levels - 1):
        data = field_bytes(2, field_bytes(4, data))
    return data


@pytest.mark.parametrize("levels", [2, 50, 51, 128, 129, 4999, 5001])
def test_transactions_nest_as_deep_in_both(twins: Twins, levels: int) -> None:
    twins.ask_raw("/etcdserverpb.KV/Txn", nested(levels))
    twins.ask(RangeRequest(key=b"deep"))


def test_transactions_nested_deep_are_still_there_after_a_restart(twins: Twins) -> None:
    assert twins.ask_raw("/etcdserverpb.KV/Txn", nested(128)).code is grpc.StatusCode.OK
    twins.restart()
    twins.ask(RangeRequest(key=b"deep"))
    twins.ask(HashKVRequest())


def test_a_lease_without_an_id_gets_one(twins: Twins) -> None:
    request = LeaseGrantRequest(TTL=100).SerializeToString()
    for outcome, server in zip(
        twins.exchange("/etcdserverpb.Lease/LeaseGrant", request), (twins.ours, twins.theirs), strict=True
    ):
        granted = LeaseGrantResponse.FromString(outcome.bodies[0])
        assert granted.ID > 0
        assert granted.TTL == 100
        server.call("Lease/LeaseRevoke", LeaseRevokeRequest(ID=granted.ID), LeaseGrantResponse)


@pytest.mark.parametrize("seconds", [1, 0, -1, 2, 3, -(1 << 63)])
def test_leases_of_a_short_time_are_granted_alike(twins: Twins, seconds: int) -> None:
    twins.ask(LeaseGrantRequest(ID=77, TTL=seconds))
    twins.ask(LeaseTimeToLiveRequest(ID=77))
    twins.ask(LeaseRevokeRequest(ID=77))


def test_alarms_are_raised_listed_and_cleared_alike(twins: Twins) -> None:
    chance = random.Random(FIRST_SEED)
    for member in (5, 6):
        twins.ask(AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=member, alarm=NONE))
        twins.ask(AlarmRequest(action=AlarmRequest.GET))
    for _ in range(60):
        action = chance.choice((AlarmRequest.GET, AlarmRequest.ACTIVATE, AlarmRequest.DEACTIVATE))
        alarm = chance.choice((NONE, NOSPACE, CORRUPT, 3, -1))
        twins.ask(AlarmRequest(action=action, memberID=chance.choice((0, 5, 6)), alarm=alarm))
        twins.ask(AlarmRequest(action=AlarmRequest.GET, alarm=chance.choice((NONE, NOSPACE, CORRUPT, 3))))
        twins.ask(PutRequest(key=b"alarmed"))
        twins.ask(LeaseGrantRequest(ID=8, TTL=1000))
        twins.ask(LeaseRevokeRequest(ID=8))
        twins.ask(DeleteRangeRequest(key=b"alarmed"))
        twins.ask(RangeRequest(key=b"alarmed"))
        twins.ask(TxnRequest(success=[RequestOp(request_range=RangeRequest(key=b"alarmed"))]))
        twins.ask(TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"alarmed"))]))
        twins.ask(TxnRequest(success=[RequestOp(request_delete_range=DeleteRangeRequest(key=b"alarmed"))]))
        twins.same("errors of Status", *map(status_errors, (twins.ours, twins.theirs)))
    for member in (0, 5, 6):
        for alarm in (NOSPACE, CORRUPT, 3, -1):
            twins.ask(AlarmRequest(action=AlarmRequest.DEACTIVATE, memberID=member, alarm=alarm))
    twins.ask(PutRequest(key=b"alarmed"))


def status_errors(server: Server) -> list[str]:
    status = server.call("Maintenance/Status", StatusRequest(), StatusResponse)
    assert isinstance(status, StatusResponse)
    return sorted(" ".join(text.split()) for text in status.errors)  # Go prints one or two spaces, by chance


DIFFERENT_IN_STATUS = (
    "header",
    "leader",
    "raftTerm",
    "raftIndex",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
)


def test_status_says_the_same(twins: Twins) -> None:
    answers = []
    for server in (twins.ours, twins.theirs):
        status = server.call("Maintenance/Status", StatusRequest(), StatusResponse)
        assert isinstance(status, StatusResponse)
        assert status.leader == status.header.member_id
        assert status.raftTerm == status.header.raft_term
        assert status.raftAppliedIndex == status.raftIndex
        assert 0 < status.dbSizeInUse <= status.dbSize
        assert status.raftIndex > 0
        for field in DIFFERENT_IN_STATUS:
            status.ClearField(field)
        answers.append(status)
    twins.same("Status", *answers)


def test_the_list_of_members_has_the_same_shape(twins: Twins) -> None:
    for linearizable in (False, True):
        answers = []
        for server in (twins.ours, twins.theirs):
            members = server.call(
                "Cluster/MemberList", MemberListRequest(linearizable=linearizable), MemberListResponse
            )
            assert isinstance(members, MemberListResponse)
            [member] = members.members
            assert members.header.member_id == member.ID
            assert list(member.peerURLs) == [server.peer_url]
            assert list(member.clientURLs) == [server.client_url]
            answers.append((member.name, member.isLearner, members.header.revision))
        twins.same("MemberList", *answers)
