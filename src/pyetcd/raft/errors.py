"""How raft says no.

`ProposalDropped` is part of life and the caller's to answer. `InvalidMessage` and its like refuse a message
before anything has changed: log it, count it, drop it. `InvariantBroken` means that what raft relies on no
longer holds (a log that lost acknowledged entries, storage that contradicts itself): the member must stop,
since to go on could lose data.
"""

from __future__ import annotations


class RaftError(Exception):
    """Any refusal of this room."""


class ProposalDropped(RaftError):
    """There is no leader to take it, leadership is moving, or too much is uncommitted already."""

    def __init__(self) -> None:
        super().__init__("raft proposal dropped")


class InvalidMessage(RaftError):
    """A message no correct member sends. Nothing has changed."""


class LocalMessage(InvalidMessage):
    """A message type that only ever comes from within arrived from outside."""

    def __init__(self) -> None:
        super().__init__("raft: cannot step raft local message")


class PeerNotFound(InvalidMessage):
    """An answer from somebody who is no member of the current configuration."""

    def __init__(self) -> None:
        super().__init__("raft: cannot step as peer not found")


class InvalidConfChange(RaftError):
    """A membership change that does not fit the current configuration."""


class StorageError(RaftError):
    """What `Storage` raises when it cannot give what was asked for."""


class Compacted(StorageError):
    def __init__(self) -> None:
        super().__init__("requested index is unavailable due to compaction")


class Unavailable(StorageError):
    def __init__(self) -> None:
        super().__init__("requested entry at index is unavailable")


class SnapshotOutOfDate(StorageError):
    def __init__(self) -> None:
        super().__init__("requested index is older than the existing snapshot")


class SnapshotTemporarilyUnavailable(StorageError):
    """The snapshot is being prepared; raft asks again later."""

    def __init__(self) -> None:
        super().__init__("snapshot is temporarily unavailable")


class InvariantBroken(RaftError):
    """What cannot happen has happened: stop, and keep what is on disk."""
