"""Beside the real etcdutl 3.7.1: the same commands take the same flags, of the same kinds and defaults.

Descriptions are our own words; everything else that `--help` prints is compared, command by command. What we
have and 3.7 has not stands in `help_shape`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from help_shape import shape
from utl_runner import Utl

COMMANDS = (
    "", "completion", "defrag", "hashkv", "help", "migrate", "snapshot", "snapshot restore",
    "snapshot status", "version",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_the_same_shape(utl: Utl, go_etcdutl: Path, command: str) -> None:
    theirs = subprocess.run(
        [str(go_etcdutl), *command.split(), "--help"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = utl(*command.split(), "--help")
    assert (ours.code, ours.err) == (theirs.returncode, theirs.stderr)
    assert shape(ours.out) == shape(theirs.stdout)
    assert len(shape(ours.out)) > 5


def test_a_flag_that_differs_would_show() -> None:
    line = "      --rev int   how far (default 7)"
    assert shape(line) != shape(line.replace("7", "8")) != shape(line.replace("int", "uint"))
    assert shape(line) == shape(line.replace("how far", "up to where"))
