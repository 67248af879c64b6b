"""The driver of fuzzing finds what is wrong, and says how to bring it back."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import drive
import pytest


def test_a_failure_is_told_with_the_seed_that_brings_it_back(capsys: pytest.CaptureFixture[str]) -> None:
    def planted(chance: random.Random) -> None:
        if chance.random() > 0.95:
            raise ValueError("planted")

    assert drive.run_one({"planted": lambda: planted}, "planted", 60.0, 1) == 1
    said = capsys.readouterr()
    assert "ValueError: planted" in said.err
    seed = int(said.out.split()[-2])
    assert drive.run_one({"planted": lambda: planted}, "planted", 0.0, seed) == 1
    assert drive.run_one({"planted": lambda: planted}, "planted", 0.0, seed - 1) == 0


def test_every_target_runs() -> None:
    command = [sys.executable, str(Path(drive.__file__).parent), "2", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("rounds from seed 1") == 8
