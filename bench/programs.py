"""The Go programs of a run: real etcd from its own packages, and the load that drives both servers.

They are built on demand from `bench/go`, whose go.mod pins etcd 3.7.1; what is missing comes from the module
proxy.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
GO_MODULE = REPOSITORY / "bench" / "go"
BUILT = REPOSITORY / "build" / "bench"


class NotBuilt(Exception):
    """The programs cannot be built; the message says in a sentence what to do."""


@dataclass(frozen=True, slots=True)
class Programs:
    """`goetcd` runs a member alone, `etcd` is the executable with all its flags, for clusters."""

    goetcd: Path
    etcd: Path
    load: Path
    go_version: str


def build() -> Programs:
    """Build all programs, at once when nothing has changed. Raises NotBuilt."""
    if shutil.which("go") is None:
        raise NotBuilt(
            "The benchmark needs Go 1.26 or later to build real etcd and the load that drives both servers: "
            "please install it from https://go.dev/dl/ and put `go` on the PATH."
        )
    version = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    BUILT.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(
        ["go", "build", "-o", f"{BUILT}/", "./cmd/..."], cwd=GO_MODULE, capture_output=True, text=True
    )
    if built.returncode != 0:
        last = built.stderr.strip().splitlines()[-1:] or ["no message"]
        raise NotBuilt(f"{version} could not build the programs in bench/go: {last[0]}")
    return Programs(BUILT / "goetcd", BUILT / "etcd", BUILT / "load", version)
