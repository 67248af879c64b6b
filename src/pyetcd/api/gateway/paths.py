"""Which path is which RPC. All are POST; the bodies are whole messages.

From the `google.api.http` options of etcd's .proto files. RangeStream has none there, so it has none here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from google.protobuf.descriptor import MethodDescriptor

from pyetcd.api.gateway.fields import Table, table_of
from pyetcd.proto import election_pb2, lock_pb2, rpc_pb2

_KV: Final = "/etcdserverpb.KV/"
_WATCH: Final = "/etcdserverpb.Watch/"
_LEASE: Final = "/etcdserverpb.Lease/"
_CLUSTER: Final = "/etcdserverpb.Cluster/"
_MAINTENANCE: Final = "/etcdserverpb.Maintenance/"
_AUTH: Final = "/etcdserverpb.Auth/"
_LOCK: Final = "/v3lockpb.Lock/"
_ELECTION: Final = "/v3electionpb.Election/"

PATHS: Final = {
    "/v3/kv/range": _KV + "Range",
    "/v3/kv/put": _KV + "Put",
    "/v3/kv/deleterange": _KV + "DeleteRange",
    "/v3/kv/txn": _KV + "Txn",
    "/v3/kv/compaction": _KV + "Compact",
    "/v3/watch": _WATCH + "Watch",
    "/v3/lease/grant": _LEASE + "LeaseGrant",
    "/v3/lease/revoke": _LEASE + "LeaseRevoke",
    "/v3/kv/lease/revoke": _LEASE + "LeaseRevoke",
    "/v3/lease/keepalive": _LEASE + "LeaseKeepAlive",
    "/v3/lease/timetolive": _LEASE + "LeaseTimeToLive",
    "/v3/kv/lease/timetolive": _LEASE + "LeaseTimeToLive",
    "/v3/lease/leases": _LEASE + "LeaseLeases",
    "/v3/kv/lease/leases": _LEASE + "LeaseLeases",
    "/v3/cluster/member/add": _CLUSTER + "MemberAdd",
    "/v3/cluster/member/remove": _CLUSTER + "MemberRemove",
    "/v3/cluster/member/update": _CLUSTER + "MemberUpdate",
    "/v3/cluster/member/list": _CLUSTER + "MemberList",
    "/v3/cluster/member/promote": _CLUSTER + "MemberPromote",
    "/v3/maintenance/alarm": _MAINTENANCE + "Alarm",
    "/v3/maintenance/status": _MAINTENANCE + "Status",
    "/v3/maintenance/defragment": _MAINTENANCE + "Defragment",
    "/v3/maintenance/hash": _MAINTENANCE + "Hash",
    "/v3/maintenance/hashkv": _MAINTENANCE + "HashKV",
    "/v3/maintenance/snapshot": _MAINTENANCE + "Snapshot",
    "/v3/maintenance/transfer-leadership": _MAINTENANCE + "MoveLeader",
    "/v3/maintenance/downgrade": _MAINTENANCE + "Downgrade",
    "/v3/auth/enable": _AUTH + "AuthEnable",
    "/v3/auth/disable": _AUTH + "AuthDisable",
    "/v3/auth/status": _AUTH + "AuthStatus",
    "/v3/auth/authenticate": _AUTH + "Authenticate",
    "/v3/auth/user/add": _AUTH + "UserAdd",
    "/v3/auth/user/get": _AUTH + "UserGet",
    "/v3/auth/user/list": _AUTH + "UserList",
    "/v3/auth/user/delete": _AUTH + "UserDelete",
    "/v3/auth/user/changepw": _AUTH + "UserChangePassword",
    "/v3/auth/user/grant": _AUTH + "UserGrantRole",
    "/v3/auth/user/revoke": _AUTH + "UserRevokeRole",
    "/v3/auth/role/add": _AUTH + "RoleAdd",
    "/v3/auth/role/get": _AUTH + "RoleGet",
    "/v3/auth/role/list": _AUTH + "RoleList",
    "/v3/auth/role/delete": _AUTH + "RoleDelete",
    "/v3/auth/role/grant": _AUTH + "RoleGrantPermission",
    "/v3/auth/role/revoke": _AUTH + "RoleRevokePermission",
    "/v3/lock/lock": _LOCK + "Lock",
    "/v3/lock/unlock": _LOCK + "Unlock",
    "/v3/election/campaign": _ELECTION + "Campaign",
    "/v3/election/proclaim": _ELECTION + "Proclaim",
    "/v3/election/leader": _ELECTION + "Leader",
    "/v3/election/observe": _ELECTION + "Observe",
    "/v3/election/resign": _ELECTION + "Resign",
}


@dataclass(frozen=True, slots=True)
class Rpc:
    """What the gateway must know of a method. `name` is its full gRPC path."""

    name: str
    request: Table
    response: Table
    takes_several: bool  # each JSON value of the body is a message
    gives_several: bool


@cache
def rpcs() -> dict[str, Rpc]:
    """The RPC of each path."""
    methods = {
        f"/{service.full_name}/{method.name}": method
        for file in (rpc_pb2.DESCRIPTOR, lock_pb2.DESCRIPTOR, election_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    known: dict[str, Table] = {}
    return {path: _rpc(name, methods[name], known) for path, name in PATHS.items()}


def _rpc(name: str, method: MethodDescriptor, known: dict[str, Table]) -> Rpc:
    return Rpc(
        name,
        table_of(method.input_type, known),
        table_of(method.output_type, known),
        takes_several=method.client_streaming,
        gives_several=method.server_streaming,
    )
