"""What this room asks of the member, and how a member says no to another one.

Every method is called from the loop. `process` gets messages in the order in which they came on a stream;
it may be called in the middle of a turn, so what it sends goes out with the turn's `flush`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyetcd.raft import Message


class Refused(Exception):
    """A message or request is refused over HTTP with this status. `text` is what the other side reads."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class SnapshotSink(Protocol):
    """Where a snapshot's database goes. `finish`: it is whole and durable. `abort`: forget it; after an error
    too, and perhaps while a `write` is under way (which has been cancelled then)."""

    async def write(self, chunk: bytes) -> None: ...
    async def finish(self) -> None: ...
    def abort(self) -> None: ...


class Raft(Protocol):
    """The member, as its peers' traffic needs it."""

    def process(self, message: Message) -> None:
        """Take one message. Raises Refused, InvalidMessage or ProposalDropped."""

    def is_removed(self, id: int) -> bool:
        """Whether `id` was a member once and never will be again."""

    def leads(self, id: int) -> bool:
        """Whether `id` is the leader, as far as is known here."""

    def stranger(self, id: int, urls: Sequence[str]) -> None:
        """A sender that is no peer has shown up with these peer URLs (unchecked text): the member decides
        whether to believe it, and may call `Transport.add_remote`."""

    def report_unreachable(self, id: int) -> None:
        """A message to `id` was lost."""

    def report_snapshot(self, id: int, ok: bool) -> None:
        """The snapshot sent to `id` has arrived, or has not."""

    def receive_snapshot(self, message: Message) -> SnapshotSink:
        """A snapshot is about to arrive; `message` is processed once it is there. Raises Refused."""

    def member_removed(self) -> None:
        """A peer has told us that we are removed for good."""


class Database(Protocol):
    """The database behind a snapshot message, as it stood at the snapshot's index."""

    size: int

    async def read(self, offset: int, count: int) -> bytes: ...
    def close(self) -> None: ...
