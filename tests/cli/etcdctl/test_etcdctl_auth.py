"""Real etcdctl 3.7.1 and ours: the commands about authentication, users and roles ask the same and show the
same, in every format; and the same lines against servers of both kinds."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from both import Both
from ctl_runner import NOTE, Etcdctl, Ran
from scripted import Scripted, scripted
from servers import Etcd
from test_etcdctl_same_answers import every_format, header, same

from pyetcd.proto import rpc_pb2
from pyetcd.proto.auth_pb2 import Permission
from pyetcd.proto.rpc_pb2 import (
    AuthRoleGetResponse,
    AuthRoleListResponse,
    AuthStatusResponse,
    AuthUserGetResponse,
    AuthUserListResponse,
)

PERMISSIONS = [
    Permission(permType=Permission.READ, key=b"a"),
    Permission(permType=Permission.WRITE, key=b"b", range_end=b"c"),
    Permission(permType=Permission.READWRITE, key=b"c", range_end=b"\0"),
    Permission(permType=Permission.READWRITE, key=b"dir/", range_end=b"dir0"),
    Permission(permType=Permission.READ, key=b"q\xc3\xa9\n", range_end=b"z"),
    Permission(permType=Permission.WRITE, key=b"\0", range_end=b"\0"),
]
CHANGES = (
    "UserAdd",
    "UserDelete",
    "UserChangePassword",
    "UserGrantRole",
    "UserRevokeRole",
    "RoleAdd",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
)
ANSWERS = {
    **{name: getattr(rpc_pb2, f"Auth{name}Response")(header=header()) for name in CHANGES},
    "AuthEnable": rpc_pb2.AuthEnableResponse(header=header()),
    "AuthDisable": rpc_pb2.AuthDisableResponse(header=header()),
    "AuthStatus": AuthStatusResponse(header=header(), enabled=True, authRevision=2**63 + 1),
    "UserGet": AuthUserGetResponse(header=header(), roles=["r", 's"é', "root"]),
    "UserList": AuthUserListResponse(header=header(), users=["root", 'u"<', "ü"]),
    "RoleGet": AuthRoleGetResponse(header=header(), perm=PERMISSIONS),
    "RoleList": AuthRoleListResponse(header=header(), roles=["r", "root", 's"é']),
}
STTY = re.compile(rb"^stty: .*\n", re.MULTILINE)  # real etcdctl calls it, terminal or not


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with scripted(ANSWERS) as made:
        yield made


@every_format
@pytest.mark.parametrize(
    "command",
    [
        ["user", "add", "u:p:q"],
        ["user", "get", "u"],
        ["user", "get", "u", "--detail"],
        ["user", "list"],
        ["role", "get", "r"],
        ["role", "list"],
        ["role", "grant-permission", "r", "ReadWrite", "a", "b"],
        ["auth", "status"],
    ],
    ids=" ".join,
)
def test_answers_are_shown_alike_in_every_format(
    both: Both, server: Scripted, command: list[str], format: list[str]
) -> None:
    same(both, [*command, *format], server)


@pytest.mark.parametrize(
    "command",
    [
        ["auth", "enable"],
        ["auth", "disable"],
        ["user", "add", "u", "--new-user-password=p q"],
        ["user", "add", "u:p", "--no-password"],
        ["user", "add", "u:p", "--new-user-password=x"],
        ["user", "add", "u", "--interactive=false"],
        ["user", "passwd", "u", "--interactive=false"],
        ["user", "delete", "u"],
        ["user", "grant-role", "u", "r"],
        ["user", "revoke-role", "u", "r"],
        ["role", "add", "r"],
        ["role", "delete", "r"],
        ["role", "get", "root"],
        ["role", "grant-permission", "r", "read", "a"],
        ["role", "grant-permission", "r", "write", "a", "--prefix"],
        ["role", "grant-permission", "r", "write", "a\udcff", "--prefix"],
        ["role", "grant-permission", "r", "READ", "a", "--from-key"],
        ["role", "grant-permission", "r", "READ", ""],
        ["role", "grant-permission", "r", "READ", "", "--prefix"],
        ["role", "grant-permission", "r", "READ", "", "--from-key"],
        ["role", "revoke-permission", "r", "a"],
        ["role", "revoke-permission", "r", "a", "b"],
        ["role", "revoke-permission", "r", "a", "--prefix"],
        ["role", "revoke-permission", "r", "a", "--from-key"],
        ["role", "revoke-permission", "r", "", "--from-key"],
    ],
    ids=repr,
)
def test_what_is_asked_and_said_is_the_same(both: Both, server: Scripted, command: list[str]) -> None:
    same(both, command, server)


@pytest.mark.parametrize(
    "command",
    [
        ["auth", "enable", "x"],
        ["auth", "disable", "x"],
        ["auth", "status", "x"],
        ["user", "add"],
        ["user", "add", "a", "b"],
        ["user", "add", ":p"],
        ["user", "delete"],
        ["user", "get"],
        ["user", "list", "x"],
        ["user", "passwd"],
        ["user", "grant-role", "u"],
        ["user", "revoke-role", "u"],
        ["role", "add"],
        ["role", "delete"],
        ["role", "get"],
        ["role", "list", "x"],
        ["role", "grant-permission", "r", "read"],
        ["role", "grant-permission", "r", "reads", "a"],
        ["role", "grant-permission", "r", "read", "a", "b", "--prefix"],
        ["role", "grant-permission", "r", "read", "a", "b", "--from-key"],
        ["role", "grant-permission", "r", "read", "a", "--prefix", "--from-key"],
        ["role", "grant-permission", "r", "read", "", "--prefix", "--from-key"],
        ["role", "revoke-permission", "r"],
    ],
    ids=repr,
)
def test_wrong_command_lines_are_refused_alike(both: Both, command: list[str]) -> None:
    ran = both.same(*command, "--endpoints=127.0.0.1:1")
    assert ran.code == 128


@pytest.mark.parametrize(
    "typed", [b"secret\nsecret\n", b"secret\nother\n", b"\n", b" two words \r\n" * 2, b""]
)
@pytest.mark.parametrize("interactive", ["true", "false"])
def test_a_password_is_asked_for(both: Both, server: Scripted, typed: bytes, interactive: str) -> None:
    shown, asked = [], []
    for command in ([both.program], both._ours.command()):
        line = [*command, "user", "passwd", "u", f"--interactive={interactive}"]
        done = subprocess.run(
            [*line, f"--endpoints={server.endpoint}"],
            input=typed,
            capture_output=True,
            env=Etcdctl("").variables(),
            timeout=60,
        )
        complaints = NOTE.sub(b"", STTY.sub(b"", done.stderr))
        shown.append(Ran(done.returncode, done.stdout, complaints))
        asked.append(server.take_asked())
    assert shown[1] == shown[0]
    assert asked[1] == asked[0]


def test_a_cluster_is_locked_and_used_with_both(both: Both, tmp_path: Path) -> None:
    """The same lines, run by turns; what one sets up the other uses."""
    etcd = Etcd(tmp_path, bcrypt_cost=4)
    try:
        at = f"--endpoints=127.0.0.1:{etcd.port}"
        runs = (both.real, both.ours)
        lines: list[tuple[list[str], int]] = [
            (["user", "add", "root:r"], 0),
            (["auth", "enable"], 0),
            (["put", "a", "b"], 1),
            (["--user=root:r", "user", "add", "u:u"], 0),
            (["--user=root:r", "role", "add", "reader"], 0),
            (["--user=root:r", "role", "grant-permission", "reader", "read", "a"], 0),
            (["--user=root:r", "user", "grant-role", "u", "reader"], 0),
            (["--user=root:r", "put", "a", "b"], 0),
            (["--user=u", "--password=u", "get", "a"], 0),
            (["--user=u:u", "put", "a", "b"], 1),
            (["--user=u:wrong", "get", "a"], 2),
            (["--user=u:u", "role", "get", "reader"], 0),
            (["--user=u:u", "user", "list"], 1),
            (["--user=u:u", "auth", "disable"], 1),
            (["--user=root:r", "auth", "disable"], 0),
            (["get", "a"], 0),
        ]
        for number, (line, code) in enumerate(lines):
            ran = runs[number % 2](*line, at)
            assert ran.code == code, (line, ran)
    finally:
        etcd.close()


NO_TEXT = "\udcff\udcfe"  # two bytes of the command line


@pytest.mark.parametrize(
    "command",
    [
        ["user", "add", NO_TEXT, "--new-user-password=p"],
        ["user", "add", f"u:{NO_TEXT}"],
        ["user", "get", NO_TEXT],
        ["user", "delete", NO_TEXT],
        ["user", "grant-role", "u", NO_TEXT],
        ["user", "revoke-role", NO_TEXT, "r"],
        ["role", "add", NO_TEXT],
        ["role", "get", NO_TEXT],
        ["role", "grant-permission", NO_TEXT, "read", "k"],
        ["role", "revoke-permission", NO_TEXT, "k"],
        ["downgrade", "validate", NO_TEXT],
        ["get", "k", f"--user={NO_TEXT}:p"],
    ],
    ids=lambda command: " ".join(command).encode("ascii", "backslashreplace").decode(),
)
def test_names_that_are_no_text_do_not_leave(both: Both, server: Scripted, command: list[str]) -> None:
    ran = both.same(*command, f"--endpoints={server.endpoint}")
    assert ran.code
    assert b"grpc: error while marshaling: string field contains invalid UTF-8" in ran.err
    assert server.take_asked() == []
