"""A membership change takes effect, when its entry is applied or a snapshot brings it."""

from __future__ import annotations

from pyetcd.raft import confchange
from pyetcd.raft.changes import ConfChangeV2
from pyetcd.raft.core import Raft
from pyetcd.raft.replication import broadcast_append, maybe_commit, maybe_send_append
from pyetcd.raft.roles import become_follower
from pyetcd.raft.types import NONE, ConfState, Role


def apply_change(raft: Raft, change: ConfChangeV2) -> ConfState:
    """Raises InvalidConfChange, with nothing changed, if `change` does not fit the current configuration."""
    return switch_to(raft, confchange.apply(raft.tracker, raft.log.last_index(), change))


def switch_to(raft: Raft, outcome: confchange.Outcome) -> ConfState:
    """Act on a new configuration: quorums may have shrunk, newcomers wait, and we may be out of it
    ourselves.
    """
    raft.tracker.switch(*outcome)
    config = raft.tracker.config
    raft.logger.info(f"{raft.id:x} switched to configuration {config}")
    state = config.conf_state()
    own = raft.tracker.progress.get(raft.id)
    raft.is_learner = own is not None and own.is_learner
    if raft.role is not Role.StateLeader:
        return state
    if own is None or own.is_learner:
        if raft.step_down_on_removal:
            become_follower(raft, raft.term, NONE)
        return state
    if not state.voters:
        return state
    if maybe_commit(raft):
        broadcast_append(raft)
    else:
        for id, progress in raft.tracker.ordered:  # newcomers need not wait for the next heartbeat
            if id != raft.id:
                maybe_send_append(raft, id, progress, send_if_empty=False)
    if raft.transferee != NONE and raft.transferee not in config.voters:
        raft.transferee = NONE
    return state
