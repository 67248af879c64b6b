"""Who may call what: one line for each RPC, HTTP path and peer endpoint, and what stands before the RPCs.

What a need means while authentication is on (`Need`), and who sees to it:

* NOBODY: no name is asked for. A token that comes along must still be good where etcd looks at it.
* NAMED: any user. ROOT: a user with the role root. `Doors` asks before the service is.
* KEYS: the permissions of the keys concerned, at any depth of a transaction; for writes as they are applied,
  for reads when they are served (`auth.requests`, `member.apply`).
* LOG: a root, or for UserGet and RoleGet the user itself, as the entry is applied (`auth.entries`).
* ALARM: listing needs a name, everything else a root.

The needs are etcd's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from pyetcd._native import Meta
from pyetcd.api.dispatch import AsyncUnary, Body, OpenStream, Stream, Unary
from pyetcd.member.identity import Identity


class Need(Enum):
    NOBODY = auto()
    NAMED = auto()
    ROOT = auto()
    KEYS = auto()
    LOG = auto()
    ALARM = auto()


_KV: Final = "/etcdserverpb.KV/"
_LEASE: Final = "/etcdserverpb.Lease/"
_AUTH: Final = "/etcdserverpb.Auth/"
_CLUSTER: Final = "/etcdserverpb.Cluster/"
_MAINTENANCE: Final = "/etcdserverpb.Maintenance/"
_LOCK: Final = "/v3lockpb.Lock/"
_ELECTION: Final = "/v3electionpb.Election/"
_HEALTH: Final = "/grpc.health.v1.Health/"

RPCS: Final[Mapping[str, Need]] = {
    _KV + "Range": Need.KEYS,
    _KV + "RangeStream": Need.KEYS,
    _KV + "Put": Need.KEYS,
    _KV + "DeleteRange": Need.KEYS,
    _KV + "Txn": Need.KEYS,
    _KV + "Compact": Need.ROOT,
    "/etcdserverpb.Watch/Watch": Need.KEYS,
    _LEASE + "LeaseGrant": Need.NAMED,
    _LEASE + "LeaseRevoke": Need.KEYS,
    _LEASE + "LeaseKeepAlive": Need.KEYS,
    _LEASE + "LeaseTimeToLive": Need.KEYS,
    _LEASE + "LeaseLeases": Need.KEYS,
    _CLUSTER + "MemberAdd": Need.ROOT,
    _CLUSTER + "MemberRemove": Need.ROOT,
    _CLUSTER + "MemberUpdate": Need.ROOT,
    _CLUSTER + "MemberPromote": Need.ROOT,
    _CLUSTER + "MemberList": Need.NAMED,
    _MAINTENANCE + "Status": Need.NAMED,
    _MAINTENANCE + "Alarm": Need.ALARM,
    _MAINTENANCE + "Defragment": Need.ROOT,
    _MAINTENANCE + "Hash": Need.ROOT,
    _MAINTENANCE + "HashKV": Need.ROOT,
    _MAINTENANCE + "Snapshot": Need.ROOT,
    _MAINTENANCE + "MoveLeader": Need.ROOT,
    _MAINTENANCE + "Downgrade": Need.ROOT,
    _AUTH + "Authenticate": Need.NOBODY,
    _AUTH + "AuthStatus": Need.NOBODY,
    _AUTH + "AuthEnable": Need.LOG,
    _AUTH + "AuthDisable": Need.LOG,
    _AUTH + "UserAdd": Need.LOG,
    _AUTH + "UserGet": Need.LOG,
    _AUTH + "UserList": Need.LOG,
    _AUTH + "UserDelete": Need.LOG,
    _AUTH + "UserChangePassword": Need.LOG,
    _AUTH + "UserGrantRole": Need.LOG,
    _AUTH + "UserRevokeRole": Need.LOG,
    _AUTH + "RoleAdd": Need.LOG,
    _AUTH + "RoleGet": Need.LOG,
    _AUTH + "RoleList": Need.LOG,
    _AUTH + "RoleDelete": Need.LOG,
    _AUTH + "RoleGrantPermission": Need.LOG,
    _AUTH + "RoleRevokePermission": Need.LOG,
    _LOCK + "Lock": Need.KEYS,
    _LOCK + "Unlock": Need.KEYS,
    _ELECTION + "Campaign": Need.KEYS,
    _ELECTION + "Proclaim": Need.KEYS,
    _ELECTION + "Leader": Need.KEYS,
    _ELECTION + "Observe": Need.KEYS,
    _ELECTION + "Resign": Need.KEYS,
    _HEALTH + "Check": Need.NOBODY,
    _HEALTH + "List": Need.NOBODY,
    _HEALTH + "Watch": Need.NOBODY,
}

# Plain HTTP of the client port. Paths of the gateway need what their RPCs need: they are calls of these.
HTTP_PATHS: Final[Mapping[str, Need]] = {
    "/version": Need.NOBODY,
    "/health": Need.NOBODY,
    "/livez": Need.NOBODY,
    "/readyz": Need.NOBODY,
    "/metrics": Need.NOBODY,
    "/debug/vars": Need.NOBODY,
    "/debug/pprof/": Need.NOBODY,
    "/config/local/log": Need.NOBODY,
}

# The peers' port: who reaches it is a member as far as authentication goes (certificates guard it); but a
# promotion is a client's wish handed on, with the client's token.
PEER_PATHS: Final[Mapping[str, Need]] = {
    "/raft": Need.NOBODY,
    "/raft/probing": Need.NOBODY,
    "/raft/snapshot": Need.NOBODY,
    "/raft/stream/": Need.NOBODY,
    "/members": Need.NOBODY,
    "/members/promote/": Need.ROOT,
    "/members/hashkv": Need.NOBODY,
    "/leases": Need.NOBODY,
    "/leases/internal": Need.NOBODY,
    "/downgrade/enabled": Need.NOBODY,
    "/version": Need.NOBODY,
}


class Doors:
    """Stands in front of what needs a name or a root, whatever is asked."""

    def __init__(self, identity: Identity) -> None:
        self._checks = {Need.NAMED: identity.require, Need.ROOT: identity.require_admin}

    def unary(self, handlers: Mapping[str, Unary]) -> dict[str, Unary]:
        return {name: self._unary(RPCS[name], handler) for name, handler in handlers.items()}

    def coroutines(self, handlers: Mapping[str, AsyncUnary]) -> dict[str, AsyncUnary]:
        return {name: self._coroutine(RPCS[name], handler) for name, handler in handlers.items()}

    def streams(self, openers: Mapping[str, OpenStream]) -> dict[str, OpenStream]:
        return {name: self._stream(RPCS[name], opener) for name, opener in openers.items()}

    def _unary(self, need: Need, handler: Unary) -> Unary:
        check = self._checks.get(need)
        if check is None:
            return handler

        def checked(call: int, payload: bytes, meta: Meta) -> Body | None:
            check(meta)
            return handler(call, payload, meta)

        return checked

    def _coroutine(self, need: Need, handler: AsyncUnary) -> AsyncUnary:
        check = self._checks.get(need)
        if check is None:
            return handler

        async def checked(call: int, payload: bytes, meta: Meta) -> Body:
            check(meta)
            return await handler(call, payload, meta)

        return checked

    def _stream(self, need: Need, opener: OpenStream) -> OpenStream:
        check = self._checks.get(need)
        if check is None:
            return opener

        def checked(call: int, meta: Meta) -> Stream:
            check(meta)
            return opener(call, meta)

        return checked
