"""What `etcd --help`, `etcd --version` and a mistake on the command line print."""

from __future__ import annotations

import platform

from pyetcd.cli.etcd.flag_table import FLAGS, SECTIONS, UNSAFE
from pyetcd.member.features import FEATURES
from pyetcd.version import SERVER_VERSION

USAGE = """Usage:

  etcd [flags]
    Run a member.

  etcd --version
    Print the version.

  etcd -h | --help
    Print all flags.

  etcd --config-file
    Take the configuration from a YAML or JSON file. Flags and environment variables are then left aside, and
    durations are whole numbers of nanoseconds (600000000000 for 10m).

  etcd gateway
    Forward TCP connections to members.

  etcd grpc-proxy
    Stand between clients and members, speaking gRPC.
"""


def flags_text() -> str:
    """All flags by section, each with its default."""
    lines: list[str] = []
    for section in SECTIONS:
        lines += ["", f"{section}:"]
        for flag in FLAGS:
            if flag.section != section:
                continue
            lines.append(f"  --{flag.name}" if flag.shown is None else f"  --{flag.name} '{flag.shown}'")
            lines.append(f"    {flag.help}")
            if flag.name == "feature-gates":
                lines += [f"    {line}" for line in feature_lines()]
        if section == UNSAFE:
            lines += [
                "",
                "An unsafe flag may break what consensus promises. Use it to save data, not to run.",
            ]
    return "\n".join(lines) + "\n"


def feature_lines() -> list[str]:
    """The feature gates with stage and default."""
    return [
        f"{name}=true|false ({feature.stage} - default={str(feature.default).lower()})"
        for name, feature in sorted(FEATURES.items())
    ]


def version_text(build: str) -> str:
    """The first line is etcd's, for the scripts that read it; `build` names this program and its version."""
    return f"etcd Version: {SERVER_VERSION}\nGit SHA: {build}\n{in_place_of_go()}"


def in_place_of_go() -> str:
    """What the lines that name Go and its platform say."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return (
        f"Go Version: none ({platform.python_implementation()} {platform.python_version()})\n"
        f"Go OS/Arch: {platform.system().lower()}/{machine}\n"
    )
