"""Sockets that listen, from the URLs that ask for them to the wire that serves them.

Rules that hold here:

* What one address is asked for by several URLs (`http://` and `https://`) is one socket that takes both.
* A socket that the service manager has bound already is taken rather than bound again.
* A name with addresses of both families listens on IPv4, an empty host on all of both, as in Go.
* A socket file that somebody left behind is replaced; any other file is not.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd._native import Server, Tls
from pyetcd.cluster.urls import Url, join_host_port

BACKLOG: Final = 4096


@dataclass(slots=True)
class Entrance:
    """A bound socket, and what it takes. `tls`: None for plain text alone."""

    url: Url
    socket: socket.socket
    tls: Tls | None = None
    plain: bool = True
    grpc: bool = True
    http: bool = True

    @property
    def address(self) -> str:
        """As log lines have it: host and port, or a path."""
        return self.url.host + self.url.path

    def open(self, server: Server) -> None:
        """Let the wire accept; the socket is the wire's from now on."""
        assert self.tls is not None or self.plain, "a secure URL is never served in plain text"
        server.listen(self.socket.detach(), self.tls, self.plain, self.grpc, self.http)

    def close(self) -> None:
        """Let go of a socket that was not opened."""
        self.socket.close()


class Sockets:
    """Binds. `inherited`: sockets that listen already; each is taken by the URL of its address."""

    def __init__(self, inherited: Iterable[socket.socket] = (), *, reuse_port: bool = False) -> None:
        self._inherited = list(inherited)
        self._reuse_port = reuse_port

    def bind(
        self, urls: Sequence[Url], tls: Tls | None = None, *, grpc: bool = True, http: bool = True
    ) -> list[Entrance]:
        """One socket for each address, in the order of the URLs. `tls` is needed where one is secure.
        OSError with Go's words when an address cannot be had."""
        places: dict[str, list[Url]] = {}
        for url in urls:
            places.setdefault(url.host + url.path, []).append(url)
        bound: list[Entrance] = []
        try:
            for same in places.values():
                secured = tls if any(url.is_secure for url in same) else None
                plain = not all(url.is_secure for url in same)
                bound.append(Entrance(same[0], self._bind(same[0]), secured, plain, grpc, http))
        except OSError:
            for entrance in bound:
                entrance.close()
            raise
        return bound

    @property
    def unclaimed(self) -> list[str]:
        """The addresses of the inherited sockets that no URL has asked for."""
        return [_text(each) for each in self._inherited]

    def _bind(self, url: Url) -> socket.socket:
        for each in self._inherited:
            if _is_at(each, url):
                self._inherited.remove(each)
                return each
        if url.is_unix:
            return _bind_unix(url.socket_path)
        return _bind_tcp(url.hostname, int(url.port), self._reuse_port)


def _bind_tcp(host: str, port: int, reuse_port: bool) -> socket.socket:
    failure: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    try:
        addresses = _addresses(host, port)
    except socket.gaierror as error:
        raise OSError(error.errno, f"listen tcp: lookup {host}: no such host") from None
    for family, address in addresses:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            failure = error
        else:
            return listener
    raise _failed(failure, f"listen tcp {join_host_port(host, port)}")


def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    if not host:
        return [(socket.AF_INET6, ("::", port)), (socket.AF_INET, ("0.0.0.0", port))]
    # In bytes: Python would load a codec for names in other scripts, which URLs do not have.
    found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    pairs = [(int(family), (str(address[0]), port)) for family, _, _, _, address in found]
    return sorted(pairs, key=lambda pair: pair[0] == socket.AF_INET6)


def _bind_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path) and stat.S_ISSOCK(os.lstat(path).st_mode):
            os.remove(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _failed(error, f"listen unix {path}") from None
    return listener


def _failed(error: OSError, what: str) -> OSError:
    """An error whose text is Go's, and nothing besides."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    failure = OSError(f"{what}: bind: {reason}")
    failure.errno = error.errno
    return failure


def _is_at(listener: socket.socket, url: Url) -> bool:
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return url.is_unix and address == url.socket_path
    if url.is_unix or str(address[1]) != url.port:
        return False
    everywhere = ("", "0.0.0.0", "::")
    if url.hostname in everywhere:
        return address[0] in everywhere
    return any(address[0] == named[0] for _, named in _addresses(url.hostname, address[1]))


def _text(listener: socket.socket) -> str:
    address = listener.getsockname()
    return str(address) if listener.family == socket.AF_UNIX else f"{address[0]}:{address[1]}"
