"""The executables that clusters are made of: ours, and real etcd 3.7.1 and 3.6, built from their Go
modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

OURS, GO, GO36 = "ours", "go", "go 3.6"
REPOSITORY = Path(__file__).parents[2]
# Where the module lies, its package, and what is built of it
GO_PROGRAMS = {
    GO: (REPOSITORY / "bench" / "go", "./cmd/etcd", "etcd"),
    GO36: (REPOSITORY / "tests" / "clusters" / "go36", ".", "etcd36"),
}
OUR_ETCD = Path(os.environ.get("CLUSTERS_ETCD", Path(sys.executable).parent / "etcd"))
BUILT = REPOSITORY / "build" / "clusters"


def executable(kind: str) -> Path:
    """Of one kind of member. Skips the test when it is real etcd and that cannot be had."""
    return OUR_ETCD if kind == OURS else go_etcd(kind)


@cache
def go_etcd(kind: str) -> Path:
    """Real etcd with all its flags; built once, at once when nothing has changed since the last session."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    module, package, name = GO_PROGRAMS[kind]
    modules = _go(module, "list", "-deps", package)
    if modules.returncode:
        pytest.skip(f"its Go modules cannot be had: {modules.stderr[-400:]}")
    BUILT.mkdir(parents=True, exist_ok=True)
    own = BUILT / f"{name}.{os.getpid()}"  # another session may be running the one there is
    built = _go(module, "build", "-o", str(own), package)
    assert not built.returncode, built.stderr
    own.replace(BUILT / name)
    return BUILT / name


def _go(module: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["go", *arguments], cwd=module, capture_output=True, text=True)
