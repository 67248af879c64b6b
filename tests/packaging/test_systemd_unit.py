"""The systemd unit: systemd takes it and calls it hardened, and etcd runs without memory that may be both
written and executed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging/systemd/etcd.service"
ETCD = Path(sys.executable).parent / "etcd"
EXPOSURE_MAX = 15  # of 100, systemd's own figure; 92 is a unit without any of this
PR_SET_MDWE = 65

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    installed = tmp_path / "etcd.service"
    installed.write_text(text.replace("/opt/pyetcd/bin/etcd", str(ETCD)))
    ran = analyze("verify", "--man=no", "--recursive-errors=no", str(installed))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    installed.write_text(text.replace("Type=notify", "Type=nonsense"))
    assert "nonsense" in analyze("verify", "--man=no", "--recursive-errors=no", str(installed)).stderr


def test_systemd_calls_it_hardened() -> None:
    ran = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(UNIT))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _deny() -> None:
    """What MemoryDenyWriteExecute= asks of the kernel, where it can do it by itself."""
    ctypes.CDLL(None).prctl(PR_SET_MDWE, 1, 0, 0, 0)


def test_etcd_runs_where_memory_is_never_written_and_executed() -> None:
    if ctypes.CDLL(None).prctl(PR_SET_MDWE + 1, 0, 0, 0, 0) < 0:
        pytest.skip("the kernel cannot deny it")
    done = subprocess.run(
        [str(ETCD), "--version"],
        preexec_fn=_deny,
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
    )
    assert (done.returncode, done.stderr) == (0, "")
