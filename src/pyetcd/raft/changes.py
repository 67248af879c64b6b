"""Membership changes as they are proposed: the old one-at-a-time form and the joint one.

`ConfChange` (v1) is one change with an ID, what etcd itself proposes. `ConfChangeV2` is any number of
changes carried out together, through a joint configuration if need be. Everything below the surface works
on v2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ConfChangeType(IntEnum):
    ConfChangeAddNode = 0
    ConfChangeRemoveNode = 1
    ConfChangeUpdateNode = 2
    ConfChangeAddLearnerNode = 3


class Transition(IntEnum):
    """How a change goes through: simply if it can, or jointly, leaving the joint configuration by itself or
    on demand.
    """

    ConfChangeTransitionAuto = 0
    ConfChangeTransitionJointImplicit = 1
    ConfChangeTransitionJointExplicit = 2


@dataclass(frozen=True, slots=True)
class ConfChangeSingle:
    """One change. Node 0 means "nothing": etcd blanks the ID of a change it rejected at apply."""

    type: ConfChangeType
    node_id: int


@dataclass(frozen=True, slots=True)
class ConfChangeV2:
    transition: Transition = Transition.ConfChangeTransitionAuto
    changes: tuple[ConfChangeSingle, ...] = ()
    context: bytes = b""

    def as_v2(self) -> ConfChangeV2:
        return self

    def leaves_joint(self) -> bool:
        """Nothing to change: the request to leave the joint configuration."""
        return self.transition is Transition.ConfChangeTransitionAuto and not self.changes

    def enters_joint(self) -> bool:
        """More than one change, or asked for."""
        return self.transition is not Transition.ConfChangeTransitionAuto or len(self.changes) > 1

    def auto_leave(self) -> bool:
        """A joint configuration entered by this change is left without being asked."""
        return self.transition is not Transition.ConfChangeTransitionJointExplicit


@dataclass(frozen=True, slots=True)
class ConfChange:
    """`id` is etcd's own, to find the waiting request again; raft ignores it."""

    type: ConfChangeType
    node_id: int
    context: bytes = b""
    id: int = 0

    def as_v2(self) -> ConfChangeV2:
        return ConfChangeV2(changes=(ConfChangeSingle(self.type, self.node_id),), context=self.context)


AnyConfChange = ConfChange | ConfChangeV2
