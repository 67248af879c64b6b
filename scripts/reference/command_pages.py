"""`etcdctl` and `etcdutl`: every command with its flags, from the trees that they parse by."""

from __future__ import annotations

from collections.abc import Iterator

from pyetcd.cli.command import Command
from pyetcd.cli.etcd import proxies
from pyetcd.cli.etcdctl import tree as etcdctl_tree
from pyetcd.cli.etcdctl.settings import PREFIX
from pyetcd.cli.etcdutl import tree as etcdutl_tree
from pyetcd.cli.flag import Flag
from reference.markdown import block, code, prose, table

ETCDCTL_HEAD = f"""# etcdctl: commands and flags

*Made from the tree of commands that etcdctl itself parses by (`src/pyetcd/cli/etcdctl/tree.py`).*

Every global flag has a variable: `{PREFIX}` and the flag's name in capitals with underscores, as
`{PREFIX}ENDPOINTS`. A variable counts where its flag was not given; both at once are refused.
[Compatibility](../compatibility.md) names what differs from etcd's own etcdctl.
"""
ETCDUTL_HEAD = """# etcdutl: commands and flags

*Made from the tree of commands that etcdutl itself parses by (`src/pyetcd/cli/etcdutl/tree.py`).*

It works on files: a stopped member's data directory, a snapshot. It talks to no server.
"""


PROXIES_HEAD = """# etcd gateway, etcd grpc-proxy: flags

*Made from the tree of commands that they parse by (`src/pyetcd/cli/etcd/proxies.py`).*

`etcd gateway` forwards TCP connections to members, whatever is spoken on them. `etcd grpc-proxy` speaks gRPC
to both sides. [Compatibility](../compatibility.md) says what of them is there.
"""


def proxy_commands() -> str:
    return _page(proxies.root(), PROXIES_HEAD)


def etcdctl() -> str:
    return _page(etcdctl_tree.root(), ETCDCTL_HEAD)


def etcdutl() -> str:
    return _page(etcdutl_tree.root(), ETCDUTL_HEAD)


def _page(root: Command, head: str) -> str:
    parts = [head]
    if root.persistent:
        parts += ["## Global flags\n", _flags(root.persistent)]
    for command in _runnable(root):
        parts.append(f"## {command.path}\n")
        told = (command.long or command.short).strip()
        parts.append(block(told) if "\n" in told else f"{prose(told)}\n")
        above = f"{command.parent.path} " if command.parent else ""
        parts.append(block(f"{above}{command.use}"))
        own = [*command.flags, *command.persistent, *_between(command, root)]
        flags = [flag for flag in own if flag.name != "help" and not flag.hidden]
        if flags:
            parts.append(_flags(flags))
    return "\n".join(parts)


def _between(command: Command, root: Command) -> list[Flag]:
    """Flags that groups of commands share."""
    shared: list[Flag] = []
    above = command.parent
    while above is not None and above is not root:
        shared += above.persistent
        above = above.parent
    return shared


def _runnable(command: Command) -> Iterator[Command]:
    for sub in sorted(command.commands, key=lambda sub: sub.name):
        if sub.run is not None and sub.name != "help":
            yield sub
        yield from _runnable(sub)


def _flags(flags: list[Flag]) -> str:
    rows = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        names = f"`--{flag.name}`" + (f", `-{flag.shorthand}`" if flag.shorthand else "")
        default = code(flag.shown(flag.default)) if flag.default else ""
        rows.append((names, flag.kind, default, prose(flag.usage)))
    return table(("flag", "type", "default", "what it does"), rows)
