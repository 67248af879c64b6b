"""Entries of the log that concern users and roles, and whose entries they are.

Which are for a root alone is said here, in one table (etcd's needAdminPermission); what else an entry needs
is asked by what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from pyetcd.auth.caller import NOBODY, Caller
from pyetcd.auth.store import AuthStore
from pyetcd.proto.raft_internal_pb2 import InternalAuthenticateRequest, InternalRaftRequest, RequestHeader
from pyetcd.proto.splice import BYTES, fields, varint_end

CALLERS_MAX: Final = 1000

_HEADER: Final = b"\xa2\x06"  # field 100 of InternalRaftRequest
_RAFT: Final = InternalRaftRequest

ADMIN: Final = frozenset(
    {
        _RAFT.AUTH_ENABLE_FIELD_NUMBER,
        _RAFT.AUTH_DISABLE_FIELD_NUMBER,
        _RAFT.AUTH_USER_ADD_FIELD_NUMBER,
        _RAFT.AUTH_USER_DELETE_FIELD_NUMBER,
        _RAFT.AUTH_USER_CHANGE_PASSWORD_FIELD_NUMBER,
        _RAFT.AUTH_USER_GRANT_ROLE_FIELD_NUMBER,
        _RAFT.AUTH_USER_REVOKE_ROLE_FIELD_NUMBER,
        _RAFT.AUTH_ROLE_ADD_FIELD_NUMBER,
        _RAFT.AUTH_ROLE_GRANT_PERMISSION_FIELD_NUMBER,
        _RAFT.AUTH_ROLE_REVOKE_PERMISSION_FIELD_NUMBER,
        _RAFT.AUTH_ROLE_DELETE_FIELD_NUMBER,
        _RAFT.AUTH_USER_LIST_FIELD_NUMBER,
        _RAFT.AUTH_ROLE_LIST_FIELD_NUMBER,
    }
)

_NOTHING: Final = b""


class AuthEntries:
    """Applies them; what the answer says besides its header is returned encoded."""

    def __init__(self, store: AuthStore) -> None:
        self._store = store
        self._changes: Mapping[int, Callable[[Any], None]] = {
            _RAFT.AUTH_ENABLE_FIELD_NUMBER: lambda request: store.enable(),
            _RAFT.AUTH_DISABLE_FIELD_NUMBER: lambda request: store.disable(),
            _RAFT.AUTH_USER_ADD_FIELD_NUMBER: store.user_add,
            _RAFT.AUTH_USER_DELETE_FIELD_NUMBER: store.user_delete,
            _RAFT.AUTH_USER_CHANGE_PASSWORD_FIELD_NUMBER: store.user_change_password,
            _RAFT.AUTH_USER_GRANT_ROLE_FIELD_NUMBER: store.user_grant_role,
            _RAFT.AUTH_USER_REVOKE_ROLE_FIELD_NUMBER: store.user_revoke_role,
            _RAFT.AUTH_ROLE_ADD_FIELD_NUMBER: store.role_add,
            _RAFT.AUTH_ROLE_DELETE_FIELD_NUMBER: store.role_delete,
            _RAFT.AUTH_ROLE_GRANT_PERMISSION_FIELD_NUMBER: store.role_grant_permission,
            _RAFT.AUTH_ROLE_REVOKE_PERMISSION_FIELD_NUMBER: store.role_revoke_permission,
        }
        self._questions: Mapping[int, Callable[[Any, Caller], Message]] = {
            _RAFT.AUTH_STATUS_FIELD_NUMBER: lambda request, caller: store.status(),
            _RAFT.AUTH_USER_GET_FIELD_NUMBER: store.user_get,
            _RAFT.AUTH_USER_LIST_FIELD_NUMBER: lambda request, caller: store.user_list(),
            _RAFT.AUTH_ROLE_GET_FIELD_NUMBER: store.role_get,
            _RAFT.AUTH_ROLE_LIST_FIELD_NUMBER: lambda request, caller: store.role_list(),
        }
        self.kinds: frozenset[int] = frozenset(
            {*self._changes, *self._questions, _RAFT.AUTHENTICATE_FIELD_NUMBER}
        )

    def apply(self, kind: int, request: Message, caller: Caller, index: int, told: bool) -> bytes:
        """`told`: somebody here waits for the answer. Raises the EtcdError that refuses it."""
        if kind in ADMIN:
            self._store.check_admin(caller)
        change = self._changes.get(kind)
        if change is not None:
            change(request)
            return _NOTHING
        if isinstance(request, InternalAuthenticateRequest):
            return self._store.authenticate(request, index, told).SerializeToString()
        return self._questions[kind](request, caller).SerializeToString()


class EntryCallers:
    """Who made the entries that come from elsewhere: their headers say so."""

    def __init__(self) -> None:
        self._known: dict[bytes, Caller] = {}  # by what a header says beside its ID

    def of(self, data: bytes) -> Caller:
        """`data`: an entry's. It has been parsed before, so it is a message."""
        header = _header(data)
        if not header:
            return NOBODY
        said = header[varint_end(header, 1, len(header)) :] if header[0] == 8 else header
        if not said:
            return NOBODY
        caller = self._known.get(said)
        if caller is None:
            parsed = RequestHeader.FromString(header)
            caller = Caller(parsed.username, parsed.auth_revision)
            if len(self._known) >= CALLERS_MAX:
                self._known.clear()
            self._known[said] = caller
        return caller


def _header(data: bytes) -> bytes:
    """Ours comes first in an entry, Go's last."""
    if data[:2] == _HEADER and len(data) > 2 and data[2] < 0x80:
        return data[3 : 3 + data[2]]
    for number, wire_type, at, behind in fields(data):
        if number == _RAFT.HEADER_FIELD_NUMBER and wire_type == BYTES:
            return data[at:behind]
    return b""
