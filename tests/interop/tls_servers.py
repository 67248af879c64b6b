"""Servers with certificates, ours and real etcd alike, and clients that knock with certificates of theirs."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from authority import Authority
from servers import ETCD, Server

LINE_SECONDS = 10.0
KNOCK_SECONDS = 5.0


class TlsServer(Server):
    """A member that listens with https. `executable` None: ours."""

    def __init__(self, executable: Path | None, directory: Path, **flags: object) -> None:
        self.executable = executable or ETCD
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory, **flags)

    @property
    def client_url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [
            str(self.executable),
            f"--data-dir={self.directory / 'data'}",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster=default={self.peer_url}",
        ]

    def rejected(self, count: int, endpoint: str = "client") -> list[dict[str, object]]:
        """What the log says of those turned away, once they are so many; without times and ports."""
        deadline = time.monotonic() + LINE_SECONDS
        while True:
            found = []
            for text in self.printed.text().splitlines():
                if f"rejected connection on {endpoint} endpoint" in text and text.endswith("}"):
                    line = json.loads(text)
                    host = line.pop("remote-addr").rpartition(":")[0]
                    told = {name: each for name, each in line.items() if name not in ("ts", "caller")}
                    found.append(told | {"host": host})
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count}:\n{self.printed.text()}"
            time.sleep(0.02)


def context(
    authority: Authority | None, name: str | None = None, *, alpn: Sequence[str] = ("http/1.1",)
) -> ssl.SSLContext:
    """A client's. Without authority it takes any server."""
    made = ssl.create_default_context(cafile=str(authority.ca) if authority is not None else None)
    made.check_hostname = False
    if authority is None:
        made.verify_mode = ssl.CERT_NONE
    elif name is not None:
        made.load_cert_chain(authority.directory / f"{name}.pem", authority.directory / f"{name}.key")
    made.set_alpn_protocols(list(alpn))
    return made


def knock(port: int, how: ssl.SSLContext, server_name: str = "localhost") -> bool:
    """Whether a request over a new connection is answered."""
    try:
        with closing(connected(port, how, server_name)) as secured:
            return ask(secured).startswith(b"HTTP/1.1 200")
    except (OSError, ssl.SSLError):
        return False


def connected(port: int, how: ssl.SSLContext, server_name: str = "localhost") -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), KNOCK_SECONDS)
    try:
        return how.wrap_socket(plain, server_hostname=server_name)
    except BaseException:
        plain.close()
        raise


def ask(secured: ssl.SSLSocket) -> bytes:
    """One request on a kept connection."""
    secured.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while b"}" not in answer:
        more = secured.recv(4096)
        if not more:
            break
        answer += more
    return answer
