"""A member's state at its start: from what is stored, or as one of the first members of a new cluster."""

from __future__ import annotations

from collections.abc import Sequence

from pyetcd.raft import codec, confchange
from pyetcd.raft.changes import ConfChange, ConfChangeType
from pyetcd.raft.config import Config
from pyetcd.raft.core import Raft
from pyetcd.raft.errors import InvariantBroken
from pyetcd.raft.membership import apply_change, switch_to
from pyetcd.raft.roles import become_follower
from pyetcd.raft.types import NONE, Entry, HardState


def restart(config: Config) -> Raft:
    """A follower with the stored term, vote, log and configuration. ValueError for a wrong `config`."""
    raft = Raft(config)
    hard_state, conf_state = config.storage.initial_state()
    last, last_term = raft.log.last_index(), raft.log.last_term()
    if not conf_state.equivalent(switch_to(raft, confchange.restore(raft.tracker, last, conf_state))):
        raise InvariantBroken(f"ConfStates not equivalent after sorting: {conf_state}")
    if hard_state:
        _load(raft, hard_state)
    if config.applied:
        raft.log.applied_to(config.applied, 0)
    become_follower(raft, raft.term, NONE)
    peers = ",".join(f"{id:x}" for id in raft.tracker.config.voters.ids())
    raft.logger.info(
        f"newRaft {raft.id:x} [peers: [{peers}], term: {raft.term}, commit: {raft.log.committed}, "
        f"applied: {raft.log.applied}, lastindex: {last}, lastterm: {last_term}]"
    )
    return raft


def _load(raft: Raft, state: HardState) -> None:
    log = raft.log
    if not log.committed <= state.commit <= log.last_index():
        raise InvariantBroken(
            f"{raft.id:x} state.commit {state.commit} is out of range [{log.committed}, {log.last_index()}]"
        )
    log.committed = state.commit
    raft.term = state.term
    raft.vote = state.vote


def bootstrap(raft: Raft, peers: Sequence[tuple[int, bytes]]) -> None:
    """Begin a new cluster: every first member's log starts with the same entries, which add them all.

    They count as committed, and in force at once, so that somebody may campaign; they are applied like any
    others.
    """
    if not peers:
        raise ValueError("must provide at least one peer to Bootstrap")
    if raft.log.storage.last_index():
        raise ValueError("can't bootstrap a nonempty Storage")
    become_follower(raft, 1, NONE)
    changes = [ConfChange(ConfChangeType.ConfChangeAddNode, id, context) for id, context in peers]
    raft.log.append(
        [Entry(1, index, *codec.encode_conf_change(change)) for index, change in enumerate(changes, 1)]
    )
    raft.log.committed = len(changes)
    for change in changes:
        apply_change(raft, change.as_v2())
