"""Messages on a stream: 8 bytes of length, big-endian, and a `raftpb.Message`. Chunks may be cut anywhere.

A reader here never gives back half a message and never waits for a length that cannot be: it raises
`BadStream`, after which its stream is of no use. Each byte is copied at most twice on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyetcd.raft import InvalidMessage, Message, MessageType
from pyetcd.raft.codec import decode_message, encode_message_parts

Body = bytes | Sequence[bytes]

LENGTH_BYTES: Final = 8
MESSAGE_BYTES_MAX: Final = 512 << 20  # as etcd
JOIN_BYTES_MAX: Final = 64 << 10  # up to here one copy is cheaper than handing over many parts
LIMIT_EXCEEDED: Final = "rafthttp: error limit exceeded"

# A message on a stream that says only that the stream is alive: no message of raft lacks `from` and `to`.
LINK_HEARTBEAT: Final = b"\x00\x00\x00\x00\x00\x00\x00\x02\x08\x08"


class BadStream(Exception):
    """What arrived is no stream of messages; the text says why."""


def joined(parts: list[bytes], size: int) -> Body:
    """The parts as they are handed to the wire: one piece where that is cheaper."""
    return b"".join(parts) if size <= JOIN_BYTES_MAX else parts


def encode_framed(message: Message) -> tuple[list[bytes], int]:
    """The message with its length before it, and the bytes of all that."""
    parts = encode_message_parts(message)
    size = sum([len(part) for part in parts])
    return [size.to_bytes(LENGTH_BYTES, "big"), *parts], LENGTH_BYTES + size


class Pieces:
    """Chunks of a stream until there are enough of them."""

    __slots__ = ("_chunks", "_have", "_need")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 1

    def add(self, chunk: bytes) -> bytes | None:
        """All there is, or None when that is less than what was asked for."""
        self._chunks.append(chunk)
        self._have += len(chunk)
        if self._have < self._need:
            return None
        chunks, self._chunks, self._have = self._chunks, [], 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def keep(self, data: bytes, position: int, need: int) -> None:
        """What is left of `data` from `position` on; `add` returns once there are `need` bytes from there."""
        self._need = need
        self._have = len(data) - position
        if self._have:
            self._chunks = [data[position:] if position else data]

    @property
    def empty(self) -> bool:
        return self._have == 0


class MessageDecoder:
    """Reads a stream of kind `message`."""

    def __init__(self, limit_bytes: int = MESSAGE_BYTES_MAX) -> None:
        self._pieces = Pieces()
        self._limit_bytes = limit_bytes

    def feed(self, chunk: bytes) -> list[Message]:
        """The messages that `chunk` has made whole, link heartbeats left out. Raises BadStream."""
        data = self._pieces.add(chunk)
        found: list[Message] = []
        if data is None:
            return found
        position, end = 0, len(data)
        while end - position >= LENGTH_BYTES:
            stop = position + LENGTH_BYTES
            size = int.from_bytes(data[position:stop], "big")
            if size > self._limit_bytes:
                raise BadStream(LIMIT_EXCEEDED)
            if end - stop < size:
                self._pieces.keep(data, position, LENGTH_BYTES + size)
                return found
            position = stop + size
            message = read_message(data[stop:position])
            if message.from_ or message.to or message.type != MessageType.MsgHeartbeat:
                found.append(message)
        self._pieces.keep(data, position, LENGTH_BYTES)
        return found


def read_message(data: bytes) -> Message:
    """Raises BadStream."""
    try:
        return decode_message(data)
    except InvalidMessage as error:
        raise BadStream(str(error)) from None


class MessageEncoder:
    """Writes a stream of kind `message`."""

    heartbeat: Final = LINK_HEARTBEAT

    def encode(self, message: Message) -> tuple[Body, int]:
        """What goes on the stream, and how many bytes that is."""
        parts, size = encode_framed(message)
        return joined(parts, size), size
