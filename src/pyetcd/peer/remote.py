"""A sender that is no peer yet: we have not applied the change that made it one, and so need to hear from it.

Answers go to it as single requests, until it becomes a peer or the member stops.
"""

from __future__ import annotations

from pyetcd import logs
from pyetcd.peer.context import Link
from pyetcd.peer.headers import hex_id
from pyetcd.peer.pipeline import Pipeline
from pyetcd.raft import Message

_log = logs.get("peer")


class Remote:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._pipeline = Pipeline(link)

    def send(self, message: Message) -> None:
        if self._pipeline.put(message):
            return
        link = self._link
        what = "dropped internal Raft message" if link.status.active else "dropped Raft message"
        _log.warn(
            f"{what} since sending buffer is full (overloaded network)",
            {
                "message-type": message.type.name,
                "local-member-id": hex_id(link.identity.local_id),
                "from": hex_id(message.from_),
                "remote-peer-id": hex_id(link.id),
                "remote-peer-active": link.status.active,
            },
        )
        link.counters.sent_failures += 1

    def stop(self) -> None:
        self._pipeline.stop()
        self._link.status.forget()
