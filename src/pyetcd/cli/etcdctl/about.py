"""`version`, `options` and `help`."""

from __future__ import annotations

import sys

from pyetcd.cli.command import UnknownCommand, resolve
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.tree import FOOTER
from pyetcd.cli.usage import flags_text, help_text, usage_text
from pyetcd.version import API_VERSION, SERVER_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Command, Invocation


def version(call: Invocation) -> None:
    emit(f"etcdctl version: {SERVER_VERSION}\nAPI version: {API_VERSION}\n")


def options(call: Invocation) -> None:
    emit("The following options can be passed to any command:\n\n")
    emit(flags_text(call.command.inherited_flags()) + "\n")


def help_on(call: Invocation) -> None:
    root: Command | None = call.command.parent
    assert root is not None, "help is a command of the root"
    try:
        command, _ = resolve(root, call.args)
    except UnknownCommand:
        topic = " ".join(f"`{arg}`" for arg in call.args)
        print(f"Unknown help topic [{topic}]\n{usage_text(root)}", file=sys.stderr, end="")
        return
    emit(help_text(command, FOOTER))
