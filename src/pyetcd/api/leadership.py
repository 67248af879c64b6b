"""Calls that want a leader: `hasleader: true` in their metadata (etcd's WithRequireLeader). And learners,
which serve hardly anything.

Such a call is refused while the member knows no leader; such a stream is also ended once it has known none
for three election timeouts in a row: reconnecting costs a client more than waiting, so a short election
ends nothing (etcdserver/api/v3rpc/interceptor.go). A learner takes no stream but Snapshot, and of unary calls
Status and serializable ranges. A stream is also refused to a client whose API version is no text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from pyetcd._native import Meta
from pyetcd.api.dispatch import Admit
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import RangeRequest

STATUS = "/etcdserverpb.Maintenance/Status"
RANGE = "/etcdserverpb.KV/Range"
SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"
VERSION = "client-api-version"
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


def has_odd_version(meta: Meta) -> bool:
    """Whether the first API version that the client names is no UTF-8."""
    for name, value in meta.headers:
        if name == VERSION:
            try:
                value.encode("latin-1").decode()
            except UnicodeDecodeError:
                return True
            return False
    return False


def _is_serializable(payload: bytes) -> bool:
    try:
        return RangeRequest.FromString(payload).serializable
    except DecodeError:
        return True  # its handler says what is wrong with it


class Leadership:
    """Admits streams, and ends those that want a leader when there is none."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._streams: dict[int, End] = {}
        self._leaderless = 0

    def admit(self, call: int, meta: Meta, end: End) -> None:
        """Check a stream that opens and is no snapshot, as `check_stream`; `end` may be called later."""
        self.check_stream("", meta)
        if requires_leader(meta):
            self.keep(call, end)

    def check_stream(self, method: str, meta: Meta) -> None:
        """Raises what refuses a stream that opens."""
        if self._raft.is_learner and method != SNAPSHOT:
            raise errors.NOT_SUPPORTED_FOR_LEARNER()
        if has_odd_version(meta):
            raise errors.INVALID_CLIENT_API_VERSION()
        if not self._raft.leader and requires_leader(meta):
            raise errors.NO_LEADER()

    def keep(self, call: int, end: End) -> None:
        """Call `end` when the member has known no leader for long, unless the stream is forgotten before."""
        self._streams[call] = end

    def admission(self) -> Admit | None:
        """What unary calls must pass at the moment; None: nothing, as nearly always."""
        if self._raft.is_learner:
            return self._admit_to_learner
        return self._admit_without_leader if not self._raft.leader else None

    def _admit_to_learner(self, method: str, payload: bytes, meta: Meta) -> None:
        if method == STATUS:
            return
        if method != RANGE or not _is_serializable(payload):
            raise errors.NOT_SUPPORTED_FOR_LEARNER
        if not self._raft.leader:
            self._admit_without_leader(method, payload, meta)

    def _admit_without_leader(self, method: str, payload: bytes, meta: Meta) -> None:
        if requires_leader(meta):
            raise errors.NO_LEADER

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
