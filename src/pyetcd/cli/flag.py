"""Flags and their values, as pflag has them, and short names for the kinds that commands use."""

from __future__ import annotations

from pyetcd.cli import gotext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    FlagValue: TypeAlias = "str | bool | int | list[str]"

SECOND_NS = 1_000_000_000


class Flag:
    """One flag. `kind`: `string`, `bool`, `int`, `uint` (64 bits each), `uint32`, `duration` (nanoseconds),
    `strings` (a list with commas). `choices` are what a shell offers as values; others may be good, too."""

    __slots__ = (
        "changed",
        "choices",
        "default",
        "hidden",
        "kind",
        "name",
        "required",
        "shorthand",
        "usage",
        "value",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        default: FlagValue,
        usage: str,
        shorthand: str = "",
        hidden: bool = False,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.value = default
        self.usage = usage
        self.shorthand = shorthand
        self.hidden = hidden
        self.choices = choices
        self.required = False
        self.changed = False

    def set(self, text: str) -> None:
        """Take a value from the command line or the environment. GoValueError when it is none."""
        if self.kind == "bool":
            self.value = gotext.parse_bool(text)
        elif self.kind == "int":
            self.value = gotext.parse_int(text)
        elif self.kind == "uint":
            self.value = gotext.parse_uint(text)
        elif self.kind == "uint32":
            self.value = gotext.parse_uint32(text)
        elif self.kind == "duration":
            self.value = gotext.parse_duration_ns(text)
        elif self.kind == "strings":
            items = split_list(text)
            self.value = [*self.value, *items] if self.changed and isinstance(self.value, list) else items
        else:
            self.value = text
        self.changed = True

    def shown(self, value: FlagValue) -> str:
        """A value as pflag prints it."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, list):
            return f"[{','.join(value)}]"
        if isinstance(value, int):
            return gotext.duration(value) if self.kind == "duration" else str(value)
        return value


def split_list(text: str) -> list[str]:
    """The first line of `text` as comma-separated values with optional quotes (Go's encoding/csv)."""
    line = text.split("\n", 1)[0]
    if not line:
        return []
    items: list[str] = []
    at = 0
    while True:
        item, at = _quoted_item(line, at) if line[at : at + 1] == '"' else _plain_item(line, at)
        items.append(item)
        if at >= len(line):
            return items
        at += 1


def _plain_item(line: str, at: int) -> tuple[str, int]:
    end = line.find(",", at)
    end = len(line) if end < 0 else end
    item = line[at:end]
    if '"' in item:
        column = at + item.index('"') + 1
        raise gotext.GoValueError(f'parse error on line 1, column {column}: bare " in non-quoted-field')
    return item, end


def _quoted_item(line: str, at: int) -> tuple[str, int]:
    item = ""
    start = at + 1
    while True:
        end = line.find('"', start)
        if end < 0 or line[end + 1 : end + 2] not in ("", ",", '"'):
            column = len(line) + 1 if end < 0 else end + 1
            raise gotext.GoValueError(
                f'parse error on line 1, column {column}: extraneous or missing " in quoted-field'
            )
        item += line[start:end]
        if line[end + 1 : end + 2] != '"':
            return item, end + 1
        item += '"'
        start = end + 2


def switch(name: str, usage: str, shorthand: str = "", on: bool = False) -> Flag:
    return Flag(name, "bool", on, usage, shorthand)


def text(
    name: str, default: str, usage: str, shorthand: str = "", choices: tuple[str, ...] = ()
) -> Flag:
    return Flag(name, "string", default, usage, shorthand, choices=choices)


def needed(name: str, usage: str, kind: str = "string", shorthand: str = "") -> Flag:
    """A flag without which the command does not run."""
    flag = Flag(name, kind, "" if kind == "string" else 0, usage, shorthand)
    flag.required = True
    return flag


def number(name: str, usage: str, default: int = 0) -> Flag:
    return Flag(name, "int", default, usage)


def unsigned(name: str, default: int, usage: str) -> Flag:
    return Flag(name, "uint", default, usage)


def span(name: str, seconds: int, usage: str) -> Flag:
    return Flag(name, "duration", seconds * SECOND_NS, usage)
