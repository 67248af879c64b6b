"""What is served while the alarm CORRUPT is raised, by ours and by real etcd in one cluster: the same."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import grpc
from conftest import Start
from google.protobuf.message import Message
from members import Member
from programs import GO, OURS

from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVRequest,
    HashKVResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    MemberListRequest,
    MemberListResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

LEASE = 77
CORRUPT = "DATA_LOSS: etcdserver: corrupt cluster"
WRITE = RequestOp(request_put=PutRequest(key=b"a", value=b"txn"))
READ = RequestOp(request_range=RangeRequest(key=b"a"))

REFUSED: list[tuple[str, Message, type[Message]]] = [
    ("KV/Put", PutRequest(key=b"a", value=b"x"), PutResponse),
    ("KV/Put", PutRequest(key=b"a", value=b"x", lease=LEASE), PutResponse),
    ("KV/DeleteRange", DeleteRangeRequest(key=b"a"), DeleteRangeResponse),
    ("KV/Txn", TxnRequest(success=[WRITE]), TxnResponse),
    ("KV/Compact", CompactionRequest(revision=2), CompactionResponse),
    ("Lease/LeaseGrant", LeaseGrantRequest(TTL=60), LeaseGrantResponse),
    ("Lease/LeaseRevoke", LeaseRevokeRequest(ID=LEASE), LeaseRevokeResponse),
]
SERVED: list[tuple[str, Message, type[Message]]] = [
    ("KV/Range", RangeRequest(key=b"a"), RangeResponse),
    ("KV/Range", RangeRequest(key=b"a", serializable=True), RangeResponse),
    ("KV/Txn", TxnRequest(success=[READ]), TxnResponse),
    ("Lease/LeaseTimeToLive", LeaseTimeToLiveRequest(ID=LEASE, keys=True), LeaseTimeToLiveResponse),
    ("Lease/LeaseLeases", LeaseLeasesRequest(), LeaseLeasesResponse),
    ("Maintenance/HashKV", HashKVRequest(), HashKVResponse),
    ("Cluster/MemberList", MemberListRequest(linearizable=True), MemberListResponse),
]


def refusal(member: Member, path: str, request: Message, response: type[Message]) -> str:
    """Empty when it is served."""
    try:
        member.client.ask(path, request, response)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return ""


def health(member: Member) -> object:
    try:
        with urllib.request.urlopen(f"{member.client_url}/health", timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def alarm(member: Member, action: AlarmRequest.AlarmAction.ValueType, id: int) -> None:
    request = AlarmRequest(action=action, memberID=id, alarm=AlarmType.CORRUPT)
    member.client.ask("Maintenance/Alarm", request, AlarmResponse)


def test_the_same_is_refused_and_served_as_by_etcd(start: Start) -> None:
    cluster = start([OURS, GO], 3)
    ours, go = cluster.members[0], cluster.members[1]
    ours.client.put(b"a", b"kept")
    ours.client.ask("Lease/LeaseGrant", LeaseGrantRequest(ID=LEASE, TTL=600), LeaseGrantResponse)
    alarm(go, AlarmRequest.ACTIVATE, cluster.id_of(ours))
    cluster.wait_revision(2)

    for _ in range(2):
        for member in (ours, go):
            for call in REFUSED:
                assert refusal(member, *call) == CORRUPT, (member, call)
            for call in SERVED:
                assert refusal(member, *call) == "", (member, call)
            assert health(member) == {"health": "false", "reason": "ALARM CORRUPT"}
            [told] = [error for error in member.client.status().errors if "CORRUPT" in error]
            assert told == f"memberID:{cluster.id_of(ours)} alarm:CORRUPT"
            assert member.client.get(b"a") == b"kept"
        for member in (ours, go):  # the alarm outlives them
            member.stop()
            cluster.restart(member)
            cluster.leader()

    alarm(go, AlarmRequest.DEACTIVATE, cluster.id_of(ours))
    for member in (ours, go):
        for call in (*REFUSED[:4], *REFUSED[5:6]):
            assert refusal(member, *call) == "", (member, call)
    cluster.same_hashes()


def test_a_damage_whose_owner_is_not_known_is_everybodys(start: Start) -> None:
    cluster = start([OURS], 1)
    [member] = cluster.members
    alarm(member, AlarmRequest.ACTIVATE, 0)
    assert refusal(member, *REFUSED[0]) == CORRUPT
    alarm(member, AlarmRequest.DEACTIVATE, 0)
    assert refusal(member, *REFUSED[0]) == ""
