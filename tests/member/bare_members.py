"""Members without anything around them: the parts that `open_member` made, driven by hand, messages handed
over in memory.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence

from whole_member import SEGMENT_BYTES, InPlace, NowAppender, UnsyncedFiles

from pyetcd.cluster.bootstrap import Beginning
from pyetcd.member.config import ServerConfig
from pyetcd.member.opening import Opened, open_member
from pyetcd.proto.raft_pb2 import ConfChange
from pyetcd.raft import InvalidMessage
from pyetcd.raft.codec import conf_change_of


def bare(
    config: ServerConfig, cluster: Beginning | None = None, files: UnsyncedFiles | None = None
) -> BareMember:
    """Open a member, or make it."""
    files = files or UnsyncedFiles()
    appender = NowAppender(files)
    opened = open_member(
        config,
        files,
        InPlace(),
        appender,  # type: ignore[arg-type]
        random.Random(1),
        cluster=cluster,
        segment_bytes=SEGMENT_BYTES,
    )
    return BareMember(opened)


class BareMember:
    """One member: what raft wants done is done at once. Entries that are no change of the configuration are
    kept in `applied`."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.applied: list[bytes] = []
        opened.backend.before_commit = opened.position.save

    def turn(self, members: Sequence[BareMember]) -> bool:
        """Do what is to be done. False: nothing was."""
        opened = self.opened
        ready = opened.node.ready()
        if ready is None:
            return False
        messages = list(ready.messages)
        if ready.wants_append():
            opened.wal.save(ready.hard_state, ready.entries, ready.must_sync)
            opened.storage.append(ready.entries)
            messages += opened.node.stable(ready)
        for entry in ready.committed:
            if entry.index > opened.position.index:
                opened.position.index, opened.position.term = entry.index, entry.term
                if entry.type:
                    change = ConfChange.FromString(entry.data)
                    opened.cluster.validate(change)
                    opened.position.conf_state = opened.node.apply_conf_change(conf_change_of(entry))
                    opened.cluster.apply(change)
                elif entry.data:
                    self.applied.append(entry.data)
            opened.node.applied(entry.index)
        by_id = {member.opened.member_id: member for member in members}
        for message in messages:
            if message.to in by_id:
                with contextlib.suppress(InvalidMessage):  # from one who is no member any more
                    by_id[message.to].opened.node.step(message)
        return True

    def stop(self, *, keep: bool = True) -> None:
        """With `keep` the database is committed first."""
        self.opened.wal.write_held()
        if keep:
            self.opened.backend.close_now()
        else:
            self.opened.backend.discard()
        self.opened.wal.close()


def settle(members: Sequence[BareMember], rounds: int = 1000) -> None:
    """Until nothing is left to do."""
    for _ in range(rounds):
        if sum(member.turn(members) for member in members) == 0:
            return
    raise AssertionError("the members do not come to rest")


def elect(members: Sequence[BareMember], first: int = 0) -> BareMember:
    """Let one of them stand for election and win it."""
    settle(members)
    node = members[first].opened.node
    for _ in range(200):
        node.tick()
        settle(members)
        if node.is_leader:
            return members[first]
    raise AssertionError("no leader")
