"""Write the man pages of etcd, etcdctl and etcdutl into a directory, from the tables that their flags and
commands are read by: they say what this very version takes, and cannot go stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pyetcd.cli.command import Command
from pyetcd.cli.etcd.flag_table import FLAGS, SECTIONS
from pyetcd.cli.etcd.help import feature_lines
from pyetcd.cli.etcdctl.tree import root as etcdctl_root
from pyetcd.cli.etcdutl.tree import root as etcdutl_root
from pyetcd.cli.flag import Flag
from pyetcd.version import SERVER_VERSION

SEE_ALSO = ("etcd", "etcdctl", "etcdutl")


def escaped(text: str) -> str:
    """Text as roff has to have it: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in text.split("\n"))


def head(name: str, summary: str) -> Iterator[str]:
    yield f'.TH {name.upper()} 1 "" "pyetcd {SERVER_VERSION}"'
    yield ".SH NAME"
    yield f"{name} \\- {escaped(summary)}"


def tail(name: str) -> Iterator[str]:
    yield ".SH SEE ALSO"
    yield ",\n".join(f".BR {each} (1)" for each in SEE_ALSO if each != name).replace(",\n", " ,\n")


def etcd_page() -> str:
    lines = [*head("etcd", "a member of a distributed key-value store")]
    lines += [
        ".SH SYNOPSIS",
        ".B etcd",
        ".RI [ flags ]",
        ".br",
        ".B etcd gateway start",
        ".RI [ flags ]",
        ".br",
    ]
    lines += [".B etcd grpc\\-proxy start", ".RI [ flags ]", ".SH DESCRIPTION"]
    lines += [
        escaped(
            "Runs a member. Each flag may also be given as a variable, --name as ETCD_NAME; the flag counts."
            " With --config-file, flags and variables are left aside."
        ),
        ".SH OPTIONS",
    ]
    for section in SECTIONS:
        lines.append(f".SS {escaped(section)}")
        for flag in FLAGS:
            if flag.section != section:
                continue
            shown = f" \\fI{escaped(flag.shown)}\\fR" if flag.shown else ""
            lines += [
                ".TP",
                f"\\fB\\-\\-{escaped(flag.name)}\\fR{shown}",
                escaped(flag.help or flag.variable),
            ]
            if flag.name == "feature-gates":
                for feature in feature_lines():
                    lines += [".br", escaped(feature)]
    lines += [
        ".SH SIGNALS",
        escaped("SIGTERM and SIGINT hand leadership on, end the member in good order, and are then its end."),
    ]
    return "\n".join([*lines, *tail("etcd"), ""])


def flag_lines(flag: Flag) -> Iterator[str]:
    letter = f"\\fB\\-{flag.shorthand}\\fR, " if flag.shorthand else ""
    kind = "" if flag.kind == "bool" else f" \\fI{escaped(flag.kind)}\\fR"
    default = f" (default {flag.shown(flag.default)})" if flag.default else ""
    yield ".TP"
    yield f"{letter}\\fB\\-\\-{escaped(flag.name)}\\fR{kind}"
    yield escaped(f"{flag.usage}{default}")


def command_lines(command: Command) -> Iterator[str]:
    """A command that does something, and those below it."""
    if command.run is not None and command.parent is not None:
        above = command.parent.path.split(" ", 1)[1:]
        yield f".SS {escaped(' '.join([*above, command.use]))}"
        text = command.long.strip()
        yield f".nf\n{escaped(text)}\n.fi" if "\n" in text else escaped(text or command.short)
        for flag in sorted(command.flags, key=lambda each: each.name):
            if not flag.hidden and flag.name != "help":
                yield from flag_lines(flag)
    for each in sorted(command.commands, key=lambda each: each.name):
        yield from command_lines(each)


def client_page(tree: Command, summary: str) -> str:
    lines = [*head(tree.name, summary), ".SH SYNOPSIS", f".B {tree.name}", ".RI [ flags ]", ".I command"]
    lines += [".SH OPTIONS", escaped("These hold for every command.")]
    for flag in sorted(tree.persistent, key=lambda each: each.name):
        if not flag.hidden:
            lines += flag_lines(flag)
    lines += [".SH COMMANDS", *command_lines(tree)]
    return "\n".join([*lines, *tail(tree.name), ""])


def pages() -> dict[str, str]:
    return {
        "etcd.1": etcd_page(),
        "etcdctl.1": client_page(etcdctl_root(), "asks and changes a cluster of etcd"),
        "etcdutl.1": client_page(etcdutl_root(), "works on the files of an etcd that does not run"),
    }


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)
        print(directory / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
