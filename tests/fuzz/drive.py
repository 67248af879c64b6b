"""Runs the targets of fuzzing.

Each target has its share of the time in a process of its own; one that ends badly or says that something
panicked fails the run. What it prints names the target and the seed that bring the failure back.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
Target = Callable[[random.Random], None]
Targets = Mapping[str, Callable[[], Target]]
PANIC = "panicked at"
HANGS_SECONDS = 60.0  # beyond its share


def run_one(targets: Targets, name: str, seconds: float, seed: int) -> int:
    """In the target's own process. Every round has a seed of its own, so that one brings a failure back."""
    target = targets[name]()
    deadline = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < deadline or not rounds:
        try:
            target(random.Random(seed + rounds))
        except BaseException:
            traceback.print_exc()
            print(f"{name}: python tests/fuzz 0 {seed + rounds} {name}", flush=True)
            return 1
        rounds += 1
    print(f"{name}: {rounds} rounds from seed {seed}", flush=True)
    return 0


def run_all(seconds: float, seed: int, names: list[str]) -> int:
    share = seconds / len(names)
    failed = []
    for name in names:
        command = [sys.executable, str(HERE), "--one", name, str(share), str(seed)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=share + HANGS_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{name}: hangs, from seed {seed}", flush=True)
            failed.append(name)
            continue
        print(ended.stdout, end="", flush=True)
        if ended.returncode or PANIC in ended.stderr:
            print(ended.stderr[-4000:], f"{name}: exit code {ended.returncode}, from seed {seed}", flush=True)
            failed.append(name)
    return 1 if failed else 0


def main(targets: Targets, arguments: list[str]) -> int:
    if arguments[:1] == ["--one"]:
        return run_one(targets, arguments[1], float(arguments[2]), int(arguments[3]))
    seconds = float(arguments[0]) if arguments else 600.0
    seed = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(1 << 32)
    return run_all(seconds, seed, arguments[2:] or list(targets))
