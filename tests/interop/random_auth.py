"""Random requests about users and roles, and of users about keys, leases and the cluster: few names and few
keys, so that they meet.

Everything is drawn from one `random.Random`, so a seed names a sequence. Ranges that end before they begin
are left out: whether real etcd permits one depends on the shape of its tree of permissions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from pyetcd.proto.auth_pb2 import Permission, UserAddOptions
from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    AuthDisableRequest,
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleListRequest,
    AuthRoleRevokePermissionRequest,
    AuthStatusRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGetRequest,
    AuthUserGrantRoleRequest,
    AuthUserListRequest,
    AuthUserRevokeRoleRequest,
    CompactionRequest,
    Compare,
    DefragmentRequest,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    MemberRemoveRequest,
    MoveLeaderRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    StatusRequest,
    TxnRequest,
)

USERS = ("root", "u", "v", "w")
ODD_USERS = ("", "nobody", "ü")
ROLES = ("root", "r", "s", "t")
ODD_ROLES = ("", "none", "ß")
PASSWORDS = ("a", "b", "", "p" * 72)
ODD_PASSWORDS = ("p" * 73, "x", "a\0b")
KEYS = (b"a", b"b", b"c", b"d", b"e", b"b\0")
LEASES = (1, 2, 3)


class AuthRequests:
    """Draws one request after the other."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._about_auth: Sequence[Callable[[], Message]] = (
            self._user_add,
            self._user_add,
            lambda: AuthUserDeleteRequest(name=self.user()),
            self._change_password,
            self._grant_role,
            self._grant_role,
            self._grant_role,
            lambda: AuthUserRevokeRoleRequest(name=self.user(), role=self._role()),
            lambda: AuthUserGetRequest(name=self.user()),
            AuthUserListRequest,
            lambda: AuthRoleAddRequest(name=self._role()),
            lambda: AuthRoleAddRequest(name=self._role()),
            lambda: AuthRoleDeleteRequest(role=self._role()),
            lambda: AuthRoleGetRequest(role=self._role()),
            AuthRoleListRequest,
            self._grant_permission,
            self._grant_permission,
            self._grant_permission,
            self._revoke_permission,
            AuthStatusRequest,
            AuthEnableRequest,
            AuthEnableRequest,
        )
        self._of_users: Sequence[Callable[[], Message]] = (
            self._put,
            self._put,
            self._put,
            self._range,
            self._range,
            self._delete,
            self._txn,
            self._txn,
            lambda: LeaseGrantRequest(ID=self._lease(), TTL=5000),
            lambda: LeaseRevokeRequest(ID=self._lease()),
            lambda: LeaseTimeToLiveRequest(ID=self._lease(), keys=self._often()),
            LeaseLeasesRequest,
            MemberListRequest,
            StatusRequest,
            HashKVRequest,
            DefragmentRequest,
            lambda: MemberRemoveRequest(ID=7),
            lambda: MoveLeaderRequest(targetID=7),
            lambda: AlarmRequest(action=chance.choice((AlarmRequest.GET, AlarmRequest.DEACTIVATE))),
            lambda: CompactionRequest(revision=1),
        )

    def about_auth(self) -> Message:
        if self._chance.random() < 0.01:
            return AuthDisableRequest()
        return self._chance.choice(self._about_auth)()

    def of_user(self) -> Message:
        return self._chance.choice(self._of_users)()

    def user(self) -> str:
        return self._chance.choice(USERS if self._chance.random() < 0.92 else ODD_USERS)

    def password(self) -> str:
        return self._chance.choice(PASSWORDS if self._chance.random() < 0.9 else ODD_PASSWORDS)

    def _role(self) -> str:
        return self._chance.choice(ROLES if self._chance.random() < 0.92 else ODD_ROLES)

    def _lease(self) -> int:
        return self._chance.choice(LEASES)

    def _often(self) -> bool:
        return self._chance.random() < 0.6

    def _user_add(self) -> Message:
        name = self.user()
        if self._chance.random() < 0.7:
            return AuthUserAddRequest(name=name, password=self.password())
        options = UserAddOptions(no_password=self._often())
        return AuthUserAddRequest(name=name, password=self.password(), options=options)

    def _change_password(self) -> Message:
        request = AuthUserChangePasswordRequest(name=self.user(), password=self.password())
        if not request.password and self._often():
            request.hashedPassword = self._chance.choice(("????", "YWJj", "YW\nJj", "YWI", "YWI=", "="))
        return request

    def _grant_role(self) -> Message:
        return AuthUserGrantRoleRequest(user=self.user(), role=self._role())

    def _span(self) -> tuple[bytes, bytes]:
        key = self._chance.choice(KEYS)
        drawn = self._chance.random()
        if drawn < 0.5:
            return key, b""
        if drawn < 0.6:
            return key, b"\0"
        return key, self._chance.choice([end for end in (*KEYS, b"f") if end > key])

    def _grant_permission(self) -> Message:
        request = AuthRoleGrantPermissionRequest(name=self._role())
        if self._chance.random() < 0.95:
            key, end = self._span()
            if self._chance.random() < 0.08:
                key, end = self._chance.choice(((b"", b""), (b"b", b"a"), (b"b", b"b"), (b"", b"\0")))
            kind = self._chance.choice(Permission.Type.values())
            request.perm.CopyFrom(Permission(permType=kind, key=key, range_end=end))
        return request

    def _revoke_permission(self) -> Message:
        key, end = self._span()
        return AuthRoleRevokePermissionRequest(role=self._role(), key=key, range_end=end)

    def _put(self) -> PutRequest:
        request = PutRequest(key=self._chance.choice(KEYS), value=b"v")
        if self._chance.random() < 0.3:
            request.lease = self._lease()
        request.prev_kv = self._chance.random() < 0.3
        return request

    def _range(self) -> RangeRequest:
        key, end = self._span()
        return RangeRequest(key=key, range_end=end, serializable=self._often())

    def _delete(self) -> DeleteRangeRequest:
        key, end = self._span()
        return DeleteRangeRequest(key=key, range_end=end, prev_kv=self._chance.random() < 0.4)

    def _txn(self, depth: int = 2) -> TxnRequest:
        request = TxnRequest()
        for _ in range(self._chance.randrange(2)):
            key, end = self._span()
            compare = Compare(target=Compare.VERSION, result=Compare.GREATER, key=key, range_end=end)
            request.compare.append(compare)
        for branch in (request.success, request.failure):
            for _ in range(self._chance.randrange(3)):
                drawn = self._chance.random()
                if drawn < 0.35:
                    branch.append(RequestOp(request_range=self._range()))
                elif drawn < 0.6:
                    branch.append(RequestOp(request_put=self._put()))
                elif drawn < 0.8:
                    branch.append(RequestOp(request_delete_range=self._delete()))
                elif depth:
                    branch.append(RequestOp(request_txn=self._txn(depth - 1)))
        return request
