"""The Auth service: everything goes through the log, as in etcd, questions too; so an answer is as of its
entry, and each member of a mixed cluster judges it alike.

What is not there in clear text is a password: it is hashed, or compared with its hash, before anything is
proposed (`auth.passwords`). An answer about a password holds for one auth revision: if users have changed
meanwhile, it is compared anew.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from google.protobuf.message import Message

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.api.dispatch import AsyncUnary, Body
from pyetcd.auth.access import ROOT
from pyetcd.auth.passwords import Passwords, check_length
from pyetcd.auth.remembered import Remembered
from pyetcd.auth.store import NO_PASSWORD_USER
from pyetcd.member.member import Member
from pyetcd.proto import errors, strict
from pyetcd.proto.errors import UNKNOWN, EtcdError
from pyetcd.proto.raft_internal_pb2 import InternalAuthenticateRequest, InternalRaftRequest
from pyetcd.proto.rpc_pb2 import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
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
)

_RAFT: Final = InternalRaftRequest
AUTHENTICATE: Final = _RAFT.AUTHENTICATE_FIELD_NUMBER

# Method, its request, and the entry it becomes.
LOGGED: Final[Mapping[str, tuple[type[Message], int]]] = {
    "AuthEnable": (AuthEnableRequest, _RAFT.AUTH_ENABLE_FIELD_NUMBER),
    "AuthDisable": (AuthDisableRequest, _RAFT.AUTH_DISABLE_FIELD_NUMBER),
    "AuthStatus": (AuthStatusRequest, _RAFT.AUTH_STATUS_FIELD_NUMBER),
    "UserGet": (AuthUserGetRequest, _RAFT.AUTH_USER_GET_FIELD_NUMBER),
    "UserList": (AuthUserListRequest, _RAFT.AUTH_USER_LIST_FIELD_NUMBER),
    "UserDelete": (AuthUserDeleteRequest, _RAFT.AUTH_USER_DELETE_FIELD_NUMBER),
    "UserGrantRole": (AuthUserGrantRoleRequest, _RAFT.AUTH_USER_GRANT_ROLE_FIELD_NUMBER),
    "UserRevokeRole": (AuthUserRevokeRoleRequest, _RAFT.AUTH_USER_REVOKE_ROLE_FIELD_NUMBER),
    "RoleAdd": (AuthRoleAddRequest, _RAFT.AUTH_ROLE_ADD_FIELD_NUMBER),
    "RoleGet": (AuthRoleGetRequest, _RAFT.AUTH_ROLE_GET_FIELD_NUMBER),
    "RoleList": (AuthRoleListRequest, _RAFT.AUTH_ROLE_LIST_FIELD_NUMBER),
    "RoleDelete": (AuthRoleDeleteRequest, _RAFT.AUTH_ROLE_DELETE_FIELD_NUMBER),
    "RoleGrantPermission": (
        AuthRoleGrantPermissionRequest,
        _RAFT.AUTH_ROLE_GRANT_PERMISSION_FIELD_NUMBER,
    ),
    "RoleRevokePermission": (
        AuthRoleRevokePermissionRequest,
        _RAFT.AUTH_ROLE_REVOKE_PERMISSION_FIELD_NUMBER,
    ),
}

_log = logs.get("api")


class Auth:
    """etcdserverpb.Auth."""

    def __init__(
        self, member: Member, passwords: Passwords, remembered: Remembered | None = None
    ) -> None:
        """`remembered`: None for none."""
        self._remembered = remembered
        self._member = member
        self._store = member.auth
        self._passwords = passwords
        handlers: dict[str, AsyncUnary] = {
            name: self._logged(request, kind) for name, (request, kind) in LOGGED.items()
        }
        handlers["UserAdd"] = self.user_add
        handlers["UserChangePassword"] = self.user_change_password
        handlers["Authenticate"] = self.authenticate
        self.coroutines: Mapping[str, AsyncUnary] = {
            f"/etcdserverpb.Auth/{name}": handler for name, handler in handlers.items()
        }

    def _logged(self, request_type: type[Message], kind: int) -> AsyncUnary:
        async def handle(call: int, payload: bytes, meta: Meta) -> Body:
            request, payload = strict.parse_logged(request_type, payload)
            return self._member.encode(await self._member.request(kind, payload, request, meta=meta))

        return handle

    async def user_add(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(AuthUserAddRequest, payload)
        if not request.options.no_password:
            request.hashedPassword = await self._hashed(request.password, meta)
        request.password = ""
        return await self._propose(_RAFT.AUTH_USER_ADD_FIELD_NUMBER, request, meta)

    async def user_change_password(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(AuthUserChangePasswordRequest, payload)
        if request.password:
            request.hashedPassword = await self._hashed(request.password, meta)
            request.password = ""
        return await self._propose(_RAFT.AUTH_USER_CHANGE_PASSWORD_FIELD_NUMBER, request, meta)

    async def authenticate(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(AuthenticateRequest, payload)
        if not self._member.reads_are_current:
            await self._member.current()
        while True:
            revision = await self._check_password(request)
            entry = InternalAuthenticateRequest(name=request.name, simple_token=self._store.tokens.prefix())
            answer = await self._member.request(AUTHENTICATE, entry.SerializeToString(), entry)
            if revision == self._store.revision:
                return self._member.encode(answer)
            _log.info("revision when password checked became stale; retrying")

    async def _check_password(self, request: AuthenticateRequest) -> int:
        """The auth revision at which it is right."""
        store = self._store
        if not store.enabled:
            raise errors.AUTH_NOT_ENABLED
        revision = store.revision
        user = store.user(request.name)
        stored = None if user is None or user.options.no_password else user.password
        remembered = self._remembered if stored is not None else None
        if remembered is not None and remembered.has(revision, request.name, request.password):
            return revision
        root = store.user(ROOT)
        example = None if root is None or root.options.no_password else root.password
        if not await self._passwords.check(request.password, stored, example):
            error: EtcdError = errors.AUTH_FAILED()
            if user is not None and user.options.no_password:
                error = EtcdError(UNKNOWN, NO_PASSWORD_USER)
            _log.warn("invalid authentication was requested", {"user": request.name, "error": error})
            raise error
        if remembered is not None:
            remembered.note(revision, request.name, request.password)
        return revision

    async def _hashed(self, password: str, meta: Meta) -> str:
        check_length(password.encode())
        self._member.identity.require_admin(meta)  # a hash is dear: not for anybody
        return base64.b64encode(await self._passwords.hash(password)).decode()

    async def _propose(self, kind: int, request: Message, meta: Meta) -> Body:
        answer = await self._member.request(kind, request.SerializeToString(), request, meta=meta)
        return self._member.encode(answer)
