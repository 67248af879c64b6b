"""What a node is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from pyetcd.raft.logger import Logger, SilentLogger
from pyetcd.raft.storage import Storage
from pyetcd.raft.types import APPEND_THREAD, APPLY_THREAD, NO_LIMIT, NONE


class Randomness(Protocol):
    """What raft asks of chance, to keep elections apart; a `random.Random` is one."""

    def randrange(self, stop: int, /) -> int: ...


class ReadOnlyOption(Enum):
    """How a leader makes sure it still is one before it answers a read.

    SAFE asks a quorum. LEASE trusts that nobody else was elected within the election timeout, which is only
    as good as the members' clocks; it needs `check_quorum`.
    """

    SAFE = "safe"
    LEASE = "lease-based"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes in bytes of encoded entries unless it says otherwise; times in ticks.

    `max_message_bytes`: one append message carries that much, but at least one entry (0: exactly one).
    `max_applying_bytes`: handed out to be applied and not yet acknowledged; 0 means as `max_message_bytes`.
    `max_uncommitted_bytes`: data of proposals not applied yet, beyond which proposals are dropped; 0 for no
    limit. `max_inflight_messages`, `max_inflight_bytes`: the window to each follower; 0 bytes for no limit
    by bytes. `applied`: the last index the state machine has applied, at a restart. `async_storage`: see
    the package's docstring.
    """

    id: int
    election_ticks: int
    heartbeat_ticks: int
    storage: Storage
    random: Randomness
    applied: int = 0
    async_storage: bool = False
    max_message_bytes: int = NO_LIMIT
    max_applying_bytes: int = 0
    max_uncommitted_bytes: int = 0
    max_inflight_messages: int = 256
    max_inflight_bytes: int = 0
    check_quorum: bool = False
    pre_vote: bool = False
    read_only: ReadOnlyOption = ReadOnlyOption.SAFE
    gather_reads: bool = False  # one round of heartbeats at a time, for all reads that wait for one
    disable_proposal_forwarding: bool = False
    disable_conf_change_validation: bool = False
    step_down_on_removal: bool = False
    logger: Logger = field(default_factory=SilentLogger)

    def validate(self) -> None:
        """Raises ValueError, in etcd's words."""
        problems = (
            (self.id == NONE, "cannot use none as id"),
            (self.id in (APPEND_THREAD, APPLY_THREAD), "cannot use local target as id"),
            (self.heartbeat_ticks <= 0, "heartbeat tick must be greater than 0"),
            (
                self.election_ticks <= self.heartbeat_ticks,
                "election tick must be greater than heartbeat tick",
            ),
            (self.max_inflight_messages <= 0, "max inflight messages must be greater than 0"),
            (
                0 < self.max_inflight_bytes < self.max_message_bytes,
                "max inflight bytes must be >= max message size",
            ),
            (
                self.read_only is ReadOnlyOption.LEASE and not self.check_quorum,
                "CheckQuorum must be enabled when ReadOnlyOption is ReadOnlyLeaseBased",
            ),
        )
        for wrong, text in problems:
            if wrong:
                raise ValueError(text)
