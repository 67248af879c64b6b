"""etcd-raft's own transcripts, byte for byte. `RAFT_VECTORS` names their folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import raft_quorums
from datadriven import Block, folder, replay
from raft_cluster import Cluster, Failure, parse_changes

from pyetcd.raft import InvalidConfChange, confchange
from pyetcd.raft.tracker import Tracker


def vectors(kind: str) -> list[object]:
    files = sorted((folder() / kind).glob("*.txt"))
    if not files:
        reason = f"no transcripts in {folder() / kind}; RAFT_VECTORS names another folder"
        return [pytest.param(Path(), id="absent", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(path, id=path.stem) for path in files]


@pytest.mark.parametrize("path", vectors("interaction"))
def test_a_cluster_behaves_as_the_transcript_says(path: Path) -> None:
    replay(path, Cluster().run)


@pytest.mark.parametrize("path", vectors("quorum"))
def test_quorums_decide_as_the_transcript_says(path: Path) -> None:
    replay(path, raft_quorums.run)


class Changing:
    """The confchange transcripts: one configuration, changed by every command; the log grows by one with
    each.
    """

    def __init__(self) -> None:
        self.tracker = Tracker(10, 0)
        self.last_index = -1

    def run(self, block: Block) -> str:
        self.last_index += 1
        try:
            self.tracker.switch(*self.change(block))
        except (InvalidConfChange, Failure) as refusal:
            return f"{refusal}\n"
        lines = [str(self.tracker.config), *(f"{id}: {progress}" for id, progress in self.tracker.ordered)]
        return "".join(f"{line}\n" for line in lines)

    def change(self, block: Block) -> confchange.Outcome:
        changes = parse_changes(block.input)
        if block.command == "simple":
            return confchange.simple(self.tracker, self.last_index, changes)
        if block.command == "enter-joint":
            auto_leave = block.flag("autoleave") == "true"
            return confchange.enter_joint(self.tracker, self.last_index, auto_leave, changes)
        if block.command != "leave-joint":
            raise Failure("unknown command")
        if changes:
            raise Failure("this command takes no input")
        return confchange.leave_joint(self.tracker, self.last_index)


@pytest.mark.parametrize("path", vectors("confchange"))
def test_configurations_change_as_the_transcript_says(path: Path) -> None:
    replay(path, Changing().run)
