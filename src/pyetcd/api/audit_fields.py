"""What of a request may stand in the audit log: names, keys, ranges and numbers, never values, passwords or
tokens. What is not named here is left out.

A key is text where it is UTF-8, else it stands in base64 under `…_base64`. Long keys are cut, and many
operations of a transaction are counted instead of listed, so that a line has a bound.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Final

from google.protobuf.message import DecodeError, Message

from pyetcd.proto import election_pb2, lock_pb2, rpc_pb2
from pyetcd.proto.rpc_pb2 import RequestOp, TxnRequest

KEY_BYTES_MAX: Final = 1024
OPERATIONS_MAX: Final = 64  # of a transaction, at all depths
TEXTS_MAX: Final = 16
MALFORMED: Final[dict[str, object]] = {"malformed": True}

Fields = dict[str, object]

_RANGE: Final = ("key", "range_end")
_LEADER: Final = ("leader",)
_SHOWN: Final[dict[str, tuple[type[Message], tuple[str, ...]]]] = {
    "/etcdserverpb.KV/Range": (rpc_pb2.RangeRequest, (*_RANGE, "revision")),
    "/etcdserverpb.KV/RangeStream": (rpc_pb2.RangeRequest, (*_RANGE, "revision")),
    "/etcdserverpb.KV/Put": (rpc_pb2.PutRequest, ("key", "lease")),
    "/etcdserverpb.KV/DeleteRange": (rpc_pb2.DeleteRangeRequest, _RANGE),
    "/etcdserverpb.KV/Compact": (rpc_pb2.CompactionRequest, ("revision",)),
    "/etcdserverpb.Lease/LeaseGrant": (rpc_pb2.LeaseGrantRequest, ("ID", "TTL")),
    "/etcdserverpb.Lease/LeaseRevoke": (rpc_pb2.LeaseRevokeRequest, ("ID",)),
    "/etcdserverpb.Lease/LeaseTimeToLive": (rpc_pb2.LeaseTimeToLiveRequest, ("ID",)),
    "/etcdserverpb.Cluster/MemberAdd": (rpc_pb2.MemberAddRequest, ("peerURLs", "isLearner")),
    "/etcdserverpb.Cluster/MemberRemove": (rpc_pb2.MemberRemoveRequest, ("ID",)),
    "/etcdserverpb.Cluster/MemberUpdate": (rpc_pb2.MemberUpdateRequest, ("ID", "peerURLs")),
    "/etcdserverpb.Cluster/MemberPromote": (rpc_pb2.MemberPromoteRequest, ("ID",)),
    "/etcdserverpb.Maintenance/Alarm": (rpc_pb2.AlarmRequest, ("action", "memberID", "alarm")),
    "/etcdserverpb.Maintenance/HashKV": (rpc_pb2.HashKVRequest, ("revision",)),
    "/etcdserverpb.Maintenance/MoveLeader": (rpc_pb2.MoveLeaderRequest, ("targetID",)),
    "/etcdserverpb.Maintenance/Downgrade": (rpc_pb2.DowngradeRequest, ("action", "version")),
    "/etcdserverpb.Auth/Authenticate": (rpc_pb2.AuthenticateRequest, ("name",)),
    "/etcdserverpb.Auth/UserAdd": (rpc_pb2.AuthUserAddRequest, ("name",)),
    "/etcdserverpb.Auth/UserGet": (rpc_pb2.AuthUserGetRequest, ("name",)),
    "/etcdserverpb.Auth/UserDelete": (rpc_pb2.AuthUserDeleteRequest, ("name",)),
    "/etcdserverpb.Auth/UserChangePassword": (rpc_pb2.AuthUserChangePasswordRequest, ("name",)),
    "/etcdserverpb.Auth/UserGrantRole": (rpc_pb2.AuthUserGrantRoleRequest, ("user", "role")),
    "/etcdserverpb.Auth/UserRevokeRole": (rpc_pb2.AuthUserRevokeRoleRequest, ("name", "role")),
    "/etcdserverpb.Auth/RoleAdd": (rpc_pb2.AuthRoleAddRequest, ("name",)),
    "/etcdserverpb.Auth/RoleGet": (rpc_pb2.AuthRoleGetRequest, ("role",)),
    "/etcdserverpb.Auth/RoleDelete": (rpc_pb2.AuthRoleDeleteRequest, ("role",)),
    "/etcdserverpb.Auth/RoleGrantPermission": (rpc_pb2.AuthRoleGrantPermissionRequest, ("name", "perm")),
    "/etcdserverpb.Auth/RoleRevokePermission": (
        rpc_pb2.AuthRoleRevokePermissionRequest,
        ("role", *_RANGE),
    ),
    "/v3lockpb.Lock/Lock": (lock_pb2.LockRequest, ("name", "lease")),
    "/v3lockpb.Lock/Unlock": (lock_pb2.UnlockRequest, ("key",)),
    "/v3electionpb.Election/Campaign": (election_pb2.CampaignRequest, ("name", "lease")),
    "/v3electionpb.Election/Proclaim": (election_pb2.ProclaimRequest, _LEADER),
    "/v3electionpb.Election/Resign": (election_pb2.ResignRequest, _LEADER),
    "/v3electionpb.Election/Leader": (election_pb2.LeaderRequest, ("name",)),
    "/v3electionpb.Election/Observe": (election_pb2.LeaderRequest, ("name",)),
}
# Messages within messages, and what of them is shown.
_WITHIN: Final[dict[str, tuple[str, ...]]] = {
    "Permission": ("permType", *_RANGE),
    "LeaderKey": ("name", "key", "lease"),
}
_OPERATIONS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "request_range": ("range", _RANGE),
    "request_put": ("put", ("key", "lease")),
    "request_delete_range": ("delete", _RANGE),
}
_TXN: Final = "/etcdserverpb.KV/Txn"


def fields_of(path: str, payload: bytes) -> Fields:
    """What is shown of a request of this method."""
    try:
        if path == _TXN:
            return _txn(TxnRequest.FromString(payload))
        known = _SHOWN.get(path)
        return {} if known is None else _shown(known[0].FromString(payload), known[1])
    except DecodeError:
        return dict(MALFORMED)


def range_fields(key: bytes, range_end: bytes) -> Fields:
    fields: Fields = {}
    _put(fields, "key", key)
    if range_end:
        _put(fields, "range_end", range_end)
    return fields


def _shown(message: Message, names: Iterable[str]) -> Fields:
    fields: Fields = {}
    for descriptor, value in message.ListFields():
        if descriptor.name not in names:
            continue
        if isinstance(value, bytes):
            _put(fields, descriptor.name, value)
        elif isinstance(value, Message):
            fields[descriptor.name] = _shown(value, _WITHIN[value.DESCRIPTOR.name])
        elif descriptor.enum_type is not None:
            known = descriptor.enum_type.values_by_number.get(value)
            fields[descriptor.name] = value if known is None else known.name
        elif isinstance(value, str):
            fields[descriptor.name] = value[:KEY_BYTES_MAX]
        elif isinstance(value, bool | int):
            fields[descriptor.name] = value
        else:
            fields[descriptor.name] = [str(each)[:KEY_BYTES_MAX] for each in value[:TEXTS_MAX]]
    return fields


def _put(fields: Fields, name: str, value: bytes) -> None:
    cut = value[:KEY_BYTES_MAX]
    if len(value) > KEY_BYTES_MAX:
        fields[name + "_bytes"] = len(value)
        cut = cut.decode("utf-8", "ignore").encode() if _is_text(value) else cut
    if _is_text(cut):
        fields[name] = cut.decode()
    else:
        fields[name + "_base64"] = base64.b64encode(cut).decode()


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _txn(txn: TxnRequest) -> Fields:
    listed: list[Fields] = []
    count = 0
    for operation in _operations(txn):
        count += 1
        if len(listed) < OPERATIONS_MAX:
            listed.append(operation)
    fields: Fields = {"operations": listed}
    if count > len(listed):
        fields["operations_left_out"] = count - len(listed)
    return fields


def _operations(txn: TxnRequest) -> Iterator[Fields]:
    """All that it may do, at any depth: both branches, and what it compares."""
    for compare in txn.compare:
        yield {"operation": "compare", **range_fields(compare.key, compare.range_end)}
    for branch in (txn.success, txn.failure):
        for operation in branch:
            yield from _operation(operation)


def _operation(operation: RequestOp) -> Iterator[Fields]:
    kind = operation.WhichOneof("request")
    if kind == "request_txn":
        yield from _operations(operation.request_txn)
    elif kind is not None:
        name, shown = _OPERATIONS[kind]
        yield {"operation": name, **_shown(getattr(operation, kind), shown)}
