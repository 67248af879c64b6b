"""Open requests and websockets of the JSON gateway, read line by line."""

from __future__ import annotations

import http.client
import json
import socket
from types import TracebackType
from typing import Any

from servers import Server
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Pong, TextMessage

SECONDS = 20
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455's own example


class Lines:
    """A request that is answered line by line."""

    def __init__(self, server: Server, path: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
        self._connection.request("POST", path, body, headers or {})
        self._response: http.client.HTTPResponse | None = None

    @property
    def response(self) -> http.client.HTTPResponse:
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def next(self) -> dict[str, Any] | None:
        """None: it has ended."""
        line = self.response.readline()
        if not line:
            return None
        assert line.endswith(b"\n")
        parsed: dict[str, Any] = json.loads(line)
        return parsed

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Socket:
    """A websocket; `head` is what answered the handshake."""

    def __init__(self, server: Server, path: str, *headers: str) -> None:
        self._frames = Connection(ConnectionType.CLIENT)
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {KEY}",
            *headers,
            "",
            "",
        ]
        self._socket.sendall("\r\n".join(lines).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            more = self._socket.recv(4096)
            assert more, data
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        self.head = head.decode().split("\r\n")
        self._events: list[Event] = []
        self._feed(rest)

    def _feed(self, data: bytes) -> None:
        self._frames.receive_data(data)
        self._events += self._frames.events()

    def say(self, what: str | Event) -> None:
        self._socket.sendall(self._frames.send(TextMessage(what) if isinstance(what, str) else what))

    def next(self) -> str | Event | None:
        """The next whole text, a pong or a goodbye; None: the connection is closed."""
        text = ""
        while True:
            while not self._events:
                data = self._socket.recv(1 << 16)
                if not data:
                    return None
                self._feed(data)
            event = self._events.pop(0)
            if isinstance(event, (CloseConnection, Pong)):
                return event
            assert isinstance(event, TextMessage)
            text += event.data
            if event.message_finished:
                return text

    def json(self) -> dict[str, Any]:
        text = self.next()
        assert isinstance(text, str), text
        parsed: dict[str, Any] = json.loads(text)
        return parsed

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
