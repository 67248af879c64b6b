"""Transcripts: blocks of a command, its input, `----`, and the exact output, as etcd-raft keeps its tests.

A command line is a name with arguments, `key`, `key=value` or `key=(value, value)`. The output ends at a
blank line, or, where it has blank lines itself, stands between doubled `----`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ARGUMENT = re.compile(r"([^\s=()]+)(=(?:\(([^)]*)\)|(\S*)))?")


@dataclass(frozen=True)
class Argument:
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    line: int
    command: str
    arguments: tuple[Argument, ...]
    input: str
    expected: str

    def flag(self, key: str, default: str = "") -> str:
        """The only value of `key`."""
        for argument in self.arguments:
            if argument.key == key:
                (value,) = argument.values
                return value
        return default


def folder() -> Path:
    """Where the transcripts are."""
    default = Path(__file__).parents[3] / "shared" / "raft-vectors"
    return Path(os.environ.get("RAFT_VECTORS") or default)


def _argument(match: re.Match[str]) -> Argument:
    key, given, several, one = match.groups()
    if given is None:
        return Argument(key, ())
    if several is None:
        return Argument(key, (one,))
    return Argument(key, tuple(value.strip() for value in several.split(",")) if several.strip() else ())


def blocks(path: Path) -> Iterator[Block]:
    lines = path.read_text(encoding="utf-8").split("\n")
    at = 0
    while at < len(lines):
        head = lines[at].strip()
        at += 1
        if not head or head.startswith("#"):
            continue
        start = at
        while head.endswith("\\"):
            head = head[:-1] + " " + lines[at].strip()
            at += 1
        name, _, rest = head.partition(" ")
        arguments = tuple(_argument(match) for match in _ARGUMENT.finditer(rest))
        input: list[str] = []
        while lines[at] != "----":
            input.append(lines[at])
            at += 1
        at += 1
        expected: list[str] = []
        if lines[at : at + 1] == ["----"]:
            at += 1
            while lines[at : at + 2] != ["----", "----"]:
                expected.append(lines[at])
                at += 1
            at += 2
        else:
            while at < len(lines) and lines[at].strip():
                expected.append(lines[at])
                at += 1
        yield Block(
            start, name, arguments, "\n".join(input).strip(), "".join(f"{line}\n" for line in expected)
        )


def replay(path: Path, run: Callable[[Block], str]) -> None:
    """Run every block in order; AssertionError at the first whose output is not exactly as expected."""
    count = 0
    for block in blocks(path):
        actual = run(block)
        if actual and not actual.endswith("\n"):
            actual += "\n"
        assert actual == block.expected, f"{path}:{block.line}: {block.command}"
        count += 1
    assert count, f"{path} has no blocks"
