"""The small codec reads and writes what the generated one does."""

import subprocess
import sys

import pytest
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.proto import election_pb2, lite, lock_pb2, rpc_pb2
from pyetcd.proto.lite_tables import ENUMS, MESSAGES

GENERATED = (election_pb2, lock_pb2, rpc_pb2)  # which bring all others into the default pool
RANGES = {"int64": (-(1 << 63), (1 << 63) - 1), "uint64": (0, (1 << 64) - 1), "uint32": (0, (1 << 32) - 1)}


def value_of(field: lite.Field, depth: int) -> st.SearchStrategy[object]:
    """What a field may hold."""
    if field.kind == "message":
        return message_of(field.target, depth - 1)
    if field.kind == "bytes":
        return st.binary(max_size=20)
    if field.kind == "string":
        return st.text(max_size=10)
    if field.kind == "bool":
        return st.booleans()
    if field.kind == "enum":
        return st.sampled_from([int(part.split("=")[0]) for part in ENUMS[field.target].split(" ")])
    return st.integers(*RANGES[field.kind])


def message_of(name: str, depth: int = 3) -> st.SearchStrategy[lite.Message]:
    """Messages of a type; at most one field of a oneof is set."""
    plain: dict[str, st.SearchStrategy[object]] = {}
    choices: list[st.SearchStrategy[dict[str, object]]] = [st.just({})]
    for field in lite.fields(name):
        if field.kind == "message" and depth <= 0:
            continue
        value = value_of(field, depth)
        if field.of_oneof:
            choices.append(st.fixed_dictionaries({field.name: value}))
        else:
            plain[field.name] = st.lists(value, min_size=1, max_size=3) if field.repeated else value
    optional = st.fixed_dictionaries({}, optional=plain)
    return st.builds(lambda some, one: lite.Message(name, **some, **one), optional, st.one_of(choices))


def to_pb2(message: lite.Message) -> Message:
    """The same content in a generated message, field by field."""
    result = GetMessageClass(Default().FindMessageTypeByName(message.type))()
    for field in lite.fields(message.type):
        if not message.has(field.name):
            continue
        value = message.values[field.name]
        if field.kind == "message" and field.repeated:
            getattr(result, field.name).extend([to_pb2(item) for item in message.children(field.name)])
        elif field.kind == "message":
            getattr(result, field.name).CopyFrom(to_pb2(message.child(field.name)))
        elif field.repeated:
            getattr(result, field.name).extend(value)
        else:
            setattr(result, field.name, value)
    return result


def test_the_tables_have_all_they_name() -> None:
    fields = [field for name in MESSAGES for field in lite.fields(name)]
    assert {field.target for field in fields if field.kind == "message"} <= set(MESSAGES)
    assert {field.target for field in fields if field.kind == "enum"} <= set(ENUMS)


@given(data=st.data(), name=st.sampled_from(sorted(MESSAGES)))
def test_what_one_codec_writes_the_other_reads(data: st.DataObject, name: str) -> None:
    message = data.draw(message_of(name))
    twin = to_pb2(message)
    again = type(twin).FromString(message.encode())
    assert again == twin
    assert to_pb2(lite.decode(name, twin.SerializeToString())) == twin


@given(data=st.data())
def test_where_no_oneof_is_involved_the_bytes_are_equal(data: st.DataObject) -> None:
    message = data.draw(message_of("etcdserverpb.WatchResponse"))
    assert message.encode() == to_pb2(message).SerializeToString()


def test_a_comparison_is_written_in_gos_order() -> None:
    compare = lite.Message("etcdserverpb.Compare", key=b"k", version=0, range_end=b"\0")
    assert compare.encode().hex() == "1a016b820401002000"


@given(data=st.binary(max_size=60), name=st.sampled_from(sorted(MESSAGES)))
def test_garbage_is_read_or_malformed_but_nothing_else(data: bytes, name: str) -> None:
    try:
        lite.decode(name, data)
    except lite.Malformed:
        return


def test_merging_joins_lists_and_replaces_numbers() -> None:
    first = lite.Message(
        "etcdserverpb.RangeResponse", kvs=[lite.Message("mvccpb.KeyValue", key=b"a")], count=1
    )
    header = lite.Message("etcdserverpb.ResponseHeader", revision=7)
    last = lite.Message(
        "etcdserverpb.RangeResponse", header=header, kvs=[lite.Message("mvccpb.KeyValue", key=b"b")], count=2
    )
    first.merge(last)
    assert [kv.data("key") for kv in first.children("kvs")] == [b"a", b"b"]
    assert (first.number("count"), first.child("header").number("revision")) == (2, 7)


def test_an_unset_field_reads_as_its_zero() -> None:
    empty = lite.Message("etcdserverpb.StatusResponse")
    assert (empty.number("dbSize"), empty.text("version"), empty.flag("isLearner")) == (0, "", False)
    assert empty.texts("errors") == []
    assert empty.child("header").number("member_id") == 0
    assert not empty.has("header")


@pytest.mark.parametrize(("number", "name"), [(0, "NONE"), (2, "CORRUPT"), (9, "9")])
def test_an_enum_is_called_by_name_where_it_has_one(number: int, name: str) -> None:
    assert lite.enum_name("etcdserverpb.AlarmType", number) == name


def test_it_loads_without_the_big_codec() -> None:
    script = "import sys, pyetcd.proto.lite; print('google.protobuf' in sys.modules, 'typing' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.split()[0] == "False"
