"""The TCP gateway: bytes of a connection to an endpoint and back, without a look at them.

A connection belongs to one endpoint until either side closes it; then the other side is closed once it has
been sent what was read before. What one side does not take is not read from the other, so a connection
holds a few hundred kB at most, whoever is slow. An endpoint that cannot be reached is left alone for
`--retry-delay` and the connection goes to the next; when none is left, the client's connection is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from datetime import timedelta

from pyetcd import logs
from pyetcd.proxy.gotext import dial_error
from pyetcd.proxy.remotes import Remote, Remotes

WRITE_BUFFER_BYTES = 256 << 10  # unsent bytes of one direction beyond which its source is not read

_log = logs.get("tcpproxy")


class Side(asyncio.Protocol):
    """One of the two connections of a client; `other` is where its bytes go."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None, "nothing is read before both sides are there"
        assert self.other.transport is not None
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other._is_closed:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other._is_closed:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closed = True
        if self.other is not None:
            self.other.close()

    def close(self) -> None:
        """Once what was written has left."""
        if self.transport is not None and not self._is_closed:
            self._is_closed = True
            self.transport.close()


class ClientSide(Side):
    """The client's. It is not read until an endpoint has been found."""

    def __init__(self, proxy: TcpProxy) -> None:
        super().__init__()
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._proxy.start(self)

    def found(self, endpoint: Side) -> None:
        """The two belong together from now on."""
        self.other, endpoint.other = endpoint, self
        if self._is_closed:
            endpoint.close()
            return
        assert self.transport is not None
        assert endpoint.transport is not None
        endpoint.transport.resume_reading()
        self.transport.resume_reading()


class EndpointSide(Side):
    """The endpoint's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()  # what it says first may come before it has a client


class TcpProxy:
    """Serves until it is cancelled."""

    def __init__(self, remotes: Remotes, retry_seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self._remotes = remotes
        self._retry_seconds = retry_seconds
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        server = await self._loop.create_server(lambda: ClientSide(self), sock=listener)
        try:
            async with server:
                while True:
                    await asyncio.sleep(self._retry_seconds)
                    for remote in self._remotes.dead():
                        self._run(self._revive(remote))
        finally:
            for task in self._tasks:
                task.cancel()

    def start(self, client: ClientSide) -> None:
        """Find an endpoint for a new connection."""
        self._run(self._connect(client))

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: ClientSide) -> None:
        while True:
            remote = self._remotes.pick()
            if remote is None:
                client.close()
                return
            try:
                client.found(await self._dial(remote))
                return
            except OSError as error:
                remote.is_live = False
                _log.warn("deactivated endpoint", self._about(remote, error))

    async def _revive(self, remote: Remote) -> None:
        try:
            side = await self._dial(remote)
        except OSError as error:
            _log.warn(
                "failed to activate endpoint (stay inactive for another interval)", self._about(remote, error)
            )
            return
        side.close()
        remote.is_live = True
        _log.info("activated", {"address": remote.address})

    def _about(self, remote: Remote, error: OSError) -> dict[str, object]:
        interval = timedelta(seconds=self._retry_seconds)
        return {"address": remote.address, "interval": interval, "error": str(error)}

    async def _dial(self, remote: Remote) -> EndpointSide:
        """The first of its addresses that takes a connection. OSError with Go's words of the first that does
        not."""
        try:
            found = await self._loop.getaddrinfo(remote.host, remote.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise OSError(dial_error(remote.host, remote.port, error)) from None
        failure = ""
        for *_, address in found:
            try:
                _, side = await self._loop.create_connection(EndpointSide, str(address[0]), remote.port)
            except OSError as error:
                failure = failure or dial_error(str(address[0]), remote.port, error)
            else:
                return side
        raise OSError(failure)
