"""A small service around the native Server, and a client that speaks HTTP/2 frame by frame, for the tests
of the wire."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpack

from pyetcd._native import (
    CANCEL,
    FAILED,
    HALF_CLOSE,
    HTTP,
    MESSAGE,
    OPEN,
    REJECTED,
    RESPONSE,
    UNARY,
    WRITABLE,
    HttpRequest,
    HttpResponse,
    Limits,
    Meta,
    Server,
    Tls,
    Wake,
)
from pyetcd.cluster.urls import parse_url
from pyetcd.listen import Sockets

CERTS = Path(__file__).parent / "certs"
METHODS = [
    ("/test.Echo/Say", False),  # answers with its payload
    ("/test.Echo/Hold", False),  # never answers by itself
    ("/test.Echo/Fail", False),  # payload `code text`: finishes with that status
    ("/test.Echo/Parts", False),  # payload `count size`: answers with so many parts
    ("/test.Echo/Chat", True),  # echoes every message, ends well after the client's half-close
    ("/test.Echo/Drip", True),  # left to the test
]
NAMES = {UNARY: "UNARY", OPEN: "OPEN", MESSAGE: "MESSAGE", HALF_CLOSE: "HALF_CLOSE", CANCEL: "CANCEL",
         WRITABLE: "WRITABLE", HTTP: "HTTP", RESPONSE: "RESPONSE", FAILED: "FAILED",
         REJECTED: "REJECTED"}  # fmt: skip


def pem(name: str) -> bytes:
    return (CERTS / name).read_bytes()


def listen_tcp(
    server: Server, port: int = 0, tls: Tls | None = None, also_plain: bool = False, **serves: bool
) -> int:
    """Returns the port."""
    return _open(server, f"http://127.0.0.1:{port}", tls, also_plain, **serves)[1]


def listen_unix(server: Server, path: str, tls: Tls | None = None) -> None:
    _open(server, f"unix://{path}", tls, False)


def _open(server: Server, url: str, tls: Tls | None, also_plain: bool, **serves: bool) -> Any:
    entrance = Sockets().bind([parse_url(url)], **serves)[0]
    entrance.tls, entrance.plain = tls, also_plain or tls is None
    address = entrance.socket.getsockname()
    entrance.open(server)
    return address


@dataclass(frozen=True, slots=True)
class Seen:
    """One drained event."""

    kind: str
    call: int
    method: int
    payload: bytes | HttpRequest | HttpResponse | None
    meta: Meta | None


class Harness:
    """Runs a Server and its loop's side in a thread; remembers every event."""

    def __init__(
        self, limits: Limits | None = None, methods: list[tuple[str, bool]] = METHODS, **options: Any
    ) -> None:
        self.wake = Wake()
        self.server = Server(self.wake, methods, limits or Limits(keepalive_min_time=0), **options)
        self.port = 0
        self.seen: list[Seen] = []
        self.slow: list[tuple[Any, int, float]] = []  # event, call and seconds of calls named as slow
        self._chats: set[int] = set()
        self.draining = threading.Event()
        self.draining.set()
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def listen(self) -> str:
        self.port = listen_tcp(self.server)
        return f"127.0.0.1:{self.port}"

    def _run(self) -> None:
        while not self._stop.is_set():
            select.select([self.wake.fileno()], [], [], 0.05)
            if not self.draining.is_set():
                continue
            self.wake.clear()
            while events := self.server.drain(256):
                seen = [
                    Seen(NAMES[kind], call, method, payload, meta)
                    for kind, call, method, payload, meta in events
                ]
                self._answer(seen)
                with self._news:
                    self.seen.extend(seen)
                    self._news.notify_all()

    def _answer(self, events: list[Seen]) -> None:
        replies: list[tuple[int, bytes | list[bytes]]] = []
        ends: list[tuple[int, int, str]] = []
        messages: list[tuple[int, bytes]] = []
        for event in events:
            method = METHODS[event.method][0].rpartition("/")[2] if event.kind in {"UNARY", "OPEN"} else ""
            if event.kind == "UNARY":
                assert isinstance(event.payload, bytes)
                if method == "Say":
                    replies.append((event.call, event.payload))
                elif method == "Fail":
                    code, _, text = event.payload.decode().partition(" ")
                    ends.append((event.call, int(code), text))
                elif method == "Parts":
                    count, size = map(int, event.payload.split())
                    replies.append((event.call, [bytes([65 + i % 26]) * size for i in range(count)]))
            elif event.kind == "OPEN":
                if method == "Chat":
                    self._chats.add(event.call)
            elif event.kind == "MESSAGE" and event.call in self._chats:
                assert isinstance(event.payload, bytes)
                messages.append((event.call, event.payload))
            elif event.kind == "HALF_CLOSE" and event.call in self._chats:
                ends.append((event.call, 0, ""))
            elif event.kind == "HTTP":
                assert isinstance(event.payload, HttpRequest)
                self.on_http(event.call, event.payload)
        self.slow += [
            (event, replies[at][0], seconds) for event, at, seconds in self.server.reply_many(replies)
        ]
        self.server.send_many(messages)
        self.slow += [(event, ends[at][0], seconds) for event, at, seconds in self.server.finish_many(ends)]

    def on_http(self, call: int, request: HttpRequest) -> None:
        if request.target.startswith("/hold"):
            return
        body = f"{request.method} {request.target} {len(request.body)}".encode()
        self.server.http_reply(call, 200, [("content-type", "text/plain")], body)

    def events(self, kind: str) -> list[Seen]:
        with self._news:
            return [event for event in self.seen if event.kind == kind]

    def wait(self, kind: str, count: int = 1, timeout: float = 10) -> list[Seen]:
        """The events of a kind, once there are so many."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                found = [event for event in self.seen if event.kind == kind]
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, f"only {len(found)} of {count} {kind} events; seen {self.seen[-20:]}"
                self._news.wait(left)

    def close(self) -> None:
        self.server.shutdown(0.0)
        self._stop.set()
        self._thread.join()


@contextmanager
def serving(limits: Limits | None = None, **options: Any) -> Iterator[Harness]:
    """`options`: those of Server."""
    harness = Harness(limits, **options)
    try:
        harness.listen()
        yield harness
    finally:
        harness.close()


def eventually(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Wait for what no event announces."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.002)


DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 1, 3, 5, 6
REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 9, 11


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(payload: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(payload)) + payload


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error(self) -> int:
        """Code of a RST_STREAM or GOAWAY."""
        at = 0 if self.kind == RST_STREAM else 4
        return int.from_bytes(self.payload[at : at + 4], "big")


class Raw:
    """A client that sends what it is told, well formed or not."""

    def __init__(self, port: int, hello: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self._unread = b""
        if hello:
            self.send(PREFACE + frame(SETTINGS))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def head(self, path: str = "/test.Echo/Say", **extra: str) -> bytes:
        """A header block for a gRPC request."""
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"),
                   ("content-type", "application/grpc"), ("te", "trailers")]  # fmt: skip
        return self.encoder.encode(
            [*headers, *((name.replace("_", "-"), value) for name, value in extra.items())]
        )

    def request(
        self, stream: int, path: str = "/test.Echo/Say", payload: bytes | None = b"hi", **extra: str
    ) -> None:
        """A whole request; without a payload, only its headers, the stream left open."""
        data = frame(HEADERS, END_HEADERS, stream, self.head(path, **extra))
        if payload is not None:
            data += frame(DATA, END_STREAM, stream, message(payload))
        self.send(data)

    def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        header = self._exactly(9)
        if header is None:
            return None
        payload = self._exactly(int.from_bytes(header[:3], "big"))
        assert payload is not None, "the connection ended inside a frame"
        return Frame(header[3], header[4], int.from_bytes(header[5:], "big"), payload)

    def _exactly(self, size: int) -> bytes | None:
        while len(self._unread) < size:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self._unread += more
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def until(self, kind: int, stream: int | None = None, flags: int = 0) -> Frame:
        """Skip to the first frame of a kind (on a stream, with flags)."""
        while (found := self.frame()) is not None:
            if found.kind == HEADERS and found.kind != kind:
                self.decoder.decode(found.payload)
            if found.kind == kind and stream in {None, found.stream} and found.flags & flags == flags:
                return found
        raise AssertionError(f"the connection ended without a frame of kind {kind}")

    def status(self, stream: int) -> tuple[str, str]:
        """gRPC status and message a call ends with."""
        while True:
            found = self.frame()
            assert found is not None, "the connection ended"
            if found.kind == HEADERS:
                headers = dict(self.decoder.decode(found.payload))
                if found.stream == stream and "grpc-status" in headers:
                    return headers["grpc-status"], headers.get("grpc-message", "")

    def goodbye(self) -> int:
        """Error code of the GOAWAY, after which the connection must end."""
        found = self.until(GOAWAY)
        while self.frame() is not None:
            pass
        return found.error

    def ends(self) -> bool:
        """The server closes the connection, with or without a goodbye."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self.socket.close()
