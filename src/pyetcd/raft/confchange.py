"""From one configuration to the next, with everything that would be wrong refused first.

Three ways lead on (Raft thesis, chapter 4): `simple` changes at most one voter; `enter_joint` copies the
voters to the outgoing half and changes the incoming one at will; `leave_joint` drops the outgoing half.
Each works on a draft and returns a new configuration with its progress map, or raises `InvalidConfChange`
and changes nothing.

Rules that hold before and after: everyone in the configuration has a `Progress`; nobody is voter and
learner at once; `learners_next` are outgoing voters; a configuration that is not joint has no outgoing
half, no `learners_next`, no `auto_leave`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyetcd.raft.changes import ConfChangeSingle, ConfChangeType, ConfChangeV2
from pyetcd.raft.errors import InvalidConfChange
from pyetcd.raft.progress import Progress
from pyetcd.raft.quorum import Joint
from pyetcd.raft.tracker import Configuration, Tracker
from pyetcd.raft.types import ConfState

Outcome = tuple[Configuration, Mapping[int, Progress]]


class _Draft:
    """A configuration that may be changed, and who is in it."""

    def __init__(
        self, tracker: Tracker, config: Configuration, progress: Mapping[int, Progress], last_index: int
    ) -> None:
        self._tracker = tracker
        self._last_index = last_index
        self.incoming = set(config.voters.incoming)
        self.outgoing = set(config.voters.outgoing)
        self.learners = set(config.learners)
        self.learners_next = set(config.learners_next)
        self.auto_leave = config.auto_leave
        self.progress = {id: pr.copy() for id, pr in progress.items()}

    def apply(self, changes: Sequence[ConfChangeSingle]) -> None:
        for change in changes:
            if change.node_id == 0:
                continue
            if change.type is ConfChangeType.ConfChangeAddNode:
                self._make_voter(change.node_id)
            elif change.type is ConfChangeType.ConfChangeAddLearnerNode:
                self._make_learner(change.node_id)
            elif change.type is ConfChangeType.ConfChangeRemoveNode:
                self._remove(change.node_id)
        if not self.incoming:
            raise InvalidConfChange("removed all voters")

    def _make_voter(self, id: int) -> None:
        if id not in self.progress:
            self._introduce(id, is_learner=False)
        self.progress[id].is_learner = False
        self.learners.discard(id)
        self.learners_next.discard(id)
        self.incoming.add(id)

    def _make_learner(self, id: int) -> None:
        known = self.progress.get(id)
        if known is None:
            self._introduce(id, is_learner=True)
            self.learners.add(id)
            return
        if known.is_learner:
            return
        self._remove(id)
        self.progress[id] = known
        if id in self.outgoing:
            self.learners_next.add(id)  # a voter until the joint configuration is left
        else:
            known.is_learner = True
            self.learners.add(id)

    def _remove(self, id: int) -> None:
        self.incoming.discard(id)
        self.learners.discard(id)
        self.learners_next.discard(id)
        if id not in self.outgoing:
            self.progress.pop(id, None)

    def _introduce(self, id: int, is_learner: bool) -> None:
        # Probing starts at our last index. And a newcomer counts as active, lest the next quorum check,
        # which comes before it could say a word, makes the leader step down.
        self.progress[id] = Progress(
            0, max(self._last_index, 1), self._tracker.new_window(), is_learner, recent_active=True
        )

    def finish(self) -> Outcome:
        config = Configuration(
            Joint(self.incoming, self.outgoing),
            frozenset(self.learners),
            frozenset(self.learners_next),
            self.auto_leave,
        )
        check(config, self.progress)
        return config, self.progress


def check(config: Configuration, progress: Mapping[int, Progress]) -> None:
    """Raise InvalidConfChange where the rules above are broken."""
    incoming, outgoing = config.voters.incoming, config.voters.outgoing
    for id in (*config.voters.ids(), *config.learners, *config.learners_next):
        if id not in progress:
            raise InvalidConfChange(f"no progress for {id}")
    for id in config.learners_next:
        if id not in outgoing:
            raise InvalidConfChange(f"{id} is in LearnersNext, but not Voters[1]")
        if progress[id].is_learner:
            raise InvalidConfChange(f"{id} is in LearnersNext, but is already marked as learner")
    for id in config.learners:
        if id in outgoing:
            raise InvalidConfChange(f"{id} is in Learners and Voters[1]")
        if id in incoming:
            raise InvalidConfChange(f"{id} is in Learners and Voters[0]")
        if not progress[id].is_learner:
            raise InvalidConfChange(f"{id} is in Learners, but is not marked as learner")
    if not outgoing:
        if config.learners_next:
            raise InvalidConfChange("cfg.LearnersNext must be nil when not joint")
        if config.auto_leave:
            raise InvalidConfChange("AutoLeave must be false when not joint")


def simple(tracker: Tracker, last_index: int, changes: Sequence[ConfChangeSingle]) -> Outcome:
    """Changes that alter at most one voter, outside of a joint configuration."""
    return _simple(tracker, (tracker.config, tracker.progress), last_index, changes)


def _simple(
    tracker: Tracker, current: Outcome, last_index: int, changes: Sequence[ConfChangeSingle]
) -> Outcome:
    config, progress = current
    if config.voters.is_joint():
        raise InvalidConfChange("can't apply simple config change in joint config")
    draft = _Draft(tracker, config, progress, last_index)
    draft.apply(changes)
    if len(draft.incoming ^ config.voters.incoming) > 1:
        raise InvalidConfChange("more than one voter changed without entering joint config")
    return draft.finish()


def enter_joint(
    tracker: Tracker, last_index: int, auto_leave: bool, changes: Sequence[ConfChangeSingle]
) -> Outcome:
    """From (1 2 3) to the changed half joined with (1 2 3)."""
    return _enter_joint(tracker, (tracker.config, tracker.progress), last_index, auto_leave, changes)


def _enter_joint(
    tracker: Tracker,
    current: Outcome,
    last_index: int,
    auto_leave: bool,
    changes: Sequence[ConfChangeSingle],
) -> Outcome:
    config, progress = current
    if config.voters.is_joint():
        raise InvalidConfChange("config is already joint")
    if not config.voters.incoming:
        raise InvalidConfChange("can't make a zero-voter config joint")
    draft = _Draft(tracker, config, progress, last_index)
    draft.outgoing = set(draft.incoming)
    draft.apply(changes)
    draft.auto_leave = auto_leave
    return draft.finish()


def leave_joint(tracker: Tracker, last_index: int) -> Outcome:
    """Keep the incoming half alone; demoted voters become learners now, who is in neither is forgotten."""
    if not tracker.config.voters.is_joint():
        raise InvalidConfChange("can't leave a non-joint config")
    draft = _Draft(tracker, tracker.config, tracker.progress, last_index)
    for id in draft.learners_next:
        draft.learners.add(id)
        draft.progress[id].is_learner = True
    draft.learners_next.clear()
    for id in draft.outgoing:
        if id not in draft.incoming and id not in draft.learners:
            draft.progress.pop(id, None)
    draft.outgoing.clear()
    draft.auto_leave = False
    return draft.finish()


def apply(tracker: Tracker, last_index: int, change: ConfChangeV2) -> Outcome:
    """Whichever of the three ways `change` asks for."""
    if change.leaves_joint():
        return leave_joint(tracker, last_index)
    if change.enters_joint():
        return enter_joint(tracker, last_index, change.auto_leave(), change.changes)
    return simple(tracker, last_index, change.changes)


def restore(tracker: Tracker, last_index: int, state: ConfState) -> Outcome:
    """The configuration that `state` describes, built from nothing.

    A joint one cannot be built in one step: first the outgoing voters one by one, then into the joint
    configuration by removing them all and adding the incoming ones.
    """
    add, learn, drop = (
        ConfChangeType.ConfChangeAddNode,
        ConfChangeType.ConfChangeAddLearnerNode,
        ConfChangeType.ConfChangeRemoveNode,
    )
    incoming = [
        *(ConfChangeSingle(drop, id) for id in state.voters_outgoing),
        *(ConfChangeSingle(add, id) for id in state.voters),
        *(ConfChangeSingle(learn, id) for id in (*state.learners, *state.learners_next)),
    ]
    outgoing = [ConfChangeSingle(add, id) for id in state.voters_outgoing]
    outcome: Outcome = (Configuration(), {})
    for change in outgoing or incoming:
        outcome = _simple(tracker, outcome, last_index, [change])
    if outgoing:
        outcome = _enter_joint(tracker, outcome, last_index, state.auto_leave, incoming)
    return outcome
