"""Records by hand against the generated codec."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pyetcd.mvcc import record
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import RangeResponse
from pyetcd.proto.splice import AscendingVarint

POSITIVE = st.one_of(st.integers(1, 300), st.integers(1, 2**62))
KEYS = st.one_of(st.binary(max_size=5), st.binary(min_size=126, max_size=130))
VALUES = st.one_of(st.binary(max_size=5), st.binary(min_size=126, max_size=130))
LEASES = st.one_of(st.just(0), st.integers(1, 2**63 - 1), st.integers(-(2**63), -1))
SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)


@SETTINGS
@given(KEYS, POSITIVE, VALUES, LEASES)
def test_a_first_record_is_the_message_of_a_new_key(key: bytes, main: int, value: bytes, lease: int) -> None:
    message = KeyValue(key=key, create_revision=main, mod_revision=main, version=1, value=value, lease=lease)
    if key:
        assert record.first_record(key, AscendingVarint()(main), value, lease) == message.SerializeToString()


@SETTINGS
@given(KEYS, POSITIVE, POSITIVE, POSITIVE, VALUES, LEASES, VALUES, LEASES)
def test_the_next_record_keeps_key_and_creation_and_counts_the_version(
    key: bytes, created: int, mod: int, version: int, old: bytes, old_lease: int, value: bytes, lease: int
) -> None:
    before = KeyValue(
        key=key, create_revision=created, mod_revision=mod, version=version, value=old, lease=old_lease
    )
    main = mod + 1
    after = KeyValue(
        key=key, create_revision=created, mod_revision=main, version=version + 1, value=value, lease=lease
    )
    varint = AscendingVarint()(main)
    assert (
        record.next_record(before.SerializeToString(), key, varint, value, lease) == after.SerializeToString()
    )
    strange = before.SerializeToString() + b"\x7a\x00"  # an unknown field, as a later etcd might write
    assert record.next_record(b"\x7a\x00" + strange, key, varint, value, lease) == after.SerializeToString()


@SETTINGS
@given(KEYS, POSITIVE, POSITIVE, POSITIVE, VALUES, LEASES)
def test_parts_of_a_record_are_found_without_decoding_it(
    key: bytes, created: int, mod: int, version: int, value: bytes, lease: int
) -> None:
    message = KeyValue(
        key=key, create_revision=created, mod_revision=mod, version=version, value=value, lease=lease
    )
    data = message.SerializeToString()
    assert record.key_of(data) == key
    assert record.value_of(data) == value
    message.value = b""
    assert record.without_value(data, keep_lease=True) == message.SerializeToString()
    message.lease = 0
    assert record.without_value(data, keep_lease=False) == message.SerializeToString()


@SETTINGS
@given(KEYS, POSITIVE)
def test_a_tombstone_holds_the_key_and_its_event_the_revision(key: bytes, main: int) -> None:
    tombstone = record.tombstone_record(key)
    assert tombstone == KeyValue(key=key).SerializeToString()
    assert record.deleted_kv(tombstone, main) == KeyValue(key=key, mod_revision=main).SerializeToString()


def test_revisions_in_any_order_have_their_varints() -> None:
    varint = AscendingVarint()
    for main in (1, 127, 128, 16383, 16384, 16385, 2**21, 2**21 + 1, 2**40, 5, 2**62, 2**63 - 1, 16384):
        assert varint(main) == KeyValue(mod_revision=main).SerializeToString()[1:]


def test_small_records_are_joined_and_large_ones_passed_on() -> None:
    small = [KeyValue(key=b"k%d" % n, value=b"v").SerializeToString() for n in range(10)]
    joined = record.KVS.pack(small)
    assert len(joined) == 1
    assert RangeResponse.FromString(b"".join(joined)).kvs[9].key == b"k9"
    large = [KeyValue(key=b"k", value=b"v" * 200_000).SerializeToString() for _ in range(2)]
    assert any(part is large[1] for part in record.KVS.pack(large))
