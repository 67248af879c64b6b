"""From one role to another.

follower ──► pre-candidate ──► candidate ──► leader
    ▲              │               │            │
    └──────────────┴───────────────┴────────────┘   a higher term, a leader of this term, or a lost quorum
"""

from __future__ import annotations

from pyetcd.raft.core import Raft
from pyetcd.raft.errors import InvariantBroken
from pyetcd.raft.replication import append
from pyetcd.raft.types import NONE, Entry, EntryType, Role


def become_follower(raft: Raft, term: int, lead: int) -> None:
    raft.reset(term)
    raft.lead = lead
    raft.role = Role.StateFollower
    raft.logger.info(f"{raft.id:x} became follower at term {raft.term}")


def become_pre_candidate(raft: Raft) -> None:
    """Ask whether an election could be won. Neither term nor vote changes, so that asking disturbs nobody."""
    if raft.role is Role.StateLeader:
        raise InvariantBroken("invalid transition [leader -> pre-candidate]")
    raft.tracker.votes = {}
    raft.lead = NONE
    raft.role = Role.StatePreCandidate
    raft.logger.info(f"{raft.id:x} became pre-candidate at term {raft.term}")


def become_candidate(raft: Raft) -> None:
    if raft.role is Role.StateLeader:
        raise InvariantBroken("invalid transition [leader -> candidate]")
    raft.reset(raft.term + 1)
    raft.vote = raft.id
    raft.role = Role.StateCandidate
    raft.logger.info(f"{raft.id:x} became candidate at term {raft.term}")


def become_leader(raft: Raft) -> None:
    """Lead, and append an empty entry: once it is committed, everything before it is too."""
    if raft.role is Role.StateFollower:
        raise InvariantBroken("invalid transition [follower -> leader]")
    raft.reset(raft.term)
    raft.lead = raft.id
    raft.role = Role.StateLeader
    own = raft.tracker.progress[raft.id]
    own.become_replicate()
    own.recent_active = True
    # There may be a membership change in what we took over; to look would mean reading it all, so suppose
    # there is.
    last = raft.log.last_index()
    raft.pending_conf_index = last
    append(raft, [Entry(raft.term, last + 1, EntryType.EntryNormal, b"")], 0)
    raft.logger.info(f"{raft.id:x} became leader at term {raft.term}")
