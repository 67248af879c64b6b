"""Our codec writes what Go's writes. A Go program with etcd 3.7.1's own types made the hexadecimal strings.

Most telling are the proto2 messages: Go writes a field that is set to zero, and logs and peers rely on it.
"""

import pytest
from google.protobuf.message import Message

from pyetcd.proto import (
    kv_pb2,
    lease_pb2,
    metadata_pb2,
    raft_internal_pb2,
    raft_pb2,
    rpc_pb2,
    snap_pb2,
    wal_pb2,
)

MEMBER = 0x8E9E05C52164694D
CLUSTER = 0xCDF818194E3A8C32
KV = kv_pb2.KeyValue(key=b"foo", create_revision=2, mod_revision=70000, version=3, value=b"bar", lease=-1)

CASES: dict[str, tuple[Message, str]] = {
    "a record without data": (wal_pb2.Record(type=4, crc=0), "08041000"),
    "a record with data": (wal_pb2.Record(type=2, crc=0xDEADBEEF, data=b"x"), "080210effdb6f50d1a0178"),
    "a record with empty data": (wal_pb2.Record(type=2, crc=1, data=b""), "080210011a00"),
    "the first snapshot mark": (wal_pb2.Snapshot(index=0, term=0), "08001000"),
    "a snapshot mark": (
        wal_pb2.Snapshot(
            index=7, term=2, conf_state=raft_pb2.ConfState(voters=[1, 1 << 63], auto_leave=False)
        ),
        "080710021a0f080108808080808080808080012800",
    ),
    "a hard state": (raft_pb2.HardState(term=1, vote=0, commit=0), "080110001800"),
    "a new leader's first entry": (
        raft_pb2.Entry(Type=raft_pb2.EntryNormal, Term=2, Index=3),
        "080010021803",
    ),
    "an entry": (
        raft_pb2.Entry(Type=raft_pb2.EntryNormal, Term=2, Index=300, Data=b"abc"),
        "0800100218ac022203616263",
    ),
    "a configuration change": (
        raft_pb2.ConfChange(id=0, type=raft_pb2.ConfChangeAddNode, node_id=MEMBER, context=b"{}"),
        "0800100018cdd2918bd2b881cf8e0122027b7d",
    ),
    "a heartbeat": (
        raft_pb2.Message(
            type=raft_pb2.MsgHeartbeat, to=2, term=5, commit=0, reject=False, context=b"", **{"from": 1}
        ),
        "0808100218012005400050006200",
    ),
    "the frame of a snapshot": (snap_pb2.snapshot(crc=9, data=b"d"), "0809120164"),
    "the log's metadata": (
        metadata_pb2.Metadata(NodeID=MEMBER, ClusterID=CLUSTER),
        "08cdd2918bd2b881cf8e0110b298eaf1948386fccd01",
    ),
    "a key-value": (KV, "0a03666f6f100218f0a20420032a0362617230ffffffffffffffffff01"),
    "an event": (
        kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=kv_pb2.KeyValue(key=b"foo", mod_revision=9), prev_kv=KV),
        "080112070a03666f6f18091a1d0a03666f6f100218f0a20420032a0362617230ffffffffffffffffff01",
    ),
    "a proposed put": (
        raft_internal_pb2.InternalRaftRequest(
            header=raft_internal_pb2.RequestHeader(ID=MEMBER),
            put=rpc_pb2.PutRequest(key=b"foo", value=b"bar"),
        ),
        "220a0a03666f6f1203626172a2060b08cdd2918bd2b881cf8e01",
    ),
    "a proposed user": (
        raft_internal_pb2.InternalRaftRequest(
            header=raft_internal_pb2.RequestHeader(ID=5, username="root", auth_revision=4),
            auth_user_add=rpc_pb2.AuthUserAddRequest(name="u"),
        ),
        "a2060a08051204726f6f741804e244030a0175",
    ),
    "an answer's header": (
        rpc_pb2.RangeResponse(
            header=rpc_pb2.ResponseHeader(cluster_id=CLUSTER, member_id=MEMBER, revision=12345, raft_term=3)
        ),
        "0a1b08b298eaf1948386fccd0110cdd2918bd2b881cf8e0118b9602003",
    ),
    "a stored lease": (lease_pb2.Lease(ID=0x1234567890, TTL=60), "0890f1d9a2a302103c"),
}


@pytest.mark.parametrize("name", CASES)
def test_we_write_what_go_writes(name: str) -> None:
    message, written_by_go = CASES[name]
    assert message.SerializeToString().hex() == written_by_go


@pytest.mark.parametrize("name", CASES)
def test_we_read_what_go_wrote(name: str) -> None:
    message, written_by_go = CASES[name]
    assert type(message).FromString(bytes.fromhex(written_by_go)) == message


def test_a_comparison_is_read_whatever_the_order_of_its_fields() -> None:
    """Go puts the members of a oneof behind all other fields, protobuf's C core in order of number."""
    message = rpc_pb2.Compare.FromString(bytes.fromhex("1a016b820401002000"))
    assert message == rpc_pb2.Compare(key=b"k", version=0, range_end=b"\0")
    assert message.WhichOneof("target_union") == "version"
