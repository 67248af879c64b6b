"""Help and usage texts, laid out as cobra lays them out."""

from __future__ import annotations

import sys

from pyetcd.cli.command import Command, UnknownCommand, resolve
from pyetcd.cli.flag import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyetcd.cli.command import Invocation

NAME_WIDTH_MIN = 11
_KIND_NAMES = {
    "string": "string",
    "bool": "",
    "int": "int",
    "uint": "uint",
    "uint32": "uint32",
    "duration": "duration",
    "strings": "strings",
}


def help_text(command: Command, footer: str = "") -> str:
    """What `--help` prints: the description, the usage and a last line of the program's own."""
    description = (command.long or command.short).strip()
    return f"{description}\n\n{usage_text(command)}{footer}"


def explain(call: Invocation, help_of: Callable[[Command], str]) -> None:
    """What the command `help` does: the help of the command that its arguments name."""
    root = call.command.parent
    assert root is not None, "help is a command of the root"
    try:
        command, _ = resolve(root, call.args)
    except UnknownCommand:
        topic = " ".join(f"`{arg}`" for arg in call.args)
        for flag in root.flags:
            flag.hidden = flag.hidden or flag.name == "help"  # cobra has not made it by then
        sys.stderr.write(f"Unknown help topic [{topic}]\n{usage_text(root)}")
        return
    sys.stdout.write(help_of(command))


def usage_text(command: Command) -> str:
    parts = ["Usage:"]
    if command.run is not None:
        flags = " [flags]" if command.flags_in_use and "[flags]" not in command.use else ""
        above = f"{command.parent.path} " if command.parent else ""
        parts.append(f"\n  {above}{command.use}{flags}")
    if command.commands:
        parts.append(f"\n  {command.path} [command]")
        parts += _subcommands(command)
    for title, flags_of in (
        ("Flags", [*command.flags, *command.persistent]),
        ("Global Flags", command.inherited_flags()),
    ):
        visible = _visible(flags_of)
        if visible:
            parts.append(f"\n\n{title}:\n{flags_text(visible)}")
    if command.commands:
        parts.append(f'\n\nUse "{command.path} [command] --help" for more information about a command.')
    return "".join(parts) + "\n"


def _visible(flags: list[Flag]) -> list[Flag]:
    return [flag for flag in flags if not flag.hidden]


def _subcommands(command: Command) -> list[str]:
    width = max(NAME_WIDTH_MIN, max(len(sub.name) for sub in command.commands))
    groups = command.groups or (("", "Available Commands:"),)
    ordered = sorted(command.commands, key=lambda sub: sub.name)
    lines: list[str] = []
    for group, title in groups:
        lines.append(f"\n\n{title}")
        lines += [f"\n  {sub.name.ljust(width)} {sub.short}" for sub in ordered if sub.group == group]
    return lines


def flags_text(flags: list[Flag]) -> str:
    """One line a flag, sorted by name, descriptions in a column."""
    heads = {flag.name: _head(flag) for flag in flags}
    width = max(len(head) for head in heads.values())
    ordered = sorted(flags, key=lambda flag: flag.name)
    return "\n".join(f"{heads[flag.name].ljust(width)}   {flag.usage}{_default(flag)}" for flag in ordered)


def _head(flag: Flag) -> str:
    names = f"  -{flag.shorthand}, --{flag.name}" if flag.shorthand else f"      --{flag.name}"
    kind = _KIND_NAMES[flag.kind]
    return f"{names} {kind}" if kind else names


def _default(flag: Flag) -> str:
    if not flag.default:
        return ""
    shown = flag.shown(flag.default)
    return f' (default "{shown}")' if flag.kind == "string" else f" (default {shown})"
