"""Puts read without protobuf: what is read is what protobuf reads, and whatever else is left to protobuf."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from pyetcd.proto.plain_put import PlainPut, plain_put, plain_put_of_entry
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from pyetcd.proto.rpc_pb2 import PutRequest, RangeRequest
from pyetcd.proto.splice import internal_request, varint

PUT = InternalRaftRequest.PUT_FIELD_NUMBER
MAX_INT64 = (1 << 63) - 1

keys = st.one_of(st.binary(max_size=300), st.integers(126, 130).map(bytes), st.just(bytes(20_000)))
leases = st.integers(0, MAX_INT64)


def parts(put: PlainPut | None) -> tuple[bytes, bytes, int] | None:
    return None if put is None else (put.key, put.value, put.lease)


def read(data: bytes) -> tuple[bytes, bytes, int] | None:
    return parts(plain_put(data, 0, len(data)))


@settings(max_examples=300)
@given(key=keys, value=keys, lease=leases, id=st.integers(0, (1 << 64) - 1), before=st.binary(max_size=5))
def test_a_plain_put_is_read_from_a_request_and_from_entries_of_ours_and_of_gos(
    key: bytes, value: bytes, lease: int, id: int, before: bytes
) -> None:
    request = PutRequest(key=key, value=value, lease=lease)
    encoded = request.SerializeToString()
    assert read(encoded) == (key, value, lease)
    assert parts(plain_put(before + encoded, len(before), len(before) + len(encoded))) == (key, value, lease)
    ours = internal_request(id, PUT, encoded)
    header = ours[-(len(ours) - 1 - len(varint(len(encoded))) - len(encoded)) :]
    assert ours.endswith(header)
    for entry in (ours, header + ours[: -len(header)]):
        assert InternalRaftRequest.FromString(entry).put == request
        assert parts(plain_put_of_entry(entry)) == (key, value, lease)
    put = plain_put(encoded, 0, len(encoded))
    assert put is not None
    assert put.message() == request


@pytest.mark.parametrize(
    "data",
    [
        PutRequest(key=b"k", prev_kv=True).SerializeToString(),
        PutRequest(key=b"k", ignore_value=True).SerializeToString(),
        PutRequest(key=b"k", ignore_lease=True).SerializeToString(),
        PutRequest(key=b"k", lease=-1).SerializeToString(),
        b"\x12\x01v\x0a\x01k",  # out of order
        b"\x0a\x01k\x0a\x01l",  # twice
        b"\x0a\x01k\x18\x05\x18\x06",
        b"\x0a\x81\x00k",  # a length longer than it needs to be
        b"\x0a\x01k\x18\x85\x00",
        b"\x0a\x02k",  # cut off
        b"\x0a",
        b"\x0a\x80",
        b"\x0a\x01k\x18",
        b"\x0a\x01k\x18\x80",
        b"\x0a\x01k\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a\x01k\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x01k\x3a\x00",  # an unknown field
        b"\x0b",
    ],
)
def test_anything_else_is_left_to_protobuf(data: bytes) -> None:
    assert read(data) is None


def test_an_entry_that_says_more_is_left_to_protobuf() -> None:
    put = PutRequest(key=b"k", value=b"v")
    for entry in (
        InternalRaftRequest(header=RequestHeader(username="r"), put=put),
        InternalRaftRequest(header=RequestHeader(ID=7, username="ü"), put=put),
        InternalRaftRequest(header=RequestHeader(ID=7, username="r" * 200), put=put),
        InternalRaftRequest(ID=7, put=put),
        InternalRaftRequest(put=put, range=RangeRequest(key=b"k")),
        InternalRaftRequest(range=RangeRequest(key=b"k")),
        InternalRaftRequest(put=put),
        InternalRaftRequest(),
        InternalRaftRequest(header=RequestHeader(ID=7)),
    ):
        assert plain_put_of_entry(entry.SerializeToString()) is None


@pytest.mark.parametrize(
    "header",
    [
        RequestHeader(ID=7, username="root"),
        RequestHeader(ID=7, auth_revision=2),
        RequestHeader(ID=1 << 63, username="u" * 90, auth_revision=1 << 40),
    ],
)
def test_an_entry_that_names_its_caller_is_read_wherever_the_header_stands(header: RequestHeader) -> None:
    put = PutRequest(key=b"k", value=b"v", lease=3)
    heads = InternalRaftRequest(header=header).SerializeToString()
    puts = InternalRaftRequest(put=put).SerializeToString()
    for data in (heads + puts, puts + heads):
        plain = plain_put_of_entry(data)
        assert plain is not None
        assert (plain.key, plain.value, plain.lease) == (b"k", b"v", 3)
        for cut in range(len(data)):
            torn = plain_put_of_entry(data[:cut])
            assert torn is None or puts == data[:cut]


def test_of_damaged_entries_only_what_protobuf_reads_alike_is_read() -> None:
    rng = random.Random(11)
    found = 0
    for _ in range(30_000):
        put = PutRequest(key=rng.randbytes(rng.randrange(4)), value=rng.randbytes(rng.randrange(140)))
        put.lease = rng.choice((0, 0, 5, 300, MAX_INT64))
        data = bytearray(internal_request(rng.choice((0, 9, 1 << 63)), PUT, put.SerializeToString()))
        if rng.random() < 0.5:  # the header first
            split = data.rfind(b"\xa2\x06")
            data = data[split:] + data[:split]
        for _ in range(rng.randrange(3)):
            what, at = rng.randrange(3), rng.randrange(len(data) + 1)
            if what == 0:
                data[at:at] = rng.randbytes(1)
            elif what == 1:
                del data[at : at + 1]
            elif at < len(data):
                data[at] = rng.choice((data[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
        read = plain_put_of_entry(bytes(data))
        if read is None:
            continue
        found += 1
        try:
            parsed = InternalRaftRequest.FromString(bytes(data))
        except DecodeError:
            raise AssertionError(f"protobuf refuses {bytes(data).hex()}") from None
        assert parsed.put == read.message()
        parsed.ClearField("put")
        parsed.header.ClearField("ID")
        parsed.ClearField("header")
        assert parsed == InternalRaftRequest()
    assert 10_000 < found < 25_000


@pytest.mark.parametrize("header", [b"", b"\x08", b"\x08\x80", b"\x08\x07", b"\x08\x87\x01", b"\x08\x07\x08"])
def test_headers_of_any_length_are_read_or_left_alone(header: bytes) -> None:
    put = PutRequest(key=b"k", value=b"v").SerializeToString()
    head, body = b"\xa2\x06" + bytes((len(header),)) + header, b"\x22" + bytes((len(put),)) + put
    expected = (b"k", b"v", 0) if header in (b"", b"\x08\x07", b"\x08\x87\x01") else None
    for entry in (head + body, body + head):
        assert parts(plain_put_of_entry(entry)) == expected
        for end in range(len(entry)):
            assert plain_put_of_entry(entry[:end]) is None


def test_any_bytes_whatever_are_read_or_left_alone() -> None:
    rng = random.Random(12)
    for _ in range(100_000):
        start = rng.choice((b"\xa2\x06", b"\x22", b"\x0a", b""))
        data = start + bytes(
            rng.choice((0, 1, 2, 3, 8, 0x22, 0xA2, 6, 0x80, rng.randrange(256))) for _ in range(8)
        )
        for read in (plain_put_of_entry(data), plain_put(data, 0, len(data))):
            assert read is None or isinstance(read, PlainPut)
