"""What the leader knows of one follower, and how it sends to it.

    probe      where the follower's log ends is unknown: one append at a time, at most one a heartbeat
    replicate  it is known: appends are sent without waiting, as many as the window (`Inflights`) allows
    snapshot   what it needs is compacted away: a snapshot is under way, nothing else is sent

`match` is what the follower is known to have in common with us, `next` the first entry to send; what lies
between is in flight. Invariant: `match < next`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from pyetcd.raft.inflights import Inflights


class ProgressState(IntEnum):
    StateProbe = 0
    StateReplicate = 1
    StateSnapshot = 2


PROBE: Final = ProgressState.StateProbe
REPLICATE: Final = ProgressState.StateReplicate
SNAPSHOT: Final = ProgressState.StateSnapshot


class Progress:
    __slots__ = (
        "inflights",
        "is_learner",
        "match",
        "next",
        "paused",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(
        self,
        match: int,
        next: int,
        inflights: Inflights,
        is_learner: bool = False,
        recent_active: bool = False,
    ) -> None:
        self.match = match
        self.next = next
        self.inflights = inflights
        self.is_learner = is_learner
        self.recent_active = recent_active  # heard from since the last quorum check
        self.state = PROBE
        self.paused = False  # send nothing until the follower answers or a heartbeat is answered
        self.pending_snapshot = 0  # index of the snapshot under way
        self.sent_commit = 0  # highest commit index in flight to the follower

    def copy(self) -> Progress:
        """A twin that shares the window: enough for configuration changes, which only touch `is_learner`."""
        twin = Progress(self.match, self.next, self.inflights, self.is_learner, self.recent_active)
        twin.state = self.state
        twin.paused = self.paused
        twin.pending_snapshot = self.pending_snapshot
        twin.sent_commit = self.sent_commit
        return twin

    # Transitions

    def _enter(self, state: ProgressState) -> None:
        self.paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.reset()

    def become_probe(self) -> None:
        """After a snapshot, probe from behind it; else from the first entry not known to match."""
        after_snapshot = self.pending_snapshot + 1 if self.state is SNAPSHOT else 0
        self._enter(PROBE)
        self.next = max(self.match + 1, after_snapshot)
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        self._enter(REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        self._enter(SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    # What was sent and what came back

    def sent_entries(self, count: int, size: int) -> None:
        """An append with `count` entries of `size` bytes, from `next` on, has been handed out."""
        if self.state is REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            self.paused = self.inflights.full()
        else:
            assert self.state is PROBE, "no appends are sent while a snapshot is under way"
            if count:
                self.paused = True

    def acknowledged(self, index: int) -> bool:
        """The follower has everything up to `index`. False if that is old news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.paused = False
        return True

    def rejected(self, index: int, hint: int) -> bool:
        """The follower refused an append that followed on `index`, and suggests to try after `hint`.

        False if that is old news: reordered or repeated, about something acknowledged meanwhile.
        """
        if self.state is REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != index:  # only one probe is ever under way
                return False
            self.next = max(min(index, hint + 1), self.match + 1)
            self.paused = False
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True

    def can_raise_commit(self, commit: int) -> bool:
        """Whether sending `commit` may tell the follower something: not if all it holds is known to it as
        committed.
        """
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def is_paused(self) -> bool:
        return self.state is SNAPSHOT or self.paused

    def __str__(self) -> str:
        parts = [f"{self.state.name} match={self.match} next={self.next}"]
        if self.is_learner:
            parts.append("learner")
        if self.is_paused():
            parts.append("paused")
        if self.pending_snapshot:
            parts.append(f"pendingSnap={self.pending_snapshot}")
        if not self.recent_active:
            parts.append("inactive")
        if self.inflights:
            parts.append(f"inflight={len(self.inflights)}{'[full]' if self.inflights.full() else ''}")
        return " ".join(parts)
