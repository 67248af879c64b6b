"""A member that keeps its log in memory and applies nothing: raft and the transport, wired as a server does.

It answers a leader truthfully but for one thing: nothing of it survives it. Good enough to be a third member.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from pyetcd._native import HttpRequest, Meta
from pyetcd.cluster.urls import Url, parse_urls
from pyetcd.listen import Sockets
from pyetcd.peer.port import PeerPort
from pyetcd.peer.transport import Transport
from pyetcd.peer.wire import PeerWire
from pyetcd.raft import Config, Entry, MemoryStorage, Message, MessageType, Node, Snapshot
from pyetcd.raft.codec import conf_change_of

TICK_SECONDS = 0.1


class MemorySink:
    """A snapshot's database, in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.finished = False
        self.aborted = False

    async def write(self, chunk: bytes) -> None:
        self.data += chunk

    async def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True


async def _version(request: HttpRequest, meta: Meta) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    return 200, (), b'{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}'


class RaftMember:
    """`start` it, `close` it. `applied` holds what was committed, `snapshots` what leaders sent."""

    def __init__(
        self, id: int, cluster_id: int, urls: Sequence[Url], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._urls = urls
        self._loop = loop
        self.storage = MemoryStorage()
        self.node = Node(
            Config(
                id=id,
                election_ticks=10,
                heartbeat_ticks=1,
                storage=self.storage,
                random=random.Random(id),
                async_storage=True,
                max_message_bytes=1 << 20,
                max_inflight_messages=512,
                check_quorum=True,
                pre_vote=True,
            )
        )
        self.applied: list[Entry] = []
        self.seen: set[MessageType] = set()
        self.snapshots: list[tuple[Snapshot, MemorySink]] = []
        self.reports: list[tuple[int, bool]] = []
        self.unreachable: list[int] = []
        self.removed_ids: set[int] = set()
        self.removed = False
        self.strangers: dict[int, Sequence[str]] = {}
        self._sink: MemorySink | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self.wire = PeerWire(loop, tls=None, dial_timeout_seconds=1.0)
        texts = [url.text for url in urls]
        self.transport = Transport(id, cluster_id, texts, self.wire, self, loop)
        self.port = PeerPort(self.wire, self.transport, {"/version": _version}, {})
        self.wire.after_turn = self.turn

    def start(self) -> None:
        self.port.listen(Sockets().bind(self._urls, grpc=False))
        self.wire.start()
        self._tick()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self.transport.stop()
        await self.port.close()
        await self.wire.close()

    def has_applied(self, data: bytes) -> bool:
        return any(data in entry.data for entry in self.applied)

    async def until(self, happened: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait for `happened()` to be true."""
        async with asyncio.timeout(seconds):
            while not happened():
                self._changed.clear()
                await self._changed.wait()

    def _tick(self) -> None:
        self.node.tick()
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self.turn()

    def turn(self) -> None:
        while (ready := self.node.ready()) is not None:
            self.transport.send(ready.messages)
            if ready.hard_state:
                self.storage.set_hard_state(ready.hard_state)
            if ready.snapshot is not None:
                self.storage.apply_snapshot(ready.snapshot)
            self.storage.append(ready.entries)
            if ready.wants_append():
                self.transport.send(self.node.stable(ready))
            for entry in ready.committed:
                self.applied.append(entry)
                if entry.type:
                    self.node.apply_conf_change(conf_change_of(entry))
            if ready.committed:
                self.node.applied(ready.committed[-1].index)
            elif ready.snapshot is not None:
                self.node.applied(ready.snapshot.index)
        self.transport.flush()
        self._changed.set()

    # What the transport asks of a member

    def process(self, message: Message) -> None:
        self.seen.add(message.type)
        if message.type == MessageType.MsgSnap and self._sink is not None and message.snapshot is not None:
            self.snapshots.append((message.snapshot, self._sink))
        self.node.step(message)

    def is_removed(self, id: int) -> bool:
        return id in self.removed_ids

    def leads(self, id: int) -> bool:
        return self.node.lead == id

    def stranger(self, id: int, urls: Sequence[str]) -> None:
        self.strangers[id] = urls
        self.transport.add_remote(id, parse_urls(urls))

    def report_unreachable(self, id: int) -> None:
        self.unreachable.append(id)
        self.node.report_unreachable(id)

    def report_snapshot(self, id: int, ok: bool) -> None:
        self.reports.append((id, ok))
        self.node.report_snapshot(id, ok)

    def receive_snapshot(self, message: Message) -> MemorySink:
        self._sink = MemorySink()
        return self._sink

    def member_removed(self) -> None:
        self.removed = True
