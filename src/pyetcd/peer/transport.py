"""Raft's messages to and from the other members: who they are, what is sent to whom, what is served to them.

`add_peer`, `update_peer` and `remove_peer` follow the membership; `send` queues messages, `flush` ends the
turn; `handle` answers requests under `/raft`. Nothing here waits: whatever cannot be delivered is dropped,
and raft is told. Messages to nobody we know are dropped without a word, as in etcd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyetcd import logs
from pyetcd.cluster.urls import Url
from pyetcd.peer import replies
from pyetcd.peer.context import Link, Timeouts
from pyetcd.peer.counters import Counters
from pyetcd.peer.headers import Identity, hex_id
from pyetcd.peer.kinds import StreamKind
from pyetcd.peer.message_in import MessageReceiver
from pyetcd.peer.peer import Peer
from pyetcd.peer.picker import UrlPicker
from pyetcd.peer.remote import Remote
from pyetcd.peer.seams import Database, Raft
from pyetcd.peer.served import Served
from pyetcd.peer.snapshot_in import SnapshotReceiver
from pyetcd.peer.status import PeerStatus
from pyetcd.peer.stream_out import Outbox
from pyetcd.peer.wire import PeerWire
from pyetcd.raft import NONE, Message

if TYPE_CHECKING:
    from pyetcd._native import HttpRequest, Meta

REMOTES_MAX = 64  # senders we do not know: whoever they say they are, they do not make memory grow
DEFAULT_TIMEOUTS = Timeouts()

_log = logs.get("peer")


class Transport:
    """`advertised`: our own peer URLs, which requests carry. Every method is called from the loop."""

    def __init__(
        self,
        local_id: int,
        cluster_id: int,
        advertised: Sequence[str],
        wire: PeerWire,
        raft: Raft,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        self.identity = Identity(local_id, cluster_id, tuple(advertised))
        self.counters: dict[int, Counters] = {}  # by ID; those of members that are gone are kept
        self.unknown = Counters()  # of senders that are nobody
        self._wire = wire
        self._raft = raft
        self._loop = loop
        self._timeouts = timeouts
        self._outbox = Outbox(wire.server, loop)
        self._peers: dict[int, Peer] = {}
        self._remotes: dict[int, Remote] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._receiver = SnapshotReceiver(local_id, wire, raft, loop)
        self._messages = MessageReceiver(wire, loop)
        self._served = Served(self, wire, raft, self._receiver, self._messages)

    def add_peer(self, id: int, urls: Sequence[Url]) -> None:
        """A member of the cluster; not ourselves. Nothing happens if it is one already."""
        assert id != self.identity.local_id, "a member is not its own peer"
        if self._stopped or id in self._peers:
            return
        remote = self._remotes.pop(id, None)
        if remote is not None:
            remote.stop()
        self._peers[id] = Peer(self._link(id, urls), urls, self._outbox)
        _log.info("added remote peer", self._fields(id, urls=[url.text for url in urls]))

    def update_peer(self, id: int, urls: Sequence[Url]) -> None:
        """Its peer URLs have changed."""
        peer = self._peers.get(id)
        if peer is None:
            return
        peer.update(urls)
        _log.info(
            "updated remote peer",
            {
                "local-member-id": hex_id(self.identity.local_id),
                "updated-remote-peer-id": hex_id(id),
                "updated-remote-peer-urls": [url.text for url in urls],
            },
        )

    def remove_peer(self, id: int) -> None:
        """It is no member any more; removed twice while the log is replayed, perhaps."""
        fields = {
            "local-member-id": hex_id(self.identity.local_id),
            "removed-remote-peer-id": hex_id(id),
        }
        peer = self._peers.pop(id, None)
        if peer is None:
            _log.warn("skipped removing already removed peer", fields)
            return
        self._outbox.flush()  # what it has been told so far may be that it is removed
        self._forget_when_done(peer.stop())
        _log.info("removed remote peer", fields)

    def add_remote(self, id: int, urls: Sequence[Url]) -> None:
        """A sender that is no peer, to be answered nevertheless."""
        if self._stopped or id in self._peers or id in self._remotes or len(self._remotes) >= REMOTES_MAX:
            return
        self._remotes[id] = Remote(self._link(id, urls))
        _log.info("added new remote peer", self._fields(id, urls=[url.text for url in urls]))

    def has_peer(self, id: int) -> bool:
        return id in self._peers

    def has_remote(self, id: int) -> bool:
        return id in self._remotes

    def active_since(self, id: int) -> float | None:
        """The loop's time since when traffic with this peer has gone well; None: it does not."""
        peer = self._peers.get(id)
        return None if peer is None else peer.link.status.since

    def active_peers(self) -> int:
        return sum(peer.link.status.active for peer in self._peers.values())

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages; they go out with `flush`."""
        for message in messages:
            to = message.to
            peer = self._peers.get(to)
            if peer is not None:
                peer.send(message)
                continue
            remote = self._remotes.get(to)
            if remote is not None:
                remote.send(message)
            elif to != NONE:
                _log.debug(
                    "ignored message send request; unknown remote peer target",
                    {"type": message.type.name, "unknown-target-peer-id": hex_id(to)},
                )

    def hold(self) -> None:
        """A turn has begun that will `flush`. It spares a turn of the loop for nothing."""
        self._outbox.hold()

    def flush(self) -> None:
        """The end of a turn: everything for streams goes to the wire at once."""
        self._outbox.flush()

    def send_snapshot(self, message: Message, database: Database) -> None:
        """Raft is told how it ends; the database is closed then. Only peers get snapshots."""
        peer = self._peers.get(message.to)
        if peer is None or self._stopped:
            database.close()
            return
        peer.snapshots.send(message, database)

    def handle(self, call: int, request: HttpRequest, meta: Meta) -> bool:
        """Answer a request whose path is ours; False when it is not."""
        if self._stopped:
            replies.error(self._wire.server, call, 503, "etcdserver: server stopped")
            return True
        return self._served.handle(call, request)

    def attach(self, id: int, call: int, kind: StreamKind) -> None:
        """A peer's request for a stream has been answered: it begins."""
        self._peers[id].attach(call, kind)

    def counters_of(self, id: int) -> Counters:
        """Those of a member we know, peer or remote; else those of everybody else."""
        return self.counters.get(id, self.unknown)

    async def stop(self) -> None:
        """End all streams, give up what is under way."""
        self._stopped = True
        self._outbox.flush()
        for remote in self._remotes.values():
            remote.stop()
        self._messages.stop()
        tasks = [*self._ending, *self._receiver.stop()]
        for peer in self._peers.values():
            tasks += peer.stop()
        self._remotes.clear()
        self._peers.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _link(self, id: int, urls: Sequence[Url]) -> Link:
        counters = self.counters.setdefault(id, Counters())
        return Link(
            self.identity,
            id,
            UrlPicker(urls),
            PeerStatus(id, counters, self._loop),
            counters,
            self._wire,
            self._raft,
            self._loop,
            self._timeouts,
        )

    def _forget_when_done(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _fields(self, id: int, urls: Sequence[str]) -> logs.Fields:
        return {
            "local-member-id": hex_id(self.identity.local_id),
            "remote-peer-id": hex_id(id),
            "remote-peer-urls": urls,
        }
