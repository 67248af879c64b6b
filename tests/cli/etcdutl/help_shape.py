"""What of a help text has to be equal: everything but the descriptions, which are our own words."""

from __future__ import annotations

import re

OURS = {"bbolt", "check"}  # commands that etcdutl 3.7.1 has not
_FLAG = re.compile(r"^  (?:-(?P<letter>\w), |    )--(?P<name>[\w-]+)(?: (?P<kind>\w+))?   +(?P<text>.*)$")
_DEFAULT = re.compile(r" \(default ([^()]*)\)$")
_SUBCOMMAND = re.compile(r"^  (?P<name>\w+) +\S")


def shape(text: str) -> list[str]:
    """Help without its descriptions: flags as letter, name, kind and default."""
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            section = line
        flag, subcommand = _FLAG.match(line), _SUBCOMMAND.match(line)
        if flag is not None:
            default = _DEFAULT.search(flag["text"])
            stated = default[1] if default is not None and not default[1].startswith(":") else ""
            lines.append(f"-{flag['letter']} --{flag['name']} {flag['kind']} {stated}")
        elif section == "Available Commands:" and subcommand is not None:
            if subcommand["name"] not in OURS:
                lines.append(subcommand["name"])
        else:
            lines.append(line)
    return lines
