"""Commands, flags, short names, kinds, defaults, groups and their order are those of real etcdctl 3.7.1.

Only what is said about them is in our own words, and ours has some more (`BEYOND`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from both import Both

from pyetcd.cli.command import Command
from pyetcd.cli.etcdctl.tree import help_of, root
from pyetcd.cli.usage import flags_text

FLAG = re.compile(
    r"^( {2}-\w, | {6})(--\S+)( (?:string|int|uint|duration|strings))? {3,}.*?( \(default .*\))?$"
)
NAMED = re.compile(r"^  (\S+) +\S")
HEADLINE = re.compile(r"^(Usage|Flags|Global Flags|Available Commands):|^\S.*commands$")

BEYOND = frozenset({"top", "--history", "--decode"})  # what etcdctl has not, as a help names it


def commands(command: Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    yield path, command
    for sub in command.commands:
        yield from commands(sub, (*path, sub.name))


def shape(text: str) -> list[str]:
    """What is in a help, in order, without what it says about it. Descriptions and examples come first."""
    shown: list[str] = []
    lines = text[text.index("Usage:\n") :].splitlines()
    usage = False
    for line in lines:
        flag, named = FLAG.match(line), NAMED.match(line)
        if flag:
            head, name, kind, default = flag.groups()
            shown.append(f"{head}{name}{kind or ''}{default or ''}")
        elif HEADLINE.search(line):
            usage = line == "Usage:"
            if line != "Examples:":
                shown.append(line)
        elif usage and line.strip():
            shown.append(line)
        elif named and not line.startswith(("  etcdctl ", "  #")):
            shown.append(named.group(1))
        elif line.startswith("Use "):
            shown.append(line)
    return shown


def ours(text: str) -> list[str]:
    return [line for line in shape(text) if not BEYOND & set(line.split())]


ALL = [path for path, _ in commands(root()) if not BEYOND & set(path)]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_commands_help_names_the_same(both: Both, path: tuple[str, ...]) -> None:
    command = next(each for at, each in commands(root()) if at == path)
    real = both.real(*path, "--help")
    assert real.code == 0
    text = real.text
    if "\nExamples:\n" in text:  # ours are in the description, where there are any
        before, _, behind = text.partition("\nExamples:\n")
        text = before + behind[behind.index("\n\n") + 1 :]
    assert ours(help_of(command)) == shape(text)


def test_the_same_commands_can_be_shortened_to_the_same_prefixes(both: Both) -> None:
    names = [command.name for command in root().commands if command.name not in BEYOND]
    listed = both.real("nothing-like-it").err.decode()
    assert listed == both.ours("nothing-like-it").err.decode()
    for prefix in sorted({name[:length] for name in names for length in (1, 2, 3)}):
        real, own = both.real(prefix, "--help"), both.ours(prefix, "--help")
        assert (own.code, own.err) == (real.code, real.err), prefix


def test_the_global_flags_are_the_same(both: Both) -> None:
    listed = "Usage:\n" + both.real("options").text
    listed = listed.replace("The following options can be passed to any command:\n\n", "")
    assert ours("Usage:\n" + flags_text(root().persistent)) == shape(listed)
