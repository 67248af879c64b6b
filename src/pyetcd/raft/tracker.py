"""The configuration in force, the progress of everyone in it, and the votes of the current election."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyetcd.raft.inflights import Inflights
from pyetcd.raft.progress import Progress
from pyetcd.raft.quorum import Joint, Vote, described
from pyetcd.raft.types import ConfState


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who votes and who learns.

    `learners_next` are voters of the outgoing half who become learners once it is left: nobody is ever
    voter and learner at once. `auto_leave`: the leader proposes to leave the joint configuration by itself.
    """

    voters: Joint = field(default_factory=Joint)
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    def __str__(self) -> str:
        text = f"voters={self.voters}"
        if self.learners:
            text += f" learners={described(self.learners)}"
        if self.learners_next:
            text += f" learners_next={described(self.learners_next)}"
        return text + " autoleave" if self.auto_leave else text

    def conf_state(self) -> ConfState:
        return ConfState(
            voters=tuple(sorted(self.voters.incoming)),
            learners=tuple(sorted(self.learners)),
            voters_outgoing=tuple(sorted(self.voters.outgoing)),
            learners_next=tuple(sorted(self.learners_next)),
            auto_leave=self.auto_leave,
        )


class Tracker:
    """`progress` and `ordered` are replaced together, by `switch`; `ordered` has them by ascending ID."""

    __slots__ = ("config", "max_inflight", "max_inflight_bytes", "ordered", "progress", "votes")

    def __init__(self, max_inflight: int, max_inflight_bytes: int) -> None:
        self.max_inflight = max_inflight
        self.max_inflight_bytes = max_inflight_bytes
        self.config = Configuration()
        self.progress: dict[int, Progress] = {}
        self.ordered: list[tuple[int, Progress]] = []
        self.votes: dict[int, bool] = {}

    def switch(self, config: Configuration, progress: Mapping[int, Progress]) -> None:
        self.config = config
        self.progress = dict(progress)
        self.ordered = sorted(self.progress.items())

    def reset_progress(self, own_id: int, last_index: int) -> None:
        """A new term: nothing is known of anybody but ourselves."""
        fresh = {
            id: Progress(
                last_index if id == own_id else 0,
                last_index + 1,
                self.new_window(),
                is_learner=old.is_learner,
            )
            for id, old in self.progress.items()
        }
        self.switch(self.config, fresh)

    def new_window(self) -> Inflights:
        return Inflights(self.max_inflight, self.max_inflight_bytes)

    def committed(self) -> int:
        """The highest index that a quorum holds."""
        progress = self.progress
        voters = self.config.voters
        if voters.is_singleton():  # no mapping to build: the hot path of a single member
            for only in voters.incoming:
                return progress[only].match
        return voters.committed({id: progress[id].match for id in voters.ids()})

    def quorum_active(self) -> bool:
        """A quorum has been heard from since the last check."""
        heard = {id: pr.recent_active for id, pr in self.ordered if not pr.is_learner}
        return self.config.voters.vote(heard) is Vote.WON

    def record_vote(self, id: int, granted: bool) -> None:
        """The first answer counts."""
        self.votes.setdefault(id, granted)

    def tally(self) -> tuple[int, int, Vote]:
        """Votes granted, votes rejected, outcome."""
        cast = [self.votes[id] for id, pr in self.ordered if not pr.is_learner and id in self.votes]
        granted = sum(cast)
        return granted, len(cast) - granted, self.config.voters.vote(self.votes)
