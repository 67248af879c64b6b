"""Entries that cannot be applied are applied as nothing, logged, and the member goes on; and starts again.

They are written into the log of a stopped member, as a leader of another version or a bug would have done.
In Go etcd some of them keep the member from ever starting again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import pytest
from crash_member import ROUNDS, SEED, Crashable
from crash_seed import Seed, append, edit, keys_of
from google.protobuf.message import Message

from pyetcd.proto.lease_pb2 import Lease
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.raft_pb2 import ConfChange
from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    LeaseCheckpointRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from pyetcd.raft import EntryType
from pyetcd.storage.schema import revision_key

COMPLAINTS = (
    "an entry is applied as nothing",
    "failed to apply request",
    "Validation on configuration change failed",
)
NORMAL, CHANGE, CHANGE_V2 = EntryType.EntryNormal, EntryType.EntryConfChange, EntryType.EntryConfChangeV2


@dataclass(frozen=True, slots=True)
class Odd:
    """The data of an entry; the key it leaves behind where it leaves any; whether its failure is logged."""

    data: bytes
    type: int = NORMAL
    leaves: tuple[bytes, bytes] | None = None
    fails: bool = True


def request(**fields: Message) -> bytes:
    """An InternalRaftRequest with this inner request."""
    envelope = InternalRaftRequest()
    envelope.header.ID = 0x7000_0000_0000_0000 + len(str(fields))
    for name, value in fields.items():
        getattr(envelope, name).CopyFrom(value)
        getattr(envelope, name).SetInParent()
    return envelope.SerializeToString()


def put(**fields: object) -> RequestOp:
    return RequestOp(request_put=PutRequest(**fields))  # type: ignore[arg-type]


def delete(**fields: object) -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(**fields))  # type: ignore[arg-type]


def txn(*operations: RequestOp, compare: Sequence[Compare] = ()) -> bytes:
    return request(txn=TxnRequest(compare=compare, success=operations, failure=operations))


HEADER_ONLY = request()
ODD = {
    "garbage": Odd(b"\xff\xfe\xfd" * 20),
    "one byte": Odd(b"\x08"),
    "text": Odd(b"hello, this is no protobuf"),
    "cut off": Odd(request(put=PutRequest(key=b"key", value=b"value" * 20))[:-7]),
    "a header and nothing else": Odd(HEADER_ONLY),
    "a request of unknown kind": Odd(HEADER_ONLY + bytes([0xA2, 0xBB, 0x01, 0x03]) + b"abc"),
    "a request whose bytes are garbage": Odd(HEADER_ONLY + b"\x22\x05\xff\xff\xff\xff\xff"),
    "authentication": Odd(HEADER_ONLY + bytes([0xC2, 0x3E, 0x00])),
    "a put without a key": Odd(request(put=PutRequest(value=b"v")), fails=False),
    "a put with a lease that is gone": Odd(request(put=PutRequest(key=b"a", value=b"v", lease=77))),
    "a put that takes over the value of no key": Odd(request(put=PutRequest(key=b"none", ignore_value=True))),
    "a put with a very long key": Odd(
        request(put=PutRequest(key=b"k" * 100_000, value=b"v")), leaves=(b"k" * 100_000, b"v"), fails=False
    ),
    "a delete without a key": Odd(request(delete_range=DeleteRangeRequest()), fails=False),
    "a range of a future revision": Odd(request(range=RangeRequest(key=b"a", revision=1 << 60))),
    "a range of a negative limit": Odd(
        request(range=RangeRequest(key=b"a", limit=-5, revision=-7)), fails=False
    ),
    "a from-key delete over a put that takes over the value": Odd(
        txn(delete(key=b"key-0", range_end=b"\0"), put(key=b"key-01000", ignore_value=True))
    ),
    "a from-key delete over a put that takes over the lease": Odd(
        txn(delete(key=b"key-0", range_end=b"\0"), put(key=b"key-01000", value=b"v", ignore_lease=True))
    ),
    "the same within a transaction in a transaction": Odd(
        txn(
            put(key=b"first", value=b"half"),
            RequestOp(
                request_txn=TxnRequest(
                    success=[delete(key=b"\0", range_end=b"\0"), put(key=b"key-01000", ignore_value=True)]
                )
            ),
        )
    ),
    "half of it can be done": Odd(txn(put(key=b"half", value=b"v"), put(key=b"a", value=b"v", lease=99))),
    "an operation without a request": Odd(txn(put(key=b"half", value=b"v"), RequestOp())),
    "the same key twice": Odd(
        txn(put(key=b"twice", value=b"1"), put(key=b"twice", value=b"2")),
        leaves=(b"twice", b"2"),
        fails=False,
    ),
    "a compare of unknown kind": Odd(
        txn(put(key=b"compared", value=b"v"), compare=[Compare(key=b"a", result=9, target=9)]),  # type: ignore[arg-type]
        leaves=(b"compared", b"v"),
        fails=False,
    ),
    "a compaction of the future": Odd(request(compaction=CompactionRequest(revision=1 << 60))),
    "a compaction of a negative revision": Odd(
        request(compaction=CompactionRequest(revision=-5)), fails=False
    ),
    "a lease without an ID": Odd(request(lease_grant=LeaseGrantRequest(TTL=5))),
    "a lease of a negative time": Odd(request(lease_grant=LeaseGrantRequest(ID=5, TTL=-5)), fails=False),
    "a lease of all time": Odd(request(lease_grant=LeaseGrantRequest(ID=6, TTL=(1 << 63) - 1))),
    "a lease that is gone is revoked": Odd(request(lease_revoke=LeaseRevokeRequest(ID=12345))),
    "a checkpoint of a lease that is gone": Odd(
        request(lease_checkpoint=LeaseCheckpointRequest(checkpoints=[{"ID": 9, "remaining_TTL": -1}])),
        fails=False,
    ),
    "an alarm of unknown kind": Odd(
        request(alarm=AlarmRequest(action=1, memberID=7, alarm=99)),  # type: ignore[arg-type]
        fails=False,
    ),
    "an alarm with an unknown action": Odd(request(alarm=AlarmRequest(action=99)), fails=False),  # type: ignore[arg-type]
    "a change of members that is garbage": Odd(b"\xff\xff\xff", CHANGE),
    "a change of members of unknown kind": Odd(b"\x08\x01\x10\x09\x18\x07", CHANGE),
    "a member is added with a context that is no JSON": Odd(
        ConfChange(type=0, node_id=7, context=b"no JSON").SerializeToString(),
        CHANGE,  # type: ignore[arg-type]
    ),
    "a member that is not there is removed": Odd(
        ConfChange(type=1, node_id=7).SerializeToString(),
        CHANGE,  # type: ignore[arg-type]
    ),
    "a joint change that is garbage": Odd(b"\xff\xff\xff", CHANGE_V2),
    "a joint change of nothing": Odd(b"", CHANGE_V2),
    "something of another message": Odd(Lease(ID=5, TTL=9).SerializeToString()),
}


@pytest.fixture
def placed(member: Crashable, seed: Seed) -> Crashable:
    seed.place(member.data)
    return member


def complaints(member: Crashable) -> int:
    lines = member.printed.text().splitlines()
    return sum(any(message in line for message in COMPLAINTS) for line in lines)


def test_entries_that_cannot_be_applied_are_applied_as_nothing_and_logged(
    placed: Crashable, seed: Seed
) -> None:
    names = list(ODD)
    random.Random(SEED).shuffle(names)
    entries: list[Odd] = []
    expected = dict(seed.late_keys)
    for name in names:
        good = Odd(request(put=PutRequest(key=b"good/" + name.encode(), value=b"1")))
        entries += [ODD[name], good]
        expected[b"good/" + name.encode()] = b"1"
        expected |= [ODD[name].leaves] if ODD[name].leaves else []
    append(placed.data, [(int(odd.type), odd.data) for odd in entries])
    placed.start()
    assert keys_of(placed) == expected
    revision = placed.put(b"a", b"1")
    hash = placed.hash()
    placed.stop()
    assert complaints(placed) == sum(odd.fails for odd in ODD.values())
    placed.start()
    assert complaints(placed) == 0, "they were applied, once"
    assert placed.hash() == hash
    assert placed.put(b"a", b"2") == revision + 1
    assert keys_of(placed) == {**expected, b"a": b"2"}


def test_any_bytes_whatever_in_the_log_leave_the_member_running(placed: Crashable, seed: Seed) -> None:
    rnd = random.Random(SEED)
    # Not those that may become an alarm: then there would be no more puts.
    plain = [odd.data for name, odd in ODD.items() if odd.type == NORMAL and "alarm" not in name]
    for number in range(2 * ROUNDS):
        entries = []
        for _ in range(300):
            data = bytearray(rnd.choice(plain)[:2000])
            for _ in range(rnd.choice([1, 1, 3, 20])):
                data[rnd.randrange(len(data))] = rnd.choice([0, 1, 0x7F, 0xFF, rnd.randrange(256)])
            entries.append(Odd(bytes(data)))
            entries.append(Odd(rnd.randbytes(rnd.randrange(1, 40)), CHANGE))
        append(placed.data, [(int(odd.type), odd.data) for odd in entries])
        placed.start()
        revision = placed.put(b"again", b"%d" % number)
        hash = placed.hash()
        placed.stop()
        placed.start()
        assert placed.hash() == hash
        assert placed.put(b"again", b"") == revision + 1
        placed.stop()


def test_a_compaction_in_the_log_behind_an_unfinished_one_is_taken_up(placed: Crashable) -> None:
    """The first one was accepted before the crash and not finished; the second only got into the log."""
    edit(placed.data, b"meta", b"scheduledCompactRev", revision_key(700))
    compaction = CompactionRequest(revision=900)
    append(placed.data, [(NORMAL, request(compaction=compaction))])
    placed.start()
    with pytest.raises(grpc.RpcError, match="required revision has been compacted"):
        placed.call("KV/Range", RangeRequest(key=b"a", revision=899), RangeResponse)
    placed.call("KV/Compact", CompactionRequest(revision=901, physical=True), CompactionResponse)
    assert placed.printed.text().count("finished scheduled compaction") == 3
