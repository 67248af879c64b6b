"""`auth enable`, `disable` and `status`."""

from __future__ import annotations

from pyetcd.cli.etcdctl.client import CallError
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.session import Session
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation

ROOT = "root"
NO_ROOT_ROLE = "etcdserver: root user does not have root role"


def enable(call: Invocation) -> None:
    """Also gives root its role, where only that is missing."""
    session = _session(call, "enable")
    while True:
        try:
            _change(session, "AuthEnable")
            break
        except CallError as error:
            if error.message != NO_ROOT_ROLE:
                raise Exit(ERROR, str(error)) from None
        try:
            _change(session, "RoleAdd", name=ROOT)
            _change(session, "UserGrantRole", user=ROOT, role=ROOT)
        except CallError as error:
            raise Exit(ERROR, str(error)) from None
    emit("Authentication Enabled\n")


def disable(call: Invocation) -> None:
    session = _session(call, "disable")
    try:
        _change(session, "AuthDisable")
    except CallError as error:
        raise Exit(ERROR, str(error)) from None
    emit("Authentication Disabled\n")


def status(call: Invocation) -> None:
    session = _session(call, "status")
    answer = session.call(
        "/etcdserverpb.Auth/AuthStatus",
        Message("etcdserverpb.AuthStatusRequest"),
        "etcdserverpb.AuthStatusResponse",
    )
    session.printer.auth_status(answer)


def _session(call: Invocation, command: str) -> Session:
    if call.args:
        raise Exit(BAD_ARGS, f"auth {command} command does not accept any arguments")
    return Session(call)


def _change(session: Session, method: str, **names: str) -> None:
    kind = method if method.startswith("Auth") else f"Auth{method}"
    request = Message(f"etcdserverpb.{kind}Request", **names)
    path, answer = f"/etcdserverpb.Auth/{method}", f"etcdserverpb.{kind}Response"
    session.client.call(path, request, answer, session.deadline, reads=False)
