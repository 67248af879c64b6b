"""Messages on streams: the bytes are etcd's, chunks may be cut anywhere, and nothing a peer sends raises but
`BadStream`."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.peer import frames
from pyetcd.peer.entries import add_framed, read_entry
from pyetcd.peer.frames import LINK_HEARTBEAT, BadStream, Body, MessageDecoder, MessageEncoder
from pyetcd.peer.msgappv2 import Batches, MsgAppV2Decoder, MsgAppV2Encoder
from pyetcd.raft import (
    ConfState,
    Entry,
    InvalidMessage,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
)
from pyetcd.raft.codec import decode_entry, decode_message, encode_entry, encode_message

LOCAL, REMOTE = 0x8211F1D0F64F3269, 0x91BC3C398FB3C146

numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1), st.sampled_from((127, 128, 16383, 16384)))
entries = st.builds(
    Entry,
    numbers,
    numbers,
    st.integers(0, 2),
    st.one_of(st.binary(max_size=20), st.sampled_from((b"x" * 127, b"y" * 128, b"z" * 17000))),
)
snapshots = st.builds(
    Snapshot,
    st.builds(SnapshotMetadata, numbers, numbers, st.just(ConfState((1, 2), (3,)))),
    st.binary(max_size=30),
)
messages = st.builds(
    Message,
    st.sampled_from(MessageType),
    to=numbers,
    from_=st.integers(1, 2**64 - 1),
    term=numbers,
    log_term=numbers,
    index=numbers,
    entries=st.lists(entries, max_size=4),
    commit=numbers,
    vote=numbers,
    snapshot=st.one_of(st.none(), snapshots),
    reject=st.booleans(),
    reject_hint=numbers,
    context=st.binary(max_size=20),
)
cuts = st.lists(st.integers(1, 60), max_size=30)


def flat(body: Body) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body)


def pieces(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """`data` cut into chunks of these sizes and the rest."""
    found, at = [], 0
    for size in sizes:
        found.append(data[at : at + size])
        at += size
    found.append(data[at:])
    return [chunk for chunk in found if chunk]


def fed(decoder: MessageDecoder | MsgAppV2Decoder, chunks: Sequence[bytes]) -> list[Message]:
    return [message for chunk in chunks for message in decoder.feed(chunk)]


# Entries


@given(st.lists(entries, max_size=8))
def test_entries_are_written_as_the_codec_writes_them(batch: list[Entry]) -> None:
    parts: list[bytes] = []
    add_framed(parts, batch)
    assert b"".join(parts) == b"".join(struct.pack(">Q", e.size) + encode_entry(e) for e in batch)


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(1, 300))
def test_indexes_that_follow_each_other_are_written_right(term: int, first: int, count: int) -> None:
    batch = [Entry(term, first + i, 0, b"data") for i in range(count)]
    parts: list[bytes] = []
    add_framed(parts, batch)
    assert parts[::2] == [struct.pack(">Q", e.size) + encode_entry(e)[:-4] for e in batch]


def outcome(data: bytes) -> tuple[int, int, int, bytes, int] | None:
    try:
        entry = decode_entry(data)
    except InvalidMessage:
        return None
    return entry.term, entry.index, entry.type, entry.data, entry.size


def read_outcome(data: bytes) -> tuple[int, int, int, bytes, int] | None:
    padded = b"\x08\x01" + data + b"\x22\x01\xff"  # what stands around it must not matter
    try:
        entry = read_entry(padded, 2, 2 + len(data))
    except InvalidMessage:
        return None
    return entry.term, entry.index, entry.type, entry.data, entry.size


@given(entries)
def test_an_entry_is_read_as_the_codec_reads_it(entry: Entry) -> None:
    data = encode_entry(entry)
    assert (
        read_outcome(data) == outcome(data) == (entry.term, entry.index, entry.type, entry.data, entry.size)
    )


@given(entries)
def test_an_entry_with_its_type_written_out_is_read_too(entry: Entry) -> None:
    """Older etcds write a type of 0."""
    data = b"\x08\x00" + encode_entry(Entry(entry.term, entry.index, 0, entry.data))
    assert read_outcome(data) == outcome(data)
    assert read_outcome(data) is not None


@given(entries, st.data())
def test_a_damaged_entry_is_read_as_the_codec_reads_it(entry: Entry, data: st.DataObject) -> None:
    raw = bytearray(encode_entry(entry))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        change = data.draw(st.sampled_from(("set", "insert", "cut", "remove")))
        byte = data.draw(st.one_of(st.integers(0, 255), st.sampled_from(b"\x00\x08\x10\x18\x22\x80\xff")))
        if change == "insert":
            raw.insert(at, byte)
        elif change == "cut":
            del raw[at:]
        elif at < len(raw):
            raw[at : at + 1] = bytes((byte,)) if change == "set" else b""
    assert read_outcome(bytes(raw)) == outcome(bytes(raw))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_as_the_codec_reads_them(data: bytes) -> None:
    assert read_outcome(data) == outcome(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x80\x00\x18\x01\x22\x01x",  # a term that is longer than need be
        b"\x10\x01\x18\x81\x80\x00\x22\x01x",
        b"\x10\x01\x18\x01\x22\x81\x00x",
        b"\x10\x01\x18\x01\x22\x00",  # data that is there and empty
        b"\x08\x03\x10\x01\x18\x01",  # a type nobody knows
        b"\x08\x80\x00\x10\x01\x18\x01",
        b"\x18\x01\x10\x01",  # another order
        b"\x10\x01\x18\x01\x22\x01x\x22\x01y",  # twice: the last one counts
        b"\x10" + b"\xff" * 9 + b"\x01\x18\x01",
        b"\x10" + b"\xff" * 9 + b"\x02\x18\x01",  # more than 64 bits
        b"\x10\x01\x18\x01\x22\x05x",
        b"",
    ],
)
def test_unusual_entries_are_read_as_the_codec_reads_them(data: bytes) -> None:
    assert read_outcome(data) == outcome(data)


# Streams of messages


@given(messages)
def test_messages_are_written_as_the_codec_writes_them(message: Message) -> None:
    body, size = MessageEncoder().encode(message)
    raw = encode_message(message)
    assert flat(body) == struct.pack(">Q", len(raw)) + raw
    assert size == len(raw) + 8


@given(st.lists(messages, max_size=5), cuts)
def test_a_stream_of_messages_may_be_cut_anywhere(sent: list[Message], sizes: list[int]) -> None:
    data = b"".join(LINK_HEARTBEAT + flat(MessageEncoder().encode(message)[0]) for message in sent)
    assert fed(MessageDecoder(), pieces(data, sizes)) == sent


@given(st.lists(messages, min_size=1, max_size=3), cuts, st.data())
def test_a_damaged_stream_of_messages_raises_nothing_else(
    sent: list[Message], sizes: list[int], data: st.DataObject
) -> None:
    raw = bytearray(b"".join(flat(MessageEncoder().encode(message)[0]) for message in sent))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        fed(MessageDecoder(), pieces(bytes(raw), sizes))
    except BadStream:
        pass


def test_a_link_heartbeat_is_what_etcd_sends() -> None:
    assert decode_message(LINK_HEARTBEAT[8:]) == Message(MessageType.MsgHeartbeat)
    assert MessageDecoder().feed(LINK_HEARTBEAT * 3) == []


def test_a_message_that_is_too_long_is_refused_before_it_is_there() -> None:
    decoder = MessageDecoder()
    assert decoder.feed(struct.pack(">Q", 512 << 20)) == []
    with pytest.raises(BadStream, match="rafthttp: error limit exceeded"):
        MessageDecoder().feed(struct.pack(">Q", (512 << 20) + 1))


# Streams of appends


def append(
    index: int, *data: bytes, term: int = 5, log_term: int = 5, commit: int = 0, to: int = LOCAL
) -> Message:
    batch = [Entry(term, index + 1 + i, 0, each) for i, each in enumerate(data)]
    return Message(
        MessageType.MsgApp,
        to=to,
        from_=REMOTE,
        term=term,
        log_term=log_term,
        index=index,
        entries=batch,
        commit=commit,
    )


def go_encoding(sent: Sequence[Message]) -> bytes:
    """What etcd's encoder writes, told anew: message by message, with its two variables."""
    out, term, index = b"", 0, 0
    for message in sent:
        if index == message.index and term == message.log_term and message.log_term == message.term:
            out += b"\x01" + struct.pack(">Q", len(message.entries))
            for entry in message.entries:
                raw = encode_entry(entry)
                out += struct.pack(">Q", len(raw)) + raw
                index += 1
            out += struct.pack(">Q", message.commit)
        else:
            raw = encode_message(message)
            out += b"\x02" + struct.pack(">Q", len(raw)) + raw
            term = message.term
            index = message.entries[-1].index if message.entries else message.index
    return out


def test_the_bytes_of_appends_are_etcds() -> None:
    """Written down by hand from etcd's description of the format."""
    encoder = MsgAppV2Encoder(Batches())
    first, size = encoder.encode(append(7, b"one", term=2, log_term=1))
    raw = encode_message(append(7, b"one", term=2, log_term=1))
    assert flat(first) == b"\x02" + len(raw).to_bytes(8, "big") + raw
    assert size == len(flat(first))
    second, size = encoder.encode(append(8, b"two", b"", term=2, log_term=2, commit=8))
    assert flat(second) == (
        b"\x01"
        b"\x00\x00\x00\x00\x00\x00\x00\x02"
        b"\x00\x00\x00\x00\x00\x00\x00\x09\x10\x02\x18\x09\x22\x03two"
        b"\x00\x00\x00\x00\x00\x00\x00\x04\x10\x02\x18\x0a"
        b"\x00\x00\x00\x00\x00\x00\x00\x08"
    )
    assert size == len(flat(second))
    third, _ = encoder.encode(append(10, term=2, log_term=2, commit=10))
    assert flat(third) == b"\x01" + b"\x00" * 8 + b"\x00" * 7 + b"\x0a"
    assert encoder.heartbeat == b"\x00"


@st.composite
def logs(draw: st.DrawFn) -> list[Message]:
    """Appends as a leader sends them: mostly in a row, at times from further back or in a new term."""
    sent, term, index = [], draw(st.integers(1, 3)), draw(st.integers(0, 300))
    last_term = term
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.integers(0, 4)) == 0:
            last_term, term = term, term + 1
        if draw(st.integers(0, 4)) == 0:
            index = max(index - draw(st.integers(0, 3)), 0)
        data = draw(st.lists(st.binary(max_size=200), max_size=4))
        sent.append(append(index, *data, term=term, log_term=last_term, commit=draw(st.integers(0, index))))
        if data:
            last_term = term
        index += len(data)
    return sent


@given(logs(), cuts)
def test_appends_are_etcds_bytes_and_come_back_whole(sent: list[Message], sizes: list[int]) -> None:
    encoder = MsgAppV2Encoder(Batches())
    bodies = [encoder.encode(message) for message in sent]
    assert all(size == len(flat(body)) for body, size in bodies)
    data = b"".join(flat(body) for body, _ in bodies)
    assert data == go_encoding(sent)
    with_heartbeats = b"\x00" + b"\x00".join(flat(body) for body, _ in bodies) + b"\x00"
    got = fed(MsgAppV2Decoder(LOCAL, REMOTE), pieces(with_heartbeats, sizes))
    assert got == sent
    assert [[e.size for e in m.entries] for m in got] == [[e.size for e in m.entries] for m in sent]


@given(logs(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_one_memory_of_batches_serves_several_streams(sent: list[Message], shared: list[bool]) -> None:
    batches = Batches()
    streams = [MsgAppV2Encoder(batches), MsgAppV2Encoder(batches)]
    written = [b"", b""]
    for message, both in zip(sent, shared, strict=False):
        for number, encoder in enumerate(streams[: 1 + both]):
            written[number] += flat(encoder.encode(message)[0])
    assert written[0] == go_encoding(sent)
    assert written[1] == go_encoding([message for message, both in zip(sent, shared, strict=False) if both])


def test_the_same_batch_is_encoded_once() -> None:
    batches = Batches()
    first = append(7, b"one" * 100_000)
    again = append(7, to=LOCAL + 1)
    again.entries = list(
        first.entries
    )  # another list of the same entries, as raft makes one for each follower
    body, _ = batches.encode(first.entries, 3)
    assert batches.encode(again.entries, 3)[0] is body
    assert batches.encode(again.entries, 4)[0] is not body


@given(logs(), cuts, st.data())
def test_a_damaged_stream_of_appends_raises_nothing_else(
    sent: list[Message], sizes: list[int], data: st.DataObject
) -> None:
    raw = bytearray(go_encoding(sent))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        fed(MsgAppV2Decoder(LOCAL, REMOTE), pieces(bytes(raw), sizes))
    except BadStream:
        pass


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_any_bytes_are_no_more_than_a_bad_stream(chunks: list[bytes]) -> None:
    decoders: list[MessageDecoder | MsgAppV2Decoder] = [MessageDecoder(), MsgAppV2Decoder(LOCAL, REMOTE)]
    for decoder in decoders:
        try:
            fed(decoder, [chunk for chunk in chunks if chunk])
        except BadStream:
            pass


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x03", "failed to parse type 3 in msgappv2 stream"),
        (b"\x01" + struct.pack(">Q", (1 << 20) + 1), frames.LIMIT_EXCEEDED),
        (b"\x01" + struct.pack(">Q", 2**64 - 1), frames.LIMIT_EXCEEDED),
        (b"\x01" + struct.pack(">QQ", 1, 2**63), frames.LIMIT_EXCEEDED),
        (b"\x02" + struct.pack(">Q", 2**40), frames.LIMIT_EXCEEDED),
    ],
)
def test_what_cannot_be_is_refused_at_once(raw: bytes, text: str) -> None:
    with pytest.raises(BadStream, match=text):
        MsgAppV2Decoder(LOCAL, REMOTE).feed(raw)


def test_a_batch_is_bounded_as_a_whole() -> None:
    decoder = MsgAppV2Decoder(LOCAL, REMOTE, limit_bytes=100)
    entry = encode_entry(Entry(1, 1, 0, b"x" * 44))
    one = struct.pack(">Q", len(entry)) + entry
    assert decoder.feed(b"\x01" + struct.pack(">Q", 3) + one + one[:20]) == []
    assert decoder.feed(one[20:]) == []
    with pytest.raises(BadStream, match=frames.LIMIT_EXCEEDED):
        decoder.feed(one)


def test_a_long_message_in_small_chunks_is_copied_only_so_often() -> None:
    """Quadratic copying of 8 MiB in chunks of 1 KiB would be 32 GiB."""
    message = append(7, b"x" * (8 << 20), log_term=4)
    data = flat(MsgAppV2Encoder(Batches()).encode(message)[0])
    chunks = [data[at : at + 1024] for at in range(0, len(data), 1024)]
    assert fed(MsgAppV2Decoder(LOCAL, REMOTE), chunks) == [message]
