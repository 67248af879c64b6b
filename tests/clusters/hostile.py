"""Those who talk to a peer port and mean no good, over bare sockets: as peers talk, and as nobody does.

`converse` says to a port whatever it is given and hears what comes back. `Pretender` writes the requests of
one who says it is a certain member. `FakeMember` is what stands at the peer URL of a member that was added
and is nobody's: our members dial it, and it answers as it is told to. Nothing here waits without a deadline.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from pyetcd.raft import Message
from pyetcd.raft.codec import encode_message

VERSION = "3.7.1"
LOWEST_VERSION = "3.0.0"
PIECE = 1 << 16
REPLY_SECONDS = 5.0
RECEIVED_BYTES_MAX = 1 << 20

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back. `ended`: the other side has closed the connection."""

    data: bytes
    sent: int
    ended: bool

    @property
    def status(self) -> int | None:
        """Of an HTTP answer; None for anything else."""
        first = self.data.split(b"\r\n", 1)[0].split(b" ")
        return int(first[1]) if first[0].startswith(b"HTTP/1.") and len(first) > 1 else None

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def whole(self) -> bool:
        """Whether this is all of an answer whose length is known."""
        head, end, body = self.data.partition(b"\r\n\r\n")
        if not end:
            return False
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return len(body) >= int(value)
        return self.status == 204


def converse(port: int, pieces: Iterable[bytes], *, seconds: float = REPLY_SECONDS, then_end: bool) -> Heard:
    """Send `pieces` until there is an answer, and with `then_end` say that no more will come. Over when the
    answer is whole, the other side has ended, or after `seconds`."""
    deadline = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.setblocking(False)
        source, rest, sent, received = iter(pieces), memoryview(b""), 0, bytearray()
        writing, ended = True, False
        while not ended and (left := deadline - time.monotonic()) > 0:
            if writing and not rest:
                piece = next(source, None)
                writing = piece is not None
                rest = memoryview(piece or b"")
                if not writing and then_end:
                    say_no_more(connection)
            readable, writable, _ = select.select([connection], [connection] if writing else [], [], left)
            try:
                if readable:
                    chunk = connection.recv(PIECE)
                    received += chunk
                    ended = not chunk
                elif writable:
                    count = connection.send(rest[:PIECE])
                    rest, sent = rest[count:], sent + count
            except OSError:  # reset: it wants no more of this
                ended = True
            heard = Heard(bytes(received), sent, ended)
            if heard.whole or len(received) > RECEIVED_BYTES_MAX:
                return heard
        return Heard(bytes(received), sent, ended)


def say_no_more(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has ended already


def request(method: str, path: str, headers: Headers, body: bytes | None = b"") -> bytes:
    """`body` None: no length is given, the head alone."""
    lines = [f"{method} {path} HTTP/1.1", "Host: peer", *(f"{name}: {value}" for name, value in headers)]
    if body is not None and (body or method == "POST"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def chunked(method: str, path: str, headers: Headers, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A request whose body has no known length; it has no end, but for that of `chunks`."""
    yield request(method, path, (*headers, ("Transfer-Encoding", "chunked")), None)
    for chunk in chunks:
        yield b"%x\r\n%s\r\n" % (len(chunk), chunk)


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data


@dataclass(frozen=True, slots=True)
class Pretender:
    """Says it is `id`, to `to`, of a cluster."""

    id: int
    to: int
    cluster: int
    version: str = VERSION
    lowest: str = LOWEST_VERSION

    @property
    def headers(self) -> Headers:
        return (
            ("X-Server-From", f"{self.id:x}"),
            ("X-Server-Version", self.version),
            ("X-Min-Cluster-Version", self.lowest),
            ("X-Etcd-Cluster-ID", f"{self.cluster:x}"),
            ("X-Raft-To", f"{self.to:x}"),
            ("X-PeerURLs", "http://127.0.0.1:1"),
        )

    def message(self, message: Message) -> bytes:
        """The request that brings a message of raft's."""
        return self.bytes(encode_message(message))

    def bytes(self, body: bytes) -> bytes:
        return request("POST", "/raft", self.headers, body)

    def snapshot(self, message: Message, database: Iterable[bytes]) -> Iterator[bytes]:
        """The request that brings a snapshot, up to its database; more may follow."""
        return self.snapshot_bytes(framed(encode_message(message)), database)

    def snapshot_bytes(self, first: bytes, database: Iterable[bytes]) -> Iterator[bytes]:
        def body() -> Iterator[bytes]:
            yield first
            yield from database

        return chunked("POST", "/raft/snapshot", self.headers, body())

    def stream(self, kind: str, name: str | None = None) -> bytes:
        path = f"/raft/stream/{kind}/{f'{self.id:x}' if name is None else name}"
        return request("GET", path, self.headers)


STREAM_HEAD = f"HTTP/1.1 200 OK\r\nX-Server-Version: {VERSION}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
ENOUGH_POSTS = 3
Answer = Callable[[str, int], Iterable[bytes]]  # of a kind of stream, and the ID of the member that asks


class FakeMember:
    """Answers what is asked at its port: streams as it is told by `say`, everything else with 204.

    What a member is told by `say` it is told on new streams; those there are end. `post` is what a message
    that is posted is answered with, on connections that end with it.
    """

    def __init__(self, port: int) -> None:
        self.id = 0
        self._answer: Answer = lambda kind, to: ()
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._served: Counter[tuple[str, int]] = Counter()
        self._post = NO_CONTENT
        self._posts = 0
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FakeMember:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
        self._listener.close()
        self._hang_up()

    def say(self, answer: Answer, to: Iterable[int], kinds: Iterable[str], seconds: float = 5.0) -> None:
        """Until each of the members `to` has heard it twice on a stream of each kind, so that the first has
        been read to its end."""
        with self._changed:
            self._answer = answer
            self._served.clear()
        self._hang_up()
        wanted = [(kind, id) for id in to for kind in kinds]
        with self._changed:
            told = self._changed.wait_for(lambda: all(self._served[one] > 1 for one in wanted), seconds)
            assert told, f"streams asked for: {self._served}, wanted {wanted}"

    def post(self, answer: bytes, seconds: float = 5.0) -> None:
        """Until some messages have been answered so."""
        with self._changed:
            self._post, self._posts = answer, 0
            answered = self._changed.wait_for(lambda: self._posts > ENOUGH_POSTS, seconds)
            self._post = NO_CONTENT
            assert answered, f"{self._posts} messages"

    def be_quiet(self) -> None:
        """Streams stay open and nothing is said."""
        with self._changed:
            self._answer = lambda kind, to: (STREAM_HEAD, b"")
        self._hang_up()

    def _hang_up(self) -> None:
        with self._changed:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is gone already

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._changed:
            if self._closed:
                connection.close()
                return
            self._open.add(connection)
        try:
            with connection:
                self._converse(connection)
        except OSError:
            pass  # the other side has had enough
        finally:
            with self._changed:
                self._open.discard(connection)

    def _converse(self, connection: socket.socket) -> None:
        data = b""
        while True:
            head, end, rest = data.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            if end and len(rest) >= length:
                data = rest[length:]
                path = head.split(b" ")[1].decode()
                if path.startswith("/raft/stream/"):
                    self._stream(connection, path)
                    return
                if not self._posted(connection):
                    return
                continue
            chunk = connection.recv(PIECE)
            if not chunk:
                return
            data += chunk

    def _posted(self, connection: socket.socket) -> bool:
        """Whether the connection goes on."""
        with self._changed:
            answer = self._post
        try:
            connection.sendall(answer)
        finally:
            with self._changed:
                self._posts += 1
                self._changed.notify_all()
        return answer == NO_CONTENT

    def _stream(self, connection: socket.socket, path: str) -> None:
        _, _, _, kind, name = path.split("/")
        with self._changed:
            answer = self._answer
        last = b"-"
        try:
            for last in answer(kind, int(name, 16)):
                connection.sendall(last)
        finally:
            with self._changed:
                self._served[kind, int(name, 16)] += 1
                self._changed.notify_all()
        if not last:  # an empty piece at the end: stay
            connection.recv(1)


def chunk(data: bytes) -> bytes:
    """A piece of a stream's body."""
    return b"%x\r\n%s\r\n" % (len(data), data)
