"""Bytes on the wire and in the log, against the generated classes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyetcd.proto import raft_pb2 as pb
from pyetcd.proto import splice
from pyetcd.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    InvalidMessage,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
    Transition,
    codec,
)

numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
entries = st.builds(Entry, term=numbers, index=numbers, type=st.integers(0, 2), data=st.binary(max_size=300))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(entries)
def test_an_entry_is_written_as_protobuf_writes_it_and_its_size_is_known(entry: Entry) -> None:
    generated = pb.Entry(Term=entry.term, Index=entry.index)
    if entry.type:
        generated.Type = pb.EntryType.Value(EntryType(entry.type).name)
    if entry.data:
        generated.Data = entry.data
    encoded = codec.encode_entry(entry)
    assert encoded == generated.SerializeToString()
    assert entry.size == len(encoded)
    assert codec.decode_entry(encoded) == entry


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    type=st.sampled_from(MessageType),
    values=st.lists(numbers, min_size=8, max_size=8),
    several=st.lists(entries, max_size=4),
    reject=st.booleans(),
    context=st.binary(max_size=20),
)
def test_a_message_comes_back_as_it_went(
    type: MessageType, values: list[int], several: list[Entry], reject: bool, context: bytes
) -> None:
    to, from_, term, log_term, index, commit, vote, hint = values
    members = ConfState((1, 2), (3,), (4, 5), (4,), True)
    message = Message(
        type,
        to=to,
        from_=from_,
        term=term,
        log_term=log_term,
        index=index,
        entries=several,
        commit=commit,
        vote=vote,
        snapshot=Snapshot(SnapshotMetadata(index, term, members), context) if reject else None,
        reject=reject,
        reject_hint=hint,
        context=context,
    )
    encoded = codec.encode_message(message)
    assert codec.decode_message(encoded) == message
    parsed = pb.Message.FromString(encoded)
    assert (parsed.to, getattr(parsed, "from"), len(parsed.entries)) == (to, from_, len(several))
    for name in ("type", "to", "from", "term", "logTerm", "index", "commit", "reject", "rejectHint"):
        assert parsed.HasField(name), "as etcd writes it, zero or not"
    for name, value in (("vote", vote), ("context", context), ("snapshot", message.snapshot)):
        assert parsed.HasField(name) == bool(value)
    assert sorted(parsed.SerializeToString()) == sorted(encoded), "but for the place of the entries"
    if not several:
        assert parsed.SerializeToString() == encoded


def test_an_entrys_data_is_not_copied_into_the_parts_of_a_message() -> None:
    entry = Entry(1, 2, 0, b"x" * 1000)
    parts = codec.encode_message_parts(Message(MessageType.MsgApp, entries=[entry]))
    assert any(part is entry.data for part in parts)


@pytest.mark.parametrize(
    "change",
    [
        ConfChange(ConfChangeType.ConfChangeAddNode, 2**64 - 1, b"context", 77),
        ConfChange(ConfChangeType.ConfChangeRemoveNode, 1),
        ConfChangeV2(),
        ConfChangeV2(
            Transition.ConfChangeTransitionJointExplicit,
            (
                ConfChangeSingle(ConfChangeType.ConfChangeAddLearnerNode, 4),
                ConfChangeSingle(ConfChangeType.ConfChangeUpdateNode, 5),
            ),
            b"context",
        ),
    ],
)
def test_a_membership_change_comes_back_as_it_went(change: ConfChange | ConfChangeV2) -> None:
    type, data = codec.encode_conf_change(change)
    assert codec.conf_change_of(Entry(1, 1, type, data)) == change


def test_leaving_a_joint_configuration_is_an_entry_without_data() -> None:
    assert codec.encode_conf_change(None) == (EntryType.EntryConfChangeV2, b"")
    assert codec.conf_change_of(Entry(1, 1, EntryType.EntryConfChangeV2, b"")).as_v2().leaves_joint()


def test_what_cannot_be_read_is_refused() -> None:
    for type, data in ((0, b""), (1, b"\xff"), (1, b"\x10\x63"), (2, b"\x08\x63")):
        with pytest.raises(InvalidMessage):
            codec.conf_change_of(Entry(1, 1, type, data))
    with pytest.raises(InvalidMessage):
        codec.decode_message(b"\xff\xff")
    with pytest.raises(InvalidMessage, match="unknown message type"):
        codec.decode_message(b"\x08\x63")


def test_states_come_back_as_they_went() -> None:
    hard = HardState(3, 2**64 - 1, 0)
    assert codec.decode_hard_state(codec.encode_hard_state(hard)) == hard
    assert codec.encode_hard_state(hard) == pb.HardState(term=3, vote=2**64 - 1, commit=0).SerializeToString()
    members = ConfState((3, 1, 2), (), (9,), (), False)
    assert codec.decode_conf_state(codec.encode_conf_state(members)) == members
    snapshot = Snapshot(SnapshotMetadata(7, 6, members), b"data")
    assert codec.decode_snapshot(codec.encode_snapshot(snapshot)) == snapshot


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3, 4, 5, 6, 8, 10, 11, 13, 16, 31]),
            st.one_of(st.sampled_from([0, 1, 4, 8, 9, 23, 24, 127, 128]), st.integers(0, (1 << 64) - 1)),
        ),
        max_size=14,
    ),
    cut=st.integers(0, 3),
)
def test_a_message_of_numbers_is_read_as_protobuf_reads_it(fields: list[tuple[int, int]], cut: int) -> None:
    """In any order, also twice, with numbers that are not ours, and cut off."""
    data = b"".join(splice.varint(number << 3) + splice.varint(value) for number, value in fields)
    data = data[: len(data) - cut]
    try:
        message = codec.decode_message(data)
    except InvalidMessage:
        with pytest.raises(InvalidMessage):
            decode_slowly(data)
        return
    assert message == decode_slowly(data)


def decode_slowly(data: bytes) -> Message:
    """With an unknown field in front, which sends it the ordinary way."""
    return codec.decode_message(b"\x7a\x00" + data)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(several=st.lists(entries, max_size=4), context=st.binary(max_size=20), data=st.data())
def test_damaged_messages_are_read_as_protobuf_reads_them(
    several: list[Entry], context: bytes, data: st.DataObject
) -> None:
    message = Message(MessageType.MsgReadIndex, to=1, from_=2, term=300, entries=several, context=context)
    encoded = bytearray(codec.encode_message(message))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        if data.draw(st.booleans()):
            encoded[at] = data.draw(st.integers(0, 255))
        else:
            del encoded[at]
    try:
        read = codec.decode_message(bytes(encoded))
    except InvalidMessage:
        with pytest.raises(InvalidMessage):
            decode_slowly(bytes(encoded))
        return
    assert read == decode_slowly(bytes(encoded))
