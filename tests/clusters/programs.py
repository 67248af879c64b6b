"""The executables that clusters are made of: ours, and real etcd 3.7.1 built from its Go modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

OURS, GO = "ours", "go"
REPOSITORY = Path(__file__).parents[2]
GO_MODULE = REPOSITORY / "bench" / "go"
OUR_ETCD = Path(os.environ.get("CLUSTERS_ETCD", Path(sys.executable).parent / "etcd"))
GO_ETCD = REPOSITORY / "build" / "clusters" / "etcd"


def executable(kind: str) -> Path:
    """Of one kind of member. Skips the test when it is real etcd and that cannot be had."""
    return OUR_ETCD if kind == OURS else go_etcd()


@cache
def go_etcd() -> Path:
    """Real etcd with all its flags; built once, at once when nothing has changed since the last session."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    modules = _go("list", "-deps", "./cmd/etcd")
    if modules.returncode:
        pytest.skip(f"its Go modules cannot be had: {modules.stderr[-400:]}")
    GO_ETCD.parent.mkdir(parents=True, exist_ok=True)
    own = GO_ETCD.with_name(f"etcd.{os.getpid()}")  # another session may be running the one there is
    built = _go("build", "-o", str(own), "./cmd/etcd")
    assert not built.returncode, built.stderr
    own.replace(GO_ETCD)
    return GO_ETCD


def _go(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["go", *arguments], cwd=GO_MODULE, capture_output=True, text=True)
