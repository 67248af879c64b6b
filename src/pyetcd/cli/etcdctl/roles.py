"""`role add`, `delete`, `get`, `list`, `grant-permission` and `revoke-permission`."""

from __future__ import annotations

from pyetcd.cli.etcdctl.session import Session, prefix_end, raw
from pyetcd.cli.etcdctl.users import arguments, auth_call
from pyetcd.cli.exits import BAD_ARGS, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation

PERMISSIONS = {"READ": 0, "WRITE": 1, "READWRITE": 2}
SMALLEST_KEY = OPEN_END = b"\0"


def add(call: Invocation) -> None:
    (role,) = arguments(call, 1, "role add command requires role name as its argument")
    session = Session(call)
    answer = auth_call(session, "RoleAdd", Message("etcdserverpb.AuthRoleAddRequest", name=role))
    session.printer.done(f"Role {role} created", answer)


def delete(call: Invocation) -> None:
    (role,) = arguments(call, 1, "role delete command requires role name as its argument")
    session = Session(call)
    answer = auth_call(session, "RoleDelete", Message("etcdserverpb.AuthRoleDeleteRequest", role=role))
    session.printer.done(f"Role {role} deleted", answer)


def get(call: Invocation) -> None:
    (role,) = arguments(call, 1, "role get command requires role name as its argument")
    session = Session(call)
    request = Message("etcdserverpb.AuthRoleGetRequest", role=role)
    session.printer.role_get(role, auth_call(session, "RoleGet", request, reads=True))


def list_roles(call: Invocation) -> None:
    arguments(call, 0, "role list command requires no arguments")
    session = Session(call)
    answer = auth_call(session, "RoleList", Message("etcdserverpb.AuthRoleListRequest"), reads=True)
    session.printer.role_list(answer)


def grant_permission(call: Invocation) -> None:
    if len(call.args) < 3:
        raise Exit(
            BAD_ARGS,
            "role grant command requires role name, permission type, and key [endkey] as its argument",
        )
    role, kind = call.args[:2]
    permission = PERMISSIONS.get(kind.upper())
    if permission is None:
        raise Exit(BAD_ARGS, f"invalid permission type: {kind}")
    key, end = _span(call, call.args[2:])
    session = Session(call)
    given = Message("authpb.Permission", permType=permission, key=key, range_end=end)
    request = Message("etcdserverpb.AuthRoleGrantPermissionRequest", name=role, perm=given)
    session.printer.done(f"Role {role} updated", auth_call(session, "RoleGrantPermission", request))


def revoke_permission(call: Invocation) -> None:
    if len(call.args) < 2:
        raise Exit(
            BAD_ARGS,
            "role revoke-permission command requires role name and key [endkey] as its argument",
        )
    role, shown = call.args[:2]
    key, end = _span(call, call.args[1:])
    session = Session(call)
    request = Message("etcdserverpb.AuthRoleRevokePermissionRequest", role=role, key=key, range_end=end)
    what = f"key {shown}"
    if end == OPEN_END:
        what = f"range [{shown}, <open ended>"
    elif end:
        what = f"range [{shown}, {end.decode('utf-8', 'surrogateescape')})"
    answer = auth_call(session, "RoleRevokePermission", request)
    session.printer.done(f"Permission of {what} is revoked from role {role}", answer)


def _span(call: Invocation, words: list[str]) -> tuple[bytes, bytes]:
    """Key and range end of a permission."""
    prefix, from_key = call.on("prefix"), call.on("from-key")
    both = "--from-key and --prefix flags are mutually exclusive"
    key = raw(words[0])
    if not key:
        if prefix and from_key:
            raise Exit(BAD_ARGS, both)
        return SMALLEST_KEY, OPEN_END if prefix or from_key else b""
    if len(words) == 1:
        if prefix and from_key:
            raise Exit(BAD_ARGS, both)
        if prefix:
            return key, prefix_end(key)
        return key, OPEN_END if from_key else b""
    if prefix:
        raise Exit(BAD_ARGS, "unexpected endkey argument with --prefix flag")
    if from_key:
        raise Exit(BAD_ARGS, "unexpected endkey argument with --from-key flag")
    return key, raw(words[1])
