"""The bytes spliced by hand are the bytes of the generated codec, for whatever numbers and payloads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.proto import kv_pb2, raft_internal_pb2, rpc_pb2, splice

INT64 = st.one_of(st.integers(0, 1 << 30), st.integers(-(1 << 63), (1 << 63) - 1))
UINT64 = st.integers(0, (1 << 64) - 1)
PAYLOAD = st.one_of(st.binary(max_size=40), st.integers(100, 40_000).map(bytes))


@given(n=INT64)
def test_a_varint_reads_back(n: int) -> None:
    encoded = splice.varint(n)
    value, end = splice.read_varint(b"\xff" + encoded + b"\xff", 1)
    assert (splice.signed(value), end) == (n, 1 + len(encoded))


@pytest.mark.parametrize("bits", range(65))
def test_a_varint_is_as_the_codec_writes_it_on_every_boundary_of_length(bits: int) -> None:
    for n in ((1 << bits) - 1, 1 << bits if bits < 64 else 0):
        request = rpc_pb2.MemberRemoveRequest(ID=n)
        assert splice.field_varint(1, n) == request.SerializeToString()


@given(key=PAYLOAD, create=INT64, mod=INT64, version=INT64, value=PAYLOAD, lease=INT64)
def test_a_key_value_is_as_the_codec_writes_it(
    key: bytes, create: int, mod: int, version: int, value: bytes, lease: int
) -> None:
    message = kv_pb2.KeyValue(
        key=key, create_revision=create, mod_revision=mod, version=version, value=value, lease=lease
    )
    encoded = splice.key_value(key, create, mod, version, value, lease)
    assert encoded == message.SerializeToString()
    view = splice.view(encoded)
    assert encoded[view.key_start : view.key_end] == key
    assert encoded[view.value_start : view.value_end] == value
    assert (view.create_revision, view.mod_revision, view.version, view.lease) == (
        create,
        mod,
        version,
        lease,
    )


@given(cluster=UINT64, member=UINT64, revision=INT64, term=UINT64)
def test_a_response_header_is_field_1_of_any_answer(
    cluster: int, member: int, revision: int, term: int
) -> None:
    header = rpc_pb2.ResponseHeader(cluster_id=cluster, member_id=member, revision=revision, raft_term=term)
    encoded = splice.response_header(cluster, member, revision, term)
    assert encoded == rpc_pb2.PutResponse(header=header).SerializeToString()


@given(
    cluster=UINT64, member=UINT64, answers=st.lists(st.tuples(INT64 | st.integers(-1, 3), UINT64), max_size=5)
)
def test_headers_of_one_member_are_the_same_made_sooner(
    cluster: int, member: int, answers: list[tuple[int, int]]
) -> None:
    headers = splice.ResponseHeaders(cluster, member)
    for revision, term in [*answers, *answers]:
        assert headers(revision, term) == splice.response_header(cluster, member, revision, term)


@given(deleted=st.booleans(), key=PAYLOAD, previous=st.one_of(st.none(), PAYLOAD))
def test_an_event_is_as_the_codec_writes_it(deleted: bool, key: bytes, previous: bytes | None) -> None:
    kv = kv_pb2.KeyValue(key=key, mod_revision=7)
    message = kv_pb2.Event(type=kv_pb2.Event.DELETE if deleted else kv_pb2.Event.PUT, kv=kv)
    prev_kv = None
    if previous is not None:
        message.prev_kv.CopyFrom(kv_pb2.KeyValue(key=key, value=previous))
        prev_kv = message.prev_kv.SerializeToString()
    assert splice.event(deleted, kv.SerializeToString(), prev_kv) == message.SerializeToString()


@given(request_id=UINT64, key=PAYLOAD)
def test_an_internal_request_is_as_the_codec_writes_it(request_id: int, key: bytes) -> None:
    header = raft_internal_pb2.RequestHeader(ID=request_id)
    put = rpc_pb2.PutRequest(key=key)
    message = raft_internal_pb2.InternalRaftRequest(header=header, put=put)
    assert splice.internal_request(request_id, 4, put.SerializeToString()) == message.SerializeToString()
    role = rpc_pb2.AuthRoleRevokePermissionRequest(key=key)
    message = raft_internal_pb2.InternalRaftRequest(header=header, auth_role_revoke_permission=role)
    assert splice.internal_request(request_id, 1204, role.SerializeToString()) == message.SerializeToString()


@given(data=st.binary(max_size=60))
def test_garbage_is_malformed_or_read_as_the_codec_reads_it(data: bytes) -> None:
    try:
        view = splice.view(data)
    except splice.Malformed:
        return
    message = kv_pb2.KeyValue()
    try:
        message.ParseFromString(data)
    except Exception:
        return  # the codec refuses a few things more, such as an overlong tag
    assert data[view.key_start : view.key_end] == message.key
    assert (view.create_revision, view.version, view.lease) == (
        message.create_revision,
        message.version,
        message.lease,
    )


def test_a_message_cut_anywhere_is_malformed_or_shorter() -> None:
    whole = splice.key_value(b"k" * 200, 3, 1 << 40, 2, b"v" * 300, 9)
    for length in range(len(whole)):
        cut = whole[:length]
        try:
            fields = list(splice.fields(cut))
        except splice.Malformed:
            with pytest.raises(splice.Malformed):
                splice.view(cut)
            continue
        assert fields == list(splice.fields(whole))[: len(fields)]


def test_unknown_fields_are_skipped() -> None:
    known = splice.key_value(b"k", 1, 2, 1, b"v", 0)
    unknown = splice.field_bytes(9, b"?") + splice.field_varint(10, 5) + b"\x5d1234" + b"\x6112345678"
    view = splice.view(unknown + known)
    assert (view.create_revision, view.mod_revision, view.version) == (1, 2, 1)


@pytest.mark.parametrize("data", [b"\x0b", b"\x07", b"\x00\x00", b"\x0a\x05abcd", b"\x0d123", b"\xff" * 11])
def test_what_is_no_message_is_malformed(data: bytes) -> None:
    with pytest.raises(splice.Malformed):
        list(splice.fields(data))
