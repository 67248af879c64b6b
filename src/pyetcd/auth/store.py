"""The auth store: what is permitted now, and the entries that change users and roles.

Rules that hold here:

* Every change that is made raises the revision by one, in memory and in the database alike.
* What one user may do is put together when it is first asked for, and thrown away with the revision.
* While authentication is on, the user `root` and the role `root` stay, and the one keeps the other.
* Passwords come hashed; an entry of an etcd before 3.5, with a plain one, is hashed as it is applied.

Answers and errors are etcd's (server/auth/store.go).
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from pyetcd import logs
from pyetcd.auth.access import ROOT, Access
from pyetcd.auth.accounts import Accounts, Backend, check_name
from pyetcd.auth.caller import Caller
from pyetcd.auth.intervals import OPEN_END, is_range
from pyetcd.auth.tokens import Tokens, fingerprint
from pyetcd.proto import errors
from pyetcd.proto.auth_pb2 import Permission, Role, User, UserAddOptions
from pyetcd.proto.errors import UNKNOWN, EtcdError
from pyetcd.proto.raft_internal_pb2 import InternalAuthenticateRequest
from pyetcd.proto.rpc_pb2 import (
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGetRequest,
    AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest,
    AuthRoleListResponse,
    AuthRoleRevokePermissionRequest,
    AuthStatusResponse,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGetRequest,
    AuthUserGetResponse,
    AuthUserGrantRoleRequest,
    AuthUserListResponse,
    AuthUserRevokeRoleRequest,
)

NO_PASSWORD_USER: Final = "auth: authentication failed, password was given for no password user"
CACHED_MAX: Final = 10_000  # users whose access is known

_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

_log = logs.get("auth")


class AuthStore:
    """`enabled` and `revision` are plain attributes: the hot paths look at them."""

    def __init__(self, backend: Backend, tokens: Tokens, hash_now: Callable[[bytes], bytes]) -> None:
        """`hash_now`: hashes a password here and now."""
        self.enabled = False
        self.revision = 0
        self.tokens = tokens
        self._accounts = Accounts(backend)
        self._hash_now = hash_now
        self._access: dict[str, Access] = {}
        self.load()

    def load(self) -> None:
        """Read the database, at the start or when another has taken its place."""
        self.revision = self._accounts.revision
        self.enabled = self._accounts.enabled
        self._access.clear()
        if self.enabled:
            self.tokens.enable()
        else:
            self.tokens.disable()

    def root(self) -> Caller | None:
        """The caller of what the member does on its own."""
        return Caller(ROOT, self.revision) if self.enabled else None

    def user(self, name: str) -> User | None:
        return self._accounts.user(name)

    # What is permitted

    def check_read(self, caller: Caller, key: bytes, range_end: bytes) -> None:
        access = self._checked(caller)
        if access is not None and not access.is_root and not access.reads.has_range(key, range_end):
            raise errors.PERMISSION_DENIED

    def check_write(self, caller: Caller, key: bytes, range_end: bytes) -> None:
        access = self._checked(caller)
        if access is not None and not access.is_root and not access.writes.has_range(key, range_end):
            raise errors.PERMISSION_DENIED

    def _checked(self, caller: Caller) -> Access | None:
        """What the caller may do; None while authentication is off."""
        if not self.enabled:
            return None
        if not caller.revision:
            raise errors.USER_EMPTY
        if caller.revision < self.revision:
            _log.warn(
                "request auth revision is less than current node auth revision",
                {
                    "current node auth revision": self.revision,
                    "request auth revision": caller.revision,
                    "error": "auth: revision in header is old",
                },
            )
            raise errors.AUTH_OLD_REVISION
        access = self._access_of(caller.name)
        if access is None:
            _log.error("cannot find a user for permission check", {"user-name": caller.name})
            raise errors.PERMISSION_DENIED
        return access

    def check_admin(self, caller: Caller) -> None:
        """Permission for what only a root may do."""
        if not self.enabled:
            return
        if not caller.name:
            raise errors.USER_EMPTY
        access = self._access_of(caller.name)
        if access is None:
            raise errors.USER_NOT_FOUND
        if not access.is_root:
            raise errors.PERMISSION_DENIED

    def is_admin(self, caller: Caller) -> bool:
        """The same, as a question."""
        if not self.enabled:
            return True
        access = self._access_of(caller.name) if caller.name else None
        return access is not None and access.is_root

    def _access_of(self, name: str) -> Access | None:
        access = self._access.get(name)
        if access is None:
            user = self._accounts.user(name)
            if user is None:
                return None
            found = [self._accounts.role(role) for role in user.roles]
            access = Access(_has_root_role(user), [role for role in found if role is not None])
            if len(self._access) >= CACHED_MAX:
                self._access.clear()
            self._access[name] = access
        return access

    def _changed(self) -> None:
        self.revision += 1
        self._accounts.revision = self.revision
        self._access.clear()

    # On, off, and who is who

    def enable(self) -> None:
        if self.enabled:
            _log.info("authentication is already enabled; ignored auth enable request")
            return
        root = self._accounts.user(ROOT)
        if root is None:
            raise errors.ROOT_USER_NOT_EXIST
        if not _has_root_role(root):
            raise errors.ROOT_ROLE_NOT_EXIST
        self._accounts.enabled = self.enabled = True
        self.tokens.enable()
        self._access.clear()
        _log.info("enabled authentication")

    def disable(self) -> None:
        if not self.enabled:
            return
        self._accounts.enabled = self.enabled = False
        self._changed()
        self.tokens.disable()
        _log.info("disabled authentication")

    def status(self) -> AuthStatusResponse:
        return AuthStatusResponse(enabled=self.enabled, authRevision=self.revision)

    def authenticate(
        self, request: InternalAuthenticateRequest, index: int, told: bool
    ) -> AuthenticateResponse:
        """The password has been compared before. `index`: of the entry."""
        if not self.enabled:
            raise errors.AUTH_NOT_ENABLED
        user = self._accounts.user(request.name)
        if user is None or user.options.no_password:
            raise errors.AUTH_FAILED
        token = self.tokens.assign(request.name, self.revision, request.simple_token, index, told)
        _log.debug(
            "authenticated a user", {"user-name": request.name, "token-fingerprint": fingerprint(token)}
        )
        return AuthenticateResponse(token=token)

    # Users

    def user_add(self, request: AuthUserAddRequest) -> None:
        if not request.name:
            raise errors.USER_EMPTY
        name = check_name(request.name)
        if self._accounts.user(request.name) is not None:
            raise errors.USER_ALREADY_EXISTS
        options = UserAddOptions()
        if request.HasField("options"):
            options.CopyFrom(request.options)
        password = b""
        if not options.no_password:
            password = self._password(request.password, request.hashedPassword)
        self._accounts.put_user(User(name=name, password=password, options=options))
        self._changed()
        _log.info("added a user", {"user-name": request.name})

    def user_delete(self, request: AuthUserDeleteRequest) -> None:
        if self.enabled and request.name == ROOT:
            _log.error("cannot delete 'root' user", {"user-name": request.name})
            raise errors.INVALID_AUTH_MANAGEMENT
        user = self._user(request.name)
        self._accounts.delete_user(request.name)
        self._changed()
        self.tokens.invalidate(request.name)
        _log.info("deleted a user", {"user-name": request.name, "user-roles": list(user.roles)})

    def user_change_password(self, request: AuthUserChangePasswordRequest) -> None:
        user = self._user(request.name)
        password = b""
        if not user.options.no_password:
            password = self._password(request.password, request.hashedPassword)
        user.name, user.password = request.name.encode(), password
        self._accounts.put_user(user)
        self._changed()
        self.tokens.invalidate(request.name)
        _log.info("changed a password of a user", {"user-name": request.name, "user-roles": list(user.roles)})

    def user_grant_role(self, request: AuthUserGrantRoleRequest) -> None:
        user = self._user(request.user)
        if request.role != ROOT:
            self._role(request.role)
        fields = {"user-name": request.user, "user-roles": list(user.roles)}
        if request.role in user.roles:
            _log.warn("ignored grant role request to a user", {**fields, "duplicate-role-name": request.role})
            return
        roles = sorted([*user.roles, request.role], key=str.encode)
        user.ClearField("roles")
        user.roles.extend(roles)
        self._accounts.put_user(user)
        self._changed()
        _log.info(
            "granted a role to a user", {**fields, "user-roles": roles, "added-role-name": request.role}
        )

    def user_revoke_role(self, request: AuthUserRevokeRoleRequest) -> None:
        if self.enabled and request.name == ROOT and request.role == ROOT:
            _log.error(
                "'root' user cannot revoke 'root' role",
                {"user-name": request.name, "role-name": request.role},
            )
            raise errors.INVALID_AUTH_MANAGEMENT
        user = self._user(request.name)
        old = list(user.roles)
        if not self._take_role(user, request.role):
            raise errors.ROLE_NOT_GRANTED
        self._changed()
        _log.info(
            "revoked a role from a user",
            {
                "user-name": request.name,
                "old-user-roles": old,
                "new-user-roles": list(user.roles),
                "revoked-role-name": request.role,
            },
        )

    def user_get(self, request: AuthUserGetRequest, caller: Caller) -> AuthUserGetResponse:
        if request.name != caller.name:
            self.check_admin(caller)
        return AuthUserGetResponse(roles=self._user(request.name).roles)

    def user_list(self) -> AuthUserListResponse:
        return AuthUserListResponse(users=[_text(user.name) for user in self._accounts.users()])

    # Roles

    def role_add(self, request: AuthRoleAddRequest) -> None:
        if not request.name:
            raise errors.ROLE_EMPTY
        name = check_name(request.name)
        if self._accounts.role(request.name) is not None:
            raise errors.ROLE_ALREADY_EXISTS
        self._accounts.put_role(Role(name=name))
        self._changed()
        _log.info("created a role", {"role-name": request.name})

    def role_delete(self, request: AuthRoleDeleteRequest) -> None:
        if self.enabled and request.role == ROOT:
            _log.error("cannot delete 'root' role", {"role-name": request.role})
            raise errors.INVALID_AUTH_MANAGEMENT
        self._role(request.role)
        self._accounts.delete_role(request.role)
        for user in self._accounts.users():
            self._take_role(user, request.role)
        self._changed()
        _log.info("deleted a role", {"role-name": request.role})

    def role_get(self, request: AuthRoleGetRequest, caller: Caller) -> AuthRoleGetResponse:
        if not self.is_admin(caller):
            user = self._accounts.user(caller.name)
            if user is None or request.role not in user.roles:
                self.check_admin(caller)
        role = self._role(request.role)
        if request.role == ROOT:
            everything = Permission(permType=Permission.READWRITE, range_end=OPEN_END)
            return AuthRoleGetResponse(perm=[everything])
        return AuthRoleGetResponse(perm=role.keyPermission)

    def role_list(self) -> AuthRoleListResponse:
        return AuthRoleListResponse(roles=[_text(role.name) for role in self._accounts.roles()])

    def role_grant_permission(self, request: AuthRoleGrantPermissionRequest) -> None:
        if not request.HasField("perm"):
            raise errors.PERMISSION_NOT_GIVEN
        given = request.perm
        if not is_range(given.key, given.range_end):
            raise errors.INVALID_AUTH_MANAGEMENT
        role = self._role(request.name)
        permissions = list(role.keyPermission)
        at = bisect_left(permissions, given.key, key=_key)
        if at < len(permissions) and _span(permissions[at]) == _span(given):
            permissions[at].permType = given.permType
        else:
            added = Permission(permType=given.permType, key=given.key, range_end=given.range_end)
            permissions = sorted([*permissions, added], key=_key)
            role = Role(name=role.name, keyPermission=permissions)
        self._accounts.put_role(role)
        self._changed()
        _log.info(
            "granted/updated a permission to a user",
            {
                "user-name": request.name,
                "permission-name": _permission_name(given.permType),
                "key": _text(given.key),
                "range-end": _text(given.range_end),
            },
        )

    def role_revoke_permission(self, request: AuthRoleRevokePermissionRequest) -> None:
        role = self._role(request.role)
        span = request.key, request.range_end
        kept = [permission for permission in role.keyPermission if _span(permission) != span]
        if len(kept) == len(role.keyPermission):
            raise errors.PERMISSION_NOT_GRANTED
        self._accounts.put_role(Role(name=role.name, keyPermission=kept))
        self._changed()
        _log.info(
            "revoked a permission on range",
            {
                "role-name": request.role,
                "key": _text(request.key),
                "range-end": _text(request.range_end),
            },
        )

    # Within

    def _user(self, name: str) -> User:
        user = self._accounts.user(name)
        if user is None:
            raise errors.USER_NOT_FOUND
        return user

    def _role(self, name: str) -> Role:
        role = self._accounts.role(name)
        if role is None:
            raise errors.ROLE_NOT_FOUND
        return role

    def _take_role(self, user: User, name: str) -> bool:
        """Whether the user had it."""
        kept = [role for role in user.roles if role != name]
        if len(kept) == len(user.roles):
            return False
        user.ClearField("roles")
        user.roles.extend(kept)
        self._accounts.put_user(user)
        return True

    def _password(self, plain: str, hashed: str) -> bytes:
        if plain and not hashed:
            return self._hash_now(plain.encode())
        text = hashed.replace("\r", "").replace("\n", "")
        if _BASE64.fullmatch(text) is None:
            raise EtcdError(UNKNOWN, NO_PASSWORD_USER)
        return base64.b64decode(text)


def _has_root_role(user: User) -> bool:
    """By halving, as etcd looks: the roles of a user are sorted."""
    at = bisect_left(user.roles, ROOT.encode(), key=str.encode)
    return at < len(user.roles) and user.roles[at] == ROOT


def _key(permission: Permission) -> bytes:
    return permission.key


def _span(permission: Permission) -> tuple[bytes, bytes]:
    return permission.key, permission.range_end


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _permission_name(kind: int) -> str:
    return Permission.Type.Name(kind) if kind in Permission.Type.values() else ""
