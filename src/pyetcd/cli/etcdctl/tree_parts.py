"""What the descriptions of etcdctl's commands are made with."""

from __future__ import annotations

from pyetcd.cli import program
from pyetcd.cli.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyetcd.cli.command import Invocation
    from pyetcd.cli.flag import Flag


def later(module: str, function: str) -> Callable[[Invocation], None]:
    return program.later("pyetcd.cli.etcdctl", module, function)


def parent(
    name: str,
    short: str,
    group: str,
    commands: Sequence[Command],
    persistent: Sequence[Flag] = (),
) -> Command:
    return Command(
        f"{name} <subcommand>",
        f"{short}; see `etcdctl {name} --help`",
        long=short,
        group=group,
        commands=commands,
        persistent=persistent,
    )
