"""One other member of the cluster: two streams each way, single requests beside them, snapshots, a prober.

Which way a message takes, as in etcd: a MsgSnap is a single request, a MsgApp goes on the stream for appends
if the other side has asked for one, everything else (and a MsgApp else) on the stream for messages, and where
there is no stream, as a single request.

What arrives is processed at once and in order. A message must come from the member whose stream it is on;
only what members forward for others (proposals, read indexes, leader transfers) may carry another's name. A
MsgSnap that comes without its database, which etcd would end at, is not for raft either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from pyetcd import logs
from pyetcd.cluster.urls import Url
from pyetcd.peer import kinds, pipeline
from pyetcd.peer.context import Link
from pyetcd.peer.headers import hex_id
from pyetcd.peer.kinds import StreamKind
from pyetcd.peer.pipeline import Pipeline
from pyetcd.peer.prober import Prober
from pyetcd.peer.seams import Refused
from pyetcd.peer.snapshot_out import SnapshotSender
from pyetcd.peer.stream_in import IncomingStream
from pyetcd.peer.stream_out import Outbox, OutgoingStream
from pyetcd.raft import InvalidMessage, Message, MessageType, ProposalDropped

FORWARDED: Final = frozenset((MessageType.MsgProp, MessageType.MsgReadIndex, MessageType.MsgTransferLeader))

_log = logs.get("peer")


def unfit(message: Message, sender: int) -> str | None:
    """Why a message that came from `sender`, not as a snapshot, is not for raft; None when it is."""
    if message.from_ != sender and message.type not in FORWARDED:
        return "from field mismatch"
    if message.type == MessageType.MsgSnap:
        return "snapshot without a database"
    return None


def described(message: Message, sender: int) -> dict[str, object]:
    """Fields of a log line about a message."""
    return {
        "message-type": message.type.name,
        "from": hex_id(message.from_),
        "remote-peer-id": hex_id(sender),
    }


class Peer:
    def __init__(self, link: Link, urls: Sequence[Url], outbox: Outbox) -> None:
        self.link = link
        _log.info("starting remote peer", {"remote-peer-id": hex_id(link.id)})
        self._pipeline = Pipeline(link)
        self._appends = OutgoingStream(link, kinds.MSGAPP, outbox)
        self._messages = OutgoingStream(link, kinds.MESSAGE, outbox)
        self.snapshots = SnapshotSender(link)
        self._incoming = [IncomingStream(link, kind, self.receive) for kind in (kinds.MSGAPP, kinds.MESSAGE)]
        self._prober = Prober(link, tuple(urls))
        self._ending: list[asyncio.Task[None]] = []
        _log.info("started remote peer", {"remote-peer-id": hex_id(link.id)})

    def update(self, urls: Sequence[Url]) -> None:
        self.link.picker.update(urls)
        self._ending = [task for task in (*self._ending, self._prober.stop()) if not task.done()]
        self._prober = Prober(self.link, tuple(urls))

    def send(self, message: Message) -> None:
        if message.type == MessageType.MsgApp and self._appends.attached:
            self._appends.send(message)
        elif message.type != MessageType.MsgSnap and self._messages.attached:
            self._messages.send(message)
        elif not self._pipeline.put(message):
            self._dropped(message)

    def attach(self, call: int, kind: StreamKind) -> None:
        """The other side has asked for a stream, and its request has been answered."""
        (self._appends if kind is kinds.MSGAPP else self._messages).attach(call)

    def receive(self, message: Message) -> None:
        """A message that came on a stream of this peer."""
        link = self.link
        reason = unfit(message, link.id)
        if reason is not None:
            link.counters.received_failures += 1
            _log.warn("ignored Raft message", {**described(message, link.id), "error": reason})
            return
        try:
            link.raft.process(message)
        except (Refused, InvalidMessage, ProposalDropped) as error:
            _log.warn("failed to process Raft message", {"error": error})
        except Exception as error:  # a bug, of which those who sent the message know nothing
            _log.error("failed to process Raft message", exc=error)

    def stop(self) -> list[asyncio.Task[None]]:
        """Nothing more is sent or heard; the tasks are to be awaited."""
        who = {"remote-peer-id": hex_id(self.link.id)}
        _log.info("stopping remote peer", who)
        self._appends.stop()
        self._messages.stop()
        self._pipeline.stop()
        tasks = [*self.snapshots.stop(), self._prober.stop(), *self._ending]
        for stream in self._incoming:
            stream.stop()
        self.link.status.forget()
        _log.info("stopped remote peer", who)
        return tasks

    def _dropped(self, message: Message) -> None:
        """There was no room for it."""
        link = self.link
        _log.warn(
            "dropped internal Raft message since sending buffer is full",
            {
                "message-type": message.type.name,
                "local-member-id": hex_id(link.identity.local_id),
                "from": hex_id(message.from_),
                "remote-peer-id": hex_id(link.id),
                "remote-peer-name": pipeline.NAME,
                "remote-peer-active": link.status.active,
            },
        )
        link.counters.sent_failures += 1
        link.raft.report_unreachable(link.id)
        if message.type == MessageType.MsgSnap:
            link.raft.report_snapshot(link.id, False)
