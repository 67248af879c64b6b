"""The network between members: one TCP proxy before every member's peer port, and what happens on each link.

A link is what flows from one member to another, whoever dialled: etcd sends its messages both in requests of
the sender and in answers to requests of the receiver. Whose a connection is, is read from the first request
that carries the header `X-Server-From`. Probes and questions about versions, which carry none, may have gone
before it on the same connection, and always pass.

A link is in one of these states:

| state | connections | bytes |
| --- | --- | --- |
| open | stay | flow, `delay` seconds late |
| stalled | stay, new ones are accepted | held back until the link is open again, as by TCP in an outage |
| lossy | stay, new ones are accepted | swallowed; a connection that lost some is reset in the end |
| cut | are reset, new ones are refused | none |
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

FROM = re.compile(rb"\r\nX-Server-From: ([0-9a-fA-F]+)\r\n", re.IGNORECASE)
CHUNK = 1 << 16

Result = TypeVar("Result")


class State(Enum):
    OPEN = "open"
    STALLED = "stalled"
    LOSSY = "lossy"
    CUT = "cut"


@dataclass(slots=True)
class Link:
    """What flows from one member to another."""

    state: State = State.OPEN
    delay: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False, slots=True)
class Connection:
    """One to `target`; `source_id` is empty as long as whoever dialled has not said who it is."""

    target: str
    ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    source_id: str = ""
    lost: bool = False

    def reset(self) -> None:
        for end in self.ends:
            end.transport.abort()


class Network:
    """All proxies, on one loop in a thread of their own. Methods may be called from any thread; each returns
    when it has taken effect."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._links: dict[tuple[str, str], Link] = {}
        self._names: dict[str, str] = {}  # member IDs in hex, as the header has them → names
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # What tests say

    def listen(self, name: str, port: int) -> int:
        """A proxy before a member's peer port; its own port."""
        return self._run(self._listen(name, port))

    def know(self, name: str, id: int) -> None:
        """Which ID a member's requests carry."""
        self._names[f"{id:x}"] = name

    def set(self, sources: Iterable[str], targets: Iterable[str], state: State, delay: float = 0.0) -> None:
        """The state of all links from any of `sources` to any of `targets`."""
        pairs = [(one, other) for one in sources for other in targets if one != other]
        self._run(self._set(pairs, state, delay))

    def between(self, some: Iterable[str], others: Iterable[str], state: State, delay: float = 0.0) -> None:
        """The state of all links between two groups, both ways."""
        some, others = list(some), list(others)
        self.set(some, others, state, delay)
        self.set(others, some, state, delay)

    def heal(self) -> None:
        """All links are open again, without delay."""
        self._run(self._set(list(self._links), State.OPEN, 0.0))

    def close(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # On the loop

    def _run(self, work: Coroutine[None, None, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, name: str, port: int) -> int:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._serve(name, port, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _set(self, pairs: Iterable[tuple[str, str]], state: State, delay: float) -> None:
        for pair in pairs:
            link = self._link(*pair)
            link.state, link.delay = state, delay
            link.changed.set()
            link.changed = asyncio.Event()
        for connection in list(self._connections):
            if self._is_to_be_reset(connection):
                connection.reset()

    def _is_to_be_reset(self, connection: Connection) -> bool:
        states = (self._there(connection).state, self._back(connection).state)
        return State.CUT in states or (connection.lost and State.LOSSY not in states)

    def _there(self, connection: Connection) -> Link:
        """What the requests of a connection are part of."""
        return self._link(self._source(connection), connection.target)

    def _back(self, connection: Connection) -> Link:
        """What the answers on a connection are part of."""
        return self._link(connection.target, self._source(connection))

    def _source(self, connection: Connection) -> str:
        """Looked up each time: a member may be dialling before its ID is known to us."""
        return self._names.get(connection.source_id, connection.source_id)

    def _link(self, source: str, target: str) -> Link:
        return self._links.setdefault((source, target), Link())

    async def _serve(
        self, name: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(name, (writer, inner_writer))
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(connection, self._there, reader, inner_writer))
                both.create_task(self._pump(connection, self._back, inner_reader, writer))
        except* OSError:
            pass  # one side is gone, and so is the other in a moment
        finally:
            connection.reset()
            self._connections.discard(connection)

    async def _pump(
        self,
        connection: Connection,
        link_of: Callable[[Connection], Link],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while chunk := await reader.read(CHUNK):
            if not connection.source_id and (found := FROM.search(chunk)):
                connection.source_id = found[1].decode().lower().lstrip("0")
                if self._is_to_be_reset(connection):
                    connection.reset()
                    return
            if delay := link_of(connection).delay:
                await asyncio.sleep(delay)  # what comes meanwhile goes on with the next chunk
            while (link := link_of(connection)).state is State.STALLED:
                await link.changed.wait()
            if link.state is State.LOSSY:
                connection.lost = True
            else:
                writer.write(chunk)
                await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
