"""`version`, `options`, `completion` and `help`."""

from __future__ import annotations

from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.tree import help_of
from pyetcd.cli.usage import explain, flags_text
from pyetcd.version import API_VERSION, SERVER_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation


def version(call: Invocation) -> None:
    emit(f"etcdctl version: {SERVER_VERSION}\nAPI version: {API_VERSION}\n")


def options(call: Invocation) -> None:
    emit("The following options can be passed to any command:\n\n")
    emit(flags_text(call.command.inherited_flags()) + "\n")


def completion(call: Invocation) -> None:
    from pyetcd.cli.completion_scripts import script

    emit(script(call.command.root, call.args[0]))


def help_on(call: Invocation) -> None:
    explain(call, help_of)
