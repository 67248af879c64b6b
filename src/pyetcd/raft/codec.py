"""Messages, entries and membership changes as bytes: etcd's `raftpb`.

Messages are written and read by hand, snapshots and changes through the generated `raft_pb2`, as is whatever
is not of the form etcd writes. An entry is a short head and its data, so the data is never copied but for the
one join at the end. What is written is what etcd writes, presence included: term and index always, type and
data where they say something.

Bytes from outside raise `InvalidMessage`, whatever they are.
"""

from __future__ import annotations

from typing import Final, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtobufMessage
from google.protobuf.unknown_fields import UnknownFieldSet

from pyetcd.proto import raft_pb2 as pb
from pyetcd.proto.splice import field_bytes, varint, varint_end, varint_of
from pyetcd.raft.changes import (
    AnyConfChange,
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Transition,
)
from pyetcd.raft.errors import InvalidMessage
from pyetcd.raft.types import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)

_P = TypeVar("_P", bound=ProtobufMessage)
_NUMBERS: Final = frozenset((1, 2, 3, 4, 5, 6, 8, 10, 11, 13))  # fields of Message that are numbers
_TYPES: Final = list(MessageType)  # by number
_ENTRY_TYPES: Final = list(EntryType)
_CONTEXT: Final = 0x62  # field 12 of Message, bytes
_ENTRIES: Final = 0x3A  # field 7 of Message, messages
_TYPE: Final = 0x08  # fields of Entry
_TERM: Final = 0x10
_INDEX: Final = 0x18
_DATA: Final = 0x22
_MESSAGE_ENTRIES: Final = b"\x3a"  # field 7 of Message, length-delimited


def entry_head(entry: Entry) -> bytes:
    """An entry's encoding up to its data, which follows: `entry_head(e) + e.data` is the whole, of `e.size`
    bytes.
    """
    head = b"\x10" + varint(entry.term) + b"\x18" + varint(entry.index)
    if entry.type:
        head = b"\x08" + varint(entry.type) + head
    if entry.data:
        head += b"\x22" + varint(len(entry.data))
    return head


def encode_entry(entry: Entry) -> bytes:
    return entry_head(entry) + entry.data


def decode_entry(data: bytes) -> Entry:
    """Raises InvalidMessage."""
    return _entry(_parse(pb.Entry(), data))


def _entry(parsed: pb.Entry) -> Entry:
    return Entry(parsed.Term, parsed.Index, parsed.Type, parsed.Data)


# Messages


def encode_message(message: Message) -> bytes:
    """One message as it goes to a peer. `responses` never do."""
    return b"".join(encode_message_parts(message))


def encode_message_parts(message: Message) -> list[bytes]:
    """The same in parts, which need not be joined: the entries' data are the objects that were proposed."""
    head = (
        b"\x08" + varint(message.type) + b"\x10" + varint(message.to) + b"\x18" + varint(message.from_)
        + b"\x20" + varint(message.term) + b"\x28" + varint(message.log_term)
        + b"\x30" + varint(message.index) + b"\x40" + varint(message.commit)
    )  # fmt: skip
    if message.snapshot is not None:
        head += field_bytes(9, _snapshot_pb(message.snapshot).SerializeToString())
    head += (b"\x50\x01\x58" if message.reject else b"\x50\x00\x58") + varint(message.reject_hint)
    if message.context:
        head += field_bytes(12, message.context)
    if message.vote:
        head += b"\x68" + varint(message.vote)
    parts = [head]
    for entry in message.entries:  # a repeated field may stand anywhere, so it may follow the rest
        parts += (_MESSAGE_ENTRIES + varint(entry.size) + entry_head(entry), entry.data)
    return parts


def decode_message(data: bytes) -> Message:
    """Raises InvalidMessage."""
    short = _short_message(data)
    if short is not None:
        return short
    parsed = _parse(pb.Message(), data)
    if not parsed.HasField("type"):  # a type we do not know is kept aside, as if there were none
        raise InvalidMessage("unknown message type")
    return Message(
        MessageType(parsed.type),
        to=parsed.to,
        from_=getattr(parsed, "from"),
        term=parsed.term,
        log_term=parsed.logTerm,
        index=parsed.index,
        entries=[_entry(e) for e in parsed.entries],
        commit=parsed.commit,
        vote=parsed.vote,
        snapshot=_snapshot(parsed.snapshot) if parsed.HasField("snapshot") else None,
        reject=parsed.reject,
        reject_hint=parsed.rejectHint,
        context=parsed.context,
    )


def _short_message(data: bytes) -> Message | None:
    """A message without a snapshot. None: it is to be read in the ordinary way. Some come for each batch and
    each round of reads; compiled, this takes a tenth of the time of protobuf's objects.
    """
    numbers = [0] * 14
    context = b""
    entries: list[Entry] = []
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        behind = varint_end(data, at + 1, end)
        if not behind:
            return None
        number = varint_of(data, at + 1, behind)
        at = behind
        if tag in (_CONTEXT, _ENTRIES):
            at += number
            if at > end:
                return None
            if tag == _CONTEXT:
                context = data[behind:at]
            else:
                entry = _short_entry(data, behind, at)
                if entry is None:
                    return None
                entries.append(entry)
        elif tag & 7 or tag >> 3 not in _NUMBERS:
            return None
        else:
            numbers[tag >> 3] = number
    kind = numbers[1]
    if kind >= len(_TYPES) or data[:1] != b"\x08":
        return None
    return Message(
        _TYPES[kind],
        to=numbers[2],
        from_=numbers[3],
        term=numbers[4],
        log_term=numbers[5],
        index=numbers[6],
        entries=entries,
        commit=numbers[8],
        vote=numbers[13],
        reject=numbers[10] != 0,
        reject_hint=numbers[11],
        context=context,
    )


def _short_entry(data: bytes, at: int, end: int) -> Entry | None:
    """The entry in `data[at:end]`, if each of its fields comes once at most and is as short as it can be."""
    term = index = kind = 0
    content = b""
    last = 0
    while at < end:
        tag = data[at]
        behind = varint_end(data, at + 1, end)
        if tag <= last or not behind:
            return None
        last = tag
        number = varint_of(data, at + 1, behind)
        at = behind
        if tag == _DATA:
            at += number
            if at > end:
                return None
            content = data[behind:at]
        elif tag == _TERM:
            term = number
        elif tag == _INDEX:
            index = number
        elif tag == _TYPE and number < len(_ENTRY_TYPES):
            kind = number
        else:
            return None
    return Entry(term, index, kind, content)


# States


def encode_hard_state(state: HardState) -> bytes:
    return b"\x08" + varint(state.term) + b"\x10" + varint(state.vote) + b"\x18" + varint(state.commit)


def decode_hard_state(data: bytes) -> HardState:
    """Raises InvalidMessage."""
    parsed = _parse(pb.HardState(), data)
    return HardState(parsed.term, parsed.vote, parsed.commit)


def encode_conf_state(state: ConfState) -> bytes:
    return _conf_state_pb(state).SerializeToString()


def decode_conf_state(data: bytes) -> ConfState:
    """Raises InvalidMessage."""
    return conf_state_from_pb(_parse(pb.ConfState(), data))


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return _snapshot_pb(snapshot).SerializeToString()


def decode_snapshot(data: bytes) -> Snapshot:
    """Raises InvalidMessage."""
    return _snapshot(_parse(pb.Snapshot(), data))


def _snapshot_pb(snapshot: Snapshot) -> pb.Snapshot:
    metadata = pb.SnapshotMetadata(
        conf_state=_conf_state_pb(snapshot.metadata.conf_state), index=snapshot.index, term=snapshot.term
    )
    return pb.Snapshot(data=snapshot.data or None, metadata=metadata)


def _snapshot(parsed: pb.Snapshot) -> Snapshot:
    meta = parsed.metadata
    return Snapshot(SnapshotMetadata(meta.index, meta.term, conf_state_from_pb(meta.conf_state)), parsed.data)


def _conf_state_pb(state: ConfState) -> pb.ConfState:
    return pb.ConfState(
        voters=state.voters,
        learners=state.learners,
        voters_outgoing=state.voters_outgoing,
        learners_next=state.learners_next,
        auto_leave=state.auto_leave,
    )


def conf_state_from_pb(parsed: pb.ConfState) -> ConfState:
    return ConfState(
        tuple(parsed.voters),
        tuple(parsed.learners),
        tuple(parsed.voters_outgoing),
        tuple(parsed.learners_next),
        parsed.auto_leave,
    )


# Membership changes


def encode_conf_change(change: AnyConfChange | None) -> tuple[EntryType, bytes]:
    """Type and data of the entry that proposes `change`; None means to leave a joint configuration."""
    if change is None:
        return EntryType.EntryConfChangeV2, b""
    if isinstance(change, ConfChange):
        v1 = pb.ConfChange(
            id=change.id or None,
            type=pb.ConfChangeType.Name(change.type),
            node_id=change.node_id,
            context=change.context or None,
        )
        return EntryType.EntryConfChange, v1.SerializeToString()
    v2 = pb.ConfChangeV2(
        transition=pb.ConfChangeTransition.Name(change.transition),
        changes=[
            pb.ConfChangeSingle(type=pb.ConfChangeType.Name(c.type), node_id=c.node_id)
            for c in change.changes
        ],
        context=change.context or None,
    )
    return EntryType.EntryConfChangeV2, v2.SerializeToString()


def conf_change_of(entry: Entry) -> AnyConfChange:
    """The change that `entry` proposes. InvalidMessage for damaged data or an entry of another type."""
    if entry.type == EntryType.EntryConfChange:
        v1 = _parse(pb.ConfChange(), entry.data)
        _refuse_unknown(v1, pb.ConfChange.TYPE_FIELD_NUMBER)
        return ConfChange(ConfChangeType(v1.type), v1.node_id, v1.context, v1.id)
    if entry.type == EntryType.EntryConfChangeV2:
        v2 = _parse(pb.ConfChangeV2(), entry.data)
        _refuse_unknown(v2, pb.ConfChangeV2.TRANSITION_FIELD_NUMBER)
        for single in v2.changes:
            _refuse_unknown(single, pb.ConfChangeSingle.TYPE_FIELD_NUMBER)
        changes = tuple(ConfChangeSingle(ConfChangeType(c.type), c.node_id) for c in v2.changes)
        return ConfChangeV2(Transition(v2.transition), changes, v2.context)
    raise InvalidMessage(f"entry {entry.index} is no membership change")


def _refuse_unknown(parsed: ProtobufMessage, enum_field: int) -> None:
    """An enum's unknown value is kept aside by protobuf and reads as the first known one: here, adding a
    voter.
    """
    unknown = UnknownFieldSet(parsed)
    if any(unknown[i].field_number == enum_field for i in range(len(unknown))):
        raise InvalidMessage("unknown kind of membership change")


def _parse(into: _P, data: bytes) -> _P:
    try:
        into.ParseFromString(data)
    except DecodeError as error:
        raise InvalidMessage(f"{type(into).__name__} cannot be read: {error}") from None
    return into
