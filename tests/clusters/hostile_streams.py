"""What a member that is not what it seems says on the streams that others ask of it.

A `Lie` makes what is sent to one member on one stream, answer head included. None of them is a message that a
learner may send, so after each everything is as before. Not among them is 410, by which a member is told that
it was removed: of members that is believed, as by etcd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

from hostile import STREAM_HEAD, chunk, framed
from hostile_messages import LAST, LOCAL, Scene, snapshot_at, to_member

from pyetcd.raft import Message, MessageType
from pyetcd.raft.codec import encode_message

M = MessageType
Lie = Callable[[str, Scene], Iterable[bytes]]  # by the kind of the stream
MESSAGE, MSGAPP = "message", "msgapp"


def _bare(*pieces: bytes) -> Lie:
    return lambda kind, scene: pieces


def _body(*pieces: bytes) -> Lie:
    """The body of a stream of either kind."""
    return lambda kind, scene: (STREAM_HEAD, *[chunk(piece) for piece in pieces])


def _framed_as(kind: str, message: Message) -> bytes:
    data = framed(encode_message(message))
    return data if kind == MESSAGE else b"\x02" + data


def _told(*messages: Callable[[Scene], Message]) -> Lie:
    def pieces(kind: str, scene: Scene) -> Iterator[bytes]:
        yield STREAM_HEAD
        for message in messages:
            yield chunk(_framed_as(kind, message(scene)))

    return pieces


def _length(size: int, *, then: int) -> Lie:
    """A frame that says it is so long, and so many megabytes of it."""

    def pieces(kind: str, scene: Scene) -> Iterator[bytes]:
        yield STREAM_HEAD
        yield chunk((b"" if kind == MESSAGE else b"\x02") + size.to_bytes(8, "big"))
        yield from repeat(chunk(bytes(1 << 20)), then)

    return pieces


def _headers(kind: str, scene: Scene) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in range(60_000):
        yield b"X-%d: %s\r\n" % (number, b"x" * 100)


def _of(sender: Callable[[Scene], int]) -> Lie:
    """Heartbeats of a term to come, by another."""
    return _told(
        lambda scene: to_member(M.MsgHeartbeat, scene, sender(scene), term=scene.term + 1),
        lambda scene: to_member(M.MsgApp, scene, sender(scene), term=scene.term + 1, commit=LAST),
        lambda scene: to_member(M.MsgTimeoutNow, scene, sender(scene)),
    )


LIES: dict[str, Lie] = {
    "nothing": _bare(),
    "garbage for an answer": _bare(b"\xff" * 1000),
    "an answer of no version": _bare(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"x")),
    "a status nobody knows": _bare(b"HTTP/1.1 799 \r\nX-Server-Version: 3.7.1\r\nContent-Length: 0\r\n\r\n"),
    "a redirection": _bare(b"HTTP/1.1 307 See\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
    "wait, without an end": _bare(*repeat(b"HTTP/1.1 100 Continue\r\n\r\n", 10_000)),
    "a refusal without an end": _bare(
        b"HTTP/1.1 412 No\r\nX-Server-Version: 3.7.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        *repeat(chunk(b"x" * 10_000), 1000),
    ),
    "headers without an end": _headers,
    "a chunk that is none": _bare(STREAM_HEAD, b"zz\r\n"),
    "a stream that ends at once": _body(b""),
    "garbage": _body(b"\xff" * 1000),
    "zeros": _body(bytes(100_000)),
    "half a length": _body(b"\x02\0\0"),
    "a length that cannot be": _length(LAST, then=0),
    "a length just too large": _length((512 << 20) + 1, then=1),
    "a message that does not come to its end": _length(500 << 20, then=8),
    "a message that is none": _body(b"\x02" + framed(b"\xff" * 50), framed(b"\xff" * 50)),
    "entries without an end": _body(b"\x01" + b"\xff" * 8),
    "entries that follow nothing": _body(b"\x01" + bytes(8) + b"\xff" * 8),
    "an entry that is none": _body(b"\x01" + (1).to_bytes(8, "big") + framed(b"\xff\xff\xff") + bytes(8)),
    "messages of the leader": _of(lambda scene: scene.other),
    "messages of a removed member": _of(lambda scene: scene.removed),
    "messages of the member itself": _of(lambda scene: scene.id),
    "messages of a stranger": _of(lambda scene: 0xBAD),
    "messages to another": _told(
        lambda scene: Message(M.MsgHeartbeat, scene.other, scene.learner, scene.term + 1)
    ),
    "heartbeats that commit too much": _told(
        lambda scene: to_member(M.MsgHeartbeat, scene, scene.learner, commit=1 << 63)
    ),
    "heartbeats of the last term": _told(
        lambda scene: to_member(M.MsgHeartbeat, scene, scene.learner, term=LAST)
    ),
    "a snapshot without a database": _told(
        lambda scene: to_member(
            M.MsgSnap, scene, scene.learner, snapshot=snapshot_at(scene, scene.index + 1000)
        )
    ),
    "impossible proposals": _told(
        lambda scene: to_member(M.MsgProp, scene, scene.learner, term=0),
        lambda scene: to_member(M.MsgProp, scene, scene.removed, term=0),
    ),
    "local messages": _told(
        *[lambda scene, type=type: to_member(type, scene, scene.learner, index=LAST) for type in LOCAL]  # type: ignore[misc]
    ),
}

# What is answered to a message that was posted.
ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "garbage": b"\xff" * 1000,
    "a status nobody knows": b"HTTP/1.1 799 \r\nContent-Length: 0\r\n\r\n",
    "a failure": b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",
    "another cluster": b"HTTP/1.1 412 No\r\nContent-Length: 20\r\n\r\ncluster ID mismatch\n",
    "another version": b"HTTP/1.1 412 No\r\nContent-Length: 21\r\n\r\nincompatible version\n",
    "another member": b"HTTP/1.1 403 No\r\nContent-Length: 18\r\n\r\nto mismatch member",
    "an answer cut short": b"HTTP/1.1 204 No",
    "a length that cannot be": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx",
    "an answer without an end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(bytes(1 << 20)) * 80,
}
