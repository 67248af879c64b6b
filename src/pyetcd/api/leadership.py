"""Streams that want a leader: `hasleader: true` in a stream's metadata (etcd's WithRequireLeader).

Such a stream is refused while the member knows no leader, and ended once it has known none for three
election timeouts in a row: reconnecting costs a client more than waiting, so a short election ends nothing
(etcdserver/api/v3rpc/interceptor.go). A learner takes no streams of these services at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pyetcd._native import Meta
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError

REQUIRE_LEADER = ("hasleader", "true")
LEADERLESS_CHECKS = 3


class Raft(Protocol):
    """What is asked of the member. `leader`: the ID of the leader it knows, 0 for none."""

    @property
    def leader(self) -> int: ...
    @property
    def is_learner(self) -> bool: ...


End = Callable[[EtcdError], None]


def requires_leader(meta: Meta) -> bool:
    """Whether the first `hasleader` value is `true`."""
    for name, value in meta.headers:
        if name == REQUIRE_LEADER[0]:
            return value == REQUIRE_LEADER[1]
    return False


class Leadership:
    """Admits streams, and ends those that want a leader when there is none."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._streams: dict[int, End] = {}
        self._leaderless = 0

    def admit(self, call: int, meta: Meta, end: End) -> None:
        """Check a stream that opens. Raises NO_LEADER or NOT_SUPPORTED_FOR_LEARNER; else `end` may be
        called later.
        """
        if self._raft.is_learner:
            raise errors.NOT_SUPPORTED_FOR_LEARNER()
        if requires_leader(meta):
            if not self._raft.leader:
                raise errors.NO_LEADER()
            self._streams[call] = end

    def forget(self, call: int) -> None:
        """The stream is gone."""
        self._streams.pop(call, None)

    def check(self) -> None:
        """To be called every election timeout."""
        if self._raft.leader:
            self._leaderless = 0
            return
        self._leaderless += 1
        if self._leaderless >= LEADERLESS_CHECKS:
            streams, self._streams = self._streams, {}
            for end in streams.values():
                end(errors.NO_LEADER())
