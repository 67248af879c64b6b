"""`user add`, `delete`, `get`, `list`, `passwd`, `grant-role` and `revoke-role`.

They wait for a server as long as it takes, whatever `--command-timeout` says, as in etcdctl.
"""

from __future__ import annotations

import sys

from pyetcd.cli.etcdctl.client import Deadline
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.session import Session
from pyetcd.cli.etcdctl.settings import ask_password
from pyetcd.cli.exits import BAD_ARGS, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation


def auth_call(session: Session, method: str, request: Message, *, reads: bool = False) -> Message:
    """One call of the Auth service, about users or roles."""
    path, answer = f"/etcdserverpb.Auth/{method}", f"etcdserverpb.Auth{method}Response"
    return session.call(path, request, answer, reads=reads, deadline=Deadline())


def arguments(call: Invocation, count: int, complaint: str) -> list[str]:
    if len(call.args) != count:
        raise Exit(BAD_ARGS, complaint)
    return call.args


def add(call: Invocation) -> None:
    (user,) = arguments(call, 1, "user add command requires user name as its argument")
    password = call.text("new-user-password")
    without = call.on("no-password")
    if without:
        password = ""
    elif not password:
        name, colon, password = user.partition(":")
        if not colon:
            password = _password_of(call, user)
        elif not name:
            raise Exit(BAD_ARGS, "empty user name is not allowed")
        user = name if colon else user
    session = Session(call)
    options = Message("authpb.UserAddOptions", no_password=without)
    request = Message("etcdserverpb.AuthUserAddRequest", name=user, password=password, options=options)
    session.printer.done(f"User {user} created", auth_call(session, "UserAdd", request))


def delete(call: Invocation) -> None:
    (user,) = arguments(call, 1, "user delete command requires user name as its argument")
    session = Session(call)
    answer = auth_call(session, "UserDelete", Message("etcdserverpb.AuthUserDeleteRequest", name=user))
    session.printer.done(f"User {user} deleted", answer)


def get(call: Invocation) -> None:
    (user,) = arguments(call, 1, "user get command requires user name as its argument")
    session = Session(call)
    request = Message("etcdserverpb.AuthUserGetRequest", name=user)
    answer = auth_call(session, "UserGet", request, reads=True)
    if not call.on("detail"):
        session.printer.user_get(user, answer)
        return
    emit(f"User: {user}\n")
    for role in answer.texts("roles"):
        emit("\n")
        asked = Message("etcdserverpb.AuthRoleGetRequest", role=role)
        session.printer.role_get(role, auth_call(session, "RoleGet", asked, reads=True))


def list_users(call: Invocation) -> None:
    arguments(call, 0, "user list command requires no arguments")
    session = Session(call)
    answer = auth_call(session, "UserList", Message("etcdserverpb.AuthUserListRequest"), reads=True)
    session.printer.user_list(answer)


def change_password(call: Invocation) -> None:
    (user,) = arguments(call, 1, "user passwd command requires user name as its argument")
    password = _password_of(call, user)
    session = Session(call)
    request = Message("etcdserverpb.AuthUserChangePasswordRequest", name=user, password=password)
    session.printer.done("Password updated", auth_call(session, "UserChangePassword", request))


def grant_role(call: Invocation) -> None:
    complaint = "user grant command requires user name and role name as its argument"
    user, role = arguments(call, 2, complaint)
    session = Session(call)
    request = Message("etcdserverpb.AuthUserGrantRoleRequest", user=user, role=role)
    answer = auth_call(session, "UserGrantRole", request)
    session.printer.done(f"Role {role} is granted to user {user}", answer)


def revoke_role(call: Invocation) -> None:
    complaint = "user revoke-role requires user name and role name as its argument"
    user, role = arguments(call, 2, complaint)
    session = Session(call)
    request = Message("etcdserverpb.AuthUserRevokeRoleRequest", name=user, role=role)
    answer = auth_call(session, "UserRevokeRole", request)
    session.printer.done(f"Role {role} is revoked from user {user}", answer)


def _password_of(call: Invocation, user: str) -> str:
    """Asked for twice, or with --interactive=false the first word on standard input."""
    if not call.on("interactive"):
        words = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape").split()
        return words[0] if words else ""
    password = ask_password(f"Password of {user}: ")
    if not password:
        raise Exit(BAD_ARGS, "empty password")
    if ask_password(f"Type password of {user} again for confirmation: ") != password:
        raise Exit(BAD_ARGS, "given passwords are different")
    return password
