"""What is served while an alarm is raised, by ours and by real etcd in one cluster: the same."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass

import grpc
import pytest
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
WRITE = RequestOp(request_put=PutRequest(key=b"a", value=b"txn"))
READ = RequestOp(request_range=RangeRequest(key=b"a"))
DELETE = RequestOp(request_delete_range=DeleteRangeRequest(key=b"nothing"))

Call = tuple[str, Message, type[Message]]

GROWING: list[Call] = [  # in this order while all is well, too
    ("KV/Put", PutRequest(key=b"a", value=b"x"), PutResponse),
    ("KV/Put", PutRequest(key=b"a", value=b"x", lease=LEASE), PutResponse),
    ("KV/Txn", TxnRequest(success=[WRITE]), TxnResponse),
    ("KV/Txn", TxnRequest(failure=[WRITE]), TxnResponse),
    ("Lease/LeaseGrant", LeaseGrantRequest(TTL=60), LeaseGrantResponse),
]
SHRINKING: list[Call] = [
    ("KV/DeleteRange", DeleteRangeRequest(key=b"nothing"), DeleteRangeResponse),
    ("KV/Txn", TxnRequest(success=[DELETE]), TxnResponse),
]
SERVED: list[Call] = [
    ("KV/Range", RangeRequest(key=b"a"), RangeResponse),
    ("KV/Range", RangeRequest(key=b"a", serializable=True), RangeResponse),
    ("KV/Txn", TxnRequest(success=[READ]), TxnResponse),
    ("Lease/LeaseTimeToLive", LeaseTimeToLiveRequest(ID=LEASE, keys=True), LeaseTimeToLiveResponse),
    ("Lease/LeaseLeases", LeaseLeasesRequest(), LeaseLeasesResponse),
    ("Maintenance/HashKV", HashKVRequest(), HashKVResponse),
    ("Cluster/MemberList", MemberListRequest(linearizable=True), MemberListResponse),
]
COMPACT: Call = ("KV/Compact", CompactionRequest(revision=2), CompactionResponse)
REVOKE: Call = ("Lease/LeaseRevoke", LeaseRevokeRequest(ID=LEASE), LeaseRevokeResponse)


@dataclass(frozen=True)
class Alarm:
    """What an alarm refuses, and with what text."""

    type: AlarmType.ValueType
    refused: list[Call]
    served: list[Call]
    text: str

    @property
    def name(self) -> str:
        return AlarmType.Name(self.type)


CORRUPT = Alarm(
    AlarmType.CORRUPT,
    [*GROWING, *SHRINKING, COMPACT, REVOKE],
    SERVED,
    "DATA_LOSS: etcdserver: corrupt cluster",
)
NOSPACE = Alarm(
    AlarmType.NOSPACE,
    GROWING,
    [*SERVED, *SHRINKING],
    "RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded",
)


def refusal(member: Member, path: str, request: Message, response: type[Message]) -> str:
    """Empty when it is served."""
    try:
        member.client.ask(path, request, response)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return ""


def page(member: Member, path: str) -> str:
    """Whatever the status."""
    try:
        with urllib.request.urlopen(f"{member.client_url}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


def alarm_metrics(member: Member) -> list[str]:
    lines = page(member, "/metrics").splitlines()
    return [line for line in lines if line.startswith("etcd_debugging_server_alarms")]


def change(member: Member, action: AlarmRequest.AlarmAction.ValueType, alarm: Alarm, id: int) -> None:
    request = AlarmRequest(action=action, memberID=id, alarm=alarm.type)
    member.client.ask("Maintenance/Alarm", request, AlarmResponse)


@pytest.mark.parametrize("alarm", [CORRUPT, NOSPACE], ids=["corrupt", "nospace"])
def test_the_same_is_refused_and_served_as_by_etcd(start: Start, alarm: Alarm) -> None:
    cluster = start([OURS, GO], 3)
    ours, go = cluster.members[0], cluster.members[1]
    ours.client.put(b"a", b"kept")
    ours.client.ask("Lease/LeaseGrant", LeaseGrantRequest(ID=LEASE, TTL=600), LeaseGrantResponse)
    id = cluster.id_of(ours)
    change(go, AlarmRequest.ACTIVATE, alarm, id)

    raised = f'etcd_debugging_server_alarms{{alarm_type="{alarm.name}",server_id="{id:x}"}}'
    assert alarm_metrics(go) == [f"{raised} 1"]
    for _ in range(2):
        for member in (ours, go):
            for call in alarm.refused:
                assert refusal(member, *call) == alarm.text, (member, call)
            for call in alarm.served:
                assert refusal(member, *call) == "", (member, call)
            assert json.loads(page(member, "/health")) == {"health": "false", "reason": f"ALARM {alarm.name}"}
            told = member.client.status().errors
            if member is go:  # what it puts between fields, one space or two, depends on the build of it
                told = [" ".join(error.split()) for error in told]
            assert f"memberID:{id} alarm:{alarm.name}" in told
            assert member.client.get(b"a") == b"kept"
        assert alarm_metrics(ours) == [f"{raised} 1"]
        for member in (ours, go):  # the alarm outlives them
            member.stop()
            cluster.restart(member)
            cluster.leader()

    change(go, AlarmRequest.DEACTIVATE, alarm, id)
    for member in (ours, go):
        for call in (*GROWING, *SHRINKING):
            assert refusal(member, *call) == "", (member, call)
    assert alarm_metrics(ours) == [f"{raised} 0"]  # etcd, which forgets at a restart, says -1
    for call in (COMPACT, REVOKE):
        assert refusal(ours, *call) == "", call
    cluster.same_hashes()


def test_a_full_database_is_still_compacted_and_loses_leases(start: Start) -> None:
    cluster = start([OURS], 1)
    [member] = cluster.members
    member.client.ask("Lease/LeaseGrant", LeaseGrantRequest(ID=LEASE, TTL=600), LeaseGrantResponse)
    member.client.put(b"a", b"x")
    change(member, AlarmRequest.ACTIVATE, NOSPACE, cluster.id_of(member))
    for call in (COMPACT, REVOKE):
        assert refusal(member, *call) == "", call


def test_a_damage_whose_owner_is_not_known_is_everybodys(start: Start) -> None:
    cluster = start([OURS], 1)
    [member] = cluster.members
    change(member, AlarmRequest.ACTIVATE, CORRUPT, 0)
    assert refusal(member, *GROWING[0]) == CORRUPT.text
    change(member, AlarmRequest.DEACTIVATE, CORRUPT, 0)
    assert refusal(member, *GROWING[0]) == ""
