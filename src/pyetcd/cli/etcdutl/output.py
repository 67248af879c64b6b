"""What `snapshot status` and `hashkv` found, in the format asked for."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from pyetcd.cli.command import Invocation
from pyetcd.cli.exits import BAD_FEATURE, Exit
from pyetcd.cli.table import table

FORMATS = ("fields", "json", "protobuf", "simple", "table")


@dataclass(frozen=True, slots=True)
class Column:
    """One value under its names: in tables and in the formats `fields` and `json`; `shown` is for people."""

    title: str
    field: str
    key: str
    value: int | str
    shown: str


def chosen_format(call: Invocation) -> str:
    """The value of `--write-out`. Exit when there is no such format."""
    name = call.text("write-out")
    if name not in FORMATS:
        raise Exit(BAD_FEATURE, "unsupported output format")
    return name


def show(columns: list[Column], name: str) -> None:
    """Print one row. Exit when the format cannot show it."""
    if name == "protobuf":
        raise Exit(BAD_FEATURE, "protobuf not supported as output format")
    if name == "json":
        found = {column.key: column.value for column in columns}
        text = json.dumps(found, separators=(",", ":")) + "\n"
    elif name == "fields":
        text = "".join(f'"{column.field}" : {column.value}\n' for column in columns)
    elif name == "table":
        text = table([column.title for column in columns], [[column.shown for column in columns]])
    else:
        text = ", ".join(column.shown for column in columns) + "\n"
    sys.stdout.write(text)
