"""What the proxy only passes on: calls of the services it has nothing to add to, and streams that are read
once, snapshots and elections. What a client does not take is not read from the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyetcd._native import Meta
from pyetcd.api.dispatch import Outbox
from pyetcd.api.one_request import OneRequest
from pyetcd.proto.errors import UNKNOWN
from pyetcd.proxy.calls import ENDED, Caller, Done, Handle
from pyetcd.proxy.front import OpenStream, Unary
from pyetcd.proxy.namespace import without_foreign_keys
from pyetcd.proxy.upstream import Line, Upstream

TIME_TO_LIVE: Final = "/etcdserverpb.Lease/LeaseTimeToLive"
SNAPSHOT: Final = "/etcdserverpb.Maintenance/Snapshot"
OBSERVE: Final = "/v3electionpb.Election/Observe"
UNSENT_BYTES_MAX: Final = 1 << 20  # of a stream, beyond which no more is read for it

_AUTH: Final = (
    "AuthEnable",
    "AuthDisable",
    "AuthStatus",
    "Authenticate",
    "UserAdd",
    "UserGet",
    "UserList",
    "UserDelete",
    "UserChangePassword",
    "UserGrantRole",
    "UserRevokeRole",
    "RoleAdd",
    "RoleGet",
    "RoleList",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
)
PASSED: Final = (
    *(f"/etcdserverpb.Auth/{name}" for name in _AUTH),
    *(f"/etcdserverpb.Lease/{name}" for name in ("LeaseGrant", "LeaseRevoke", "LeaseLeases")),
    *(f"/etcdserverpb.Cluster/{name}" for name in ("MemberAdd", "MemberRemove", "MemberUpdate")),
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Maintenance/Downgrade",
    "/v3lockpb.Lock/Lock",
    "/v3lockpb.Lock/Unlock",
    *(f"/v3electionpb.Election/{name}" for name in ("Campaign", "Proclaim", "Leader", "Resign")),
)


def passed(upstream: Upstream, namespace: bytes) -> Mapping[str, Unary]:
    """Handlers of the unary methods."""
    handlers = {path: _passing(upstream, path) for path in PASSED}

    def time_to_live(payload: bytes, caller: Caller, done: Done) -> Handle:
        def answered(message: bytes | None, code: int, text: str) -> None:
            done(message and without_foreign_keys(namespace, message), code, text)

        return upstream.begin(TIME_TO_LIVE, payload, caller, answered, reads=True)

    handlers[TIME_TO_LIVE] = time_to_live if namespace else _passing(upstream, TIME_TO_LIVE)
    handlers["/etcdserverpb.Cluster/MemberPromote"] = _not_implemented
    return handlers


def _passing(upstream: Upstream, path: str) -> Unary:
    def begin(payload: bytes, caller: Caller, done: Done) -> Handle:
        return upstream.begin(path, payload, caller, done)

    return begin


def _not_implemented(payload: bytes, caller: Caller, done: Done) -> Handle:
    """etcd's proxy says the same."""
    done(None, UNKNOWN, "not implemented")
    return ENDED


class PassedStream(OneRequest[bytes]):
    """A stream that answers one request."""

    def __init__(self, upstream: Upstream, outbox: Outbox, path: str, call: int, caller: Caller) -> None:
        self._upstream = upstream
        self._outbox = outbox
        self._path = path
        self._call = call
        self._caller = caller
        self._line: Line | None = None
        self._unread = 0  # messages that have come and for which no others were asked for

    def parse(self, payload: bytes) -> bytes:
        return payload

    def begin(self, request: bytes) -> None:
        self._line = self._upstream.open(self._path, self._caller, self)
        self._line.send(request)
        self._line.half_close()

    def on_message(self, payload: bytes) -> None:
        """From the client before it has closed its side, from the cluster afterwards."""
        if self._line is None:
            super().on_message(payload)
            return
        unsent = self._outbox.server.send_many([(self._call, payload)])[0]
        self._unread += 1
        if unsent <= UNSENT_BYTES_MAX:
            self.on_writable()

    def on_writable(self) -> None:
        if self._line is not None and self._unread:
            self._line.read(self._unread)
            self._unread = 0

    def on_end(self, code: int, text: str) -> None:
        self._line = None
        self._outbox.finish(self._call, code, text)

    def on_cancel(self) -> None:
        if self._line is not None:
            self._line.cancel()
            self._line = None


def passed_streams(upstream: Upstream, outbox: Outbox) -> Mapping[str, OpenStream]:
    """Openers of the streams."""

    def opening(path: str) -> OpenStream:
        def opened(call: int, meta: Meta) -> PassedStream:
            seconds = meta.timeout_seconds
            deadline = None if seconds is None else upstream.loop.time() + seconds
            return PassedStream(upstream, outbox, path, call, Caller(meta.token or "", deadline))

        return opened

    return {path: opening(path) for path in (SNAPSHOT, OBSERVE)}
