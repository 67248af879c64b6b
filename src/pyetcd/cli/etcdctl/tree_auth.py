"""`auth`, `user` and `role`: the commands, their flags and help texts."""

from __future__ import annotations

from pyetcd.cli.command import Command
from pyetcd.cli.etcdctl.tree_parts import later, parent
from pyetcd.cli.flag import Flag, switch, text


def auth_command() -> Command:
    return Command(
        "auth <enable or disable>",
        "Turn authentication on or off; see `etcdctl auth --help`",
        long="Turn authentication on or off",
        group="auth",
        commands=[
            Command("enable", "Turn authentication on", later("auth", "enable")),
            Command("disable", "Turn authentication off", later("auth", "disable")),
            Command("status", "Show whether authentication is on", later("auth", "status")),
        ],
    )


def user_command() -> Command:
    interactive = "ask for the password, instead of reading it from standard input"
    return parent(
        "user",
        "List and change users",
        "auth",
        [
            Command(
                "add <user name or user:password> [options]",
                "Add a user",
                later("users", "add"),
                flags=[
                    switch("interactive", interactive, on=True),
                    text("new-user-password", "", "the password"),
                    switch("no-password", "a user that only a certificate's common name stands for"),
                ],
            ),
            Command("delete <user name>", "Delete a user", later("users", "delete")),
            Command(
                "get <user name> [options]",
                "Show a user's roles",
                later("users", "get"),
                flags=[switch("detail", "show the roles' permissions, too")],
            ),
            Command("list", "List the users", later("users", "list_users")),
            Command(
                "passwd <user name> [options]",
                "Change a user's password",
                later("users", "change_password"),
                flags=[switch("interactive", interactive, on=True)],
            ),
            Command("grant-role <user name> <role name>", "Give a user a role", later("users", "grant_role")),
            Command(
                "revoke-role <user name> <role name>",
                "Take a role from a user",
                later("users", "revoke_role"),
            ),
        ],
    )


def role_command() -> Command:
    def spans() -> list[Flag]:
        return [
            switch("prefix", "all keys that begin with <key>"),
            switch("from-key", "all keys from <key> on, in byte order"),
        ]

    return parent(
        "role",
        "List and change roles",
        "auth",
        [
            Command("add <role name>", "Add a role", later("roles", "add")),
            Command("delete <role name>", "Delete a role", later("roles", "delete")),
            Command("get <role name>", "Show a role's permissions", later("roles", "get")),
            Command("list", "List the roles", later("roles", "list_roles")),
            Command(
                "grant-permission [options] <role name> <permission type> <key> [endkey]",
                "Permit a role to read or write keys",
                later("roles", "grant_permission"),
                flags=spans(),
            ),
            Command(
                "revoke-permission <role name> <key> [endkey]",
                "Take a permission from a role",
                later("roles", "revoke_permission"),
                flags=spans(),
            ),
        ],
    )
