"""What Go's protobuf library takes and refuses, we take and refuse; as found by asking real etcd 3.7.1."""

from __future__ import annotations

import random
import re

import pytest
from google.protobuf.message import DecodeError, Message

from pyetcd.proto import strict
from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
)
from pyetcd.proto.splice import field_bytes, varint

TOO_BIG = b"\xff" * 9 + b"\x02"  # a varint of 65 bits
LONG_TAG = b"\x88\x80\x80\x80\x80\x80\x80\x80\x80\x00\x01"  # field 1, written in ten bytes; 1


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (CompactionRequest, b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02\x10\x01"),
        (CompactionRequest, b"P\x80\x80\x80\x80\x80\x80\x80\x80\x80\x7f"),  # in an unknown field
        (PutRequest, b"\n\x01a\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),  # negative to upb
        (PutRequest, b"\n\x01a\x08" + TOO_BIG),  # in a field of another type
        (RangeRequest, b"\n\x01\x00\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x7f"),
        (TxnRequest, field_bytes(2, field_bytes(2, b"\n\x01a\x18" + TOO_BIG))),
        (TxnRequest, field_bytes(2, field_bytes(4, field_bytes(2, b"\x50" + TOO_BIG)))),
        (TxnRequest, b"\x53\x08" + TOO_BIG + b"\x54"),  # in an unknown group
        (WatchRequest, field_bytes(1, field_bytes(5, TOO_BIG))),  # packed
    ],
)
def test_a_varint_of_more_than_64_bits_is_refused_though_upb_takes_it(
    kind: type[Message], payload: bytes
) -> None:
    kind.FromString(payload)
    with pytest.raises(DecodeError):
        strict.parse(kind, payload)
    with pytest.raises(DecodeError):
        strict.loggable(kind.FromString(payload), payload)


@pytest.mark.parametrize(
    ("kind", "payload", "read"),
    [
        (CompactionRequest, LONG_TAG, CompactionRequest(revision=1)),
        (CompactionRequest, LONG_TAG + b"\x10\x01", CompactionRequest(revision=1, physical=True)),
        (PutRequest, b"\n\x02a\x00" + LONG_TAG, PutRequest(key=b"a\0")),  # key is no varint: unknown
        (TxnRequest, field_bytes(1, LONG_TAG), TxnRequest(compare=[Compare(result=Compare.GREATER)])),
        (
            WatchRequest,
            field_bytes(1, field_bytes(5, b"\x01\x00") + LONG_TAG),
            WatchRequest(create_request=WatchCreateRequest(filters=[1, 0])),
        ),
    ],
)
def test_a_tag_longer_than_it_must_be_is_taken_though_upb_refuses_it(
    kind: type[Message], payload: bytes, read: Message
) -> None:
    with pytest.raises(DecodeError):
        kind.FromString(payload)
    assert strict.parse(kind, payload) == read


@pytest.mark.parametrize(
    "payload",
    [b"\x0a\x05ab", b"\xff", b"\x07", b"\x0b", b"\x0b\x14", b"\x00\x01", b"\x08" + b"\xff" * 11, b"\x09\x01"],
)
def test_what_both_refuse_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        strict.parse(PutRequest, payload)


REQUESTS: list[Message] = [
    PutRequest(key=b"k", value=b"\xff" * 300, lease=-1, prev_kv=True),
    RangeRequest(key=b"k", range_end=b"\0", limit=1 << 62, revision=-5, sort_order=-3, sort_target=99),
    DeleteRangeRequest(key=b"k", prev_kv=True),
    LeaseGrantRequest(TTL=-(1 << 63), ID=(1 << 63) - 1),
    AlarmRequest(memberID=(1 << 64) - 1, action=-1),
    WatchRequest(create_request=WatchCreateRequest(key=b"k", filters=[0, 1, -1], watch_id=-9)),
    TxnRequest(
        compare=[Compare(key=b"k", target=Compare.MOD, mod_revision=-1)],
        success=[RequestOp(request_txn=TxnRequest(failure=[RequestOp()])), RequestOp()],
    ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_as_clients_write_it_is_logged_as_it_came(request_: Message) -> None:
    payload = request_.SerializeToString()
    assert strict.loggable(type(request_).FromString(payload), payload) == payload
    assert type(request_).FromString(strict.canonical(type(request_), payload)) == request_


def test_unknown_fields_and_long_varints_do_not_get_into_the_log() -> None:
    plain = PutRequest(key=b"k", lease=5)
    payload = b"\x18\x85\x80\x80\x00" + b"\n\x01k" + b"\x7b\x08\x01\x7c" + b"\x78" + varint(1 << 63)
    request = PutRequest.FromString(payload)
    assert strict.loggable(request, payload) == plain.SerializeToString()
    assert request == plain


def test_looking_closely_ends_early() -> None:
    for hostile in (TOO_BIG[:9] + b"\x50\x01" * 700_000, b"\x53" * 1_400_000, LONG_TAG * 100_000):
        with pytest.raises(DecodeError):
            strict.parse(PutRequest, hostile)


@pytest.mark.parametrize("seed", range(5))
def test_changed_at_random_it_is_refused_or_read_as_upb_reads_it(seed: int) -> None:
    """Only what is listed above is read in another way."""
    chance = random.Random(seed)
    for _ in range(400):
        request = chance.choice(REQUESTS)
        payload = bytearray(request.SerializeToString())
        for _ in range(chance.randrange(1, 4)):
            payload[chance.randrange(len(payload))] = chance.randrange(0x80)
        data, kind = bytes(payload), type(request)
        if re.search(rb"[\x80-\xff]{9}", data):
            continue  # perhaps a number only Go refuses
        try:
            read = kind.FromString(data)
        except DecodeError:
            with pytest.raises(DecodeError):
                strict.parse(kind, data)
            continue
        read.DiscardUnknownFields()
        assert kind.FromString(strict.canonical(kind, data)) == read
        strict.check(read, data)
