"""`etcd`'s flags from the table that its parser uses, and the metrics of a member from its own registry."""

from __future__ import annotations

from pyetcd.cli.etcd.config_file import nested_keys
from pyetcd.cli.etcd.flag_table import FLAGS, SECTIONS, UNSAFE, Flag, Kind
from pyetcd.cli.etcd.no_effect import FLAGS as WITHOUT_EFFECT
from pyetcd.member.features import FEATURES
from pyetcd.member.metrics import MemberMetrics
from pyetcd.metrics import Registry
from reference.markdown import code, prose, table

HEAD = """# etcd: flags, variables, configuration file

*Made from the table that the parser itself uses (`src/pyetcd/cli/etcd/flag_table.py`).*

A setting comes from the command line, or from the environment variable beside it, or from the file that
`--config-file` (or `ETCD_CONFIG_FILE`) names: YAML or JSON.

- With a file, flags and variables count for nothing, but for those that only print (`--version`, `--help`).
- A variable and a flag for the same thing are refused, as etcd refuses them.
- Durations are Go's on the command line (`1h30m`, `500ms`), and whole numbers of nanoseconds in the file.
- Lists of URLs are one text with commas in it, in the file too; what is a *list* below is a YAML list there.
- A bare boolean flag means `true`. The last of several wins; `--feature-gates` adds up.

[Compatibility](../compatibility.md#flags) says of each flag whether it acts as in etcd.
"""

METRICS_HEAD = """# Metrics of a member

*Made from the tables that a member registers its metrics by (`src/pyetcd/member/metrics.py`).*

Names, types and labels are etcd's; names that begin with `pyetcd_` are ours.
[Compatibility](../compatibility.md#metrics) lists the state of each, and those of gRPC calls, peers and the
process beside these;
[Monitoring](../operations/monitoring.md) says which to alarm on.

"""

KINDS = {
    Kind.STRING: "text",
    Kind.BOOL: "boolean",
    Kind.INT: "number",
    Kind.UINT: "number",
    Kind.UINT32: "number",
    Kind.MILLISECONDS: "milliseconds",
    Kind.DURATION: "duration",
    Kind.URLS: "URLs",
    Kind.ORIGINS: "URLs",
    Kind.STRINGS: "list",
    Kind.UNIQUE: "list",
    Kind.FEATURES: "gates",
    Kind.CHOICE: "choice",
    Kind.CHOICES: "choices",
}
OFF_FILE = ("config-file", "version")
TOLD = {  # etcd's help does not list these with the others
    "config-file": "The file with the settings, in YAML or JSON. Flags and variables are left aside then.",
    "version": "Print the versions and end.",
}


def flags() -> str:
    nested = nested_keys()
    first = [flag for flag in FLAGS if not flag.section and flag.kind is not Kind.IGNORED]
    parts = [HEAD, "## What to do\n", *(_flag(flag, nested) for flag in first)]
    for section in SECTIONS:
        shown = [flag for flag in FLAGS if flag.section == section]
        parts.append(f"## {section}\n")
        if section == UNSAFE:
            parts.append("These may break what consensus promises: for saving data, not for running.\n")
        parts += [_flag(flag, nested) for flag in shown]
        if section == "Features":
            parts.append(_gates())
    ignored = [f"`--{flag.name}`" for flag in FLAGS if flag.kind is Kind.IGNORED]
    if ignored:
        told = "Taken, and without effect since long before 3.7: "
        parts.append(f"## Once there\n\n{told}{', '.join(ignored)}.\n")
    return "\n".join(parts)


def _flag(flag: Flag, nested: dict[str, str]) -> str:
    key = flag.name if flag.in_file and flag.name not in OFF_FILE else nested.get(flag.field, "")
    default = {None: "`false`", "": "none"}.get(flag.shown, code(flag.shown or ""))
    rows = [
        f"**type** {KINDS[flag.kind]}",
        f"**default** {default}",
        f"**variable** {code(flag.variable) if flag.name != 'version' else 'no'}",
        f"**in the file** {code(key) or 'no'}",
    ]
    choices = f" One of {', '.join(code(choice) for choice in flag.choices)}." if flag.choices else ""
    idle = WITHOUT_EFFECT.get(flag.name)
    told = f" *Without effect in pyetcd: {prose(idle)}.*" if idle else ""
    text = prose(TOLD.get(flag.name, flag.help))
    return f"### --{flag.name}\n\n{text}{choices}{told}\n\n{' · '.join(rows)}\n"


def _gates() -> str:
    rows = [
        (code(name), feature.stage, "on" if feature.default else "off")
        for name, feature in sorted(FEATURES.items())
    ]
    return "The gates:\n\n" + table(("gate", "stage", "default"), rows)


def metrics() -> str:
    registry = Registry()
    MemberMetrics(registry)
    told: dict[str, str] = {}
    rows = []
    for line in registry.expose().decode().splitlines():
        words = line.split(" ", 3)
        if words[1] == "HELP":
            told[words[2]] = words[3]
        elif words[1] == "TYPE":
            rows.append((code(words[2]), words[3], prose(told[words[2]])))
    return METRICS_HEAD + table(("name", "type", "what it tells"), sorted(rows))
