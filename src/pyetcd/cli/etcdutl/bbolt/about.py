"""`version`."""

from __future__ import annotations

import sys

from pyetcd.cli.command import Invocation
from pyetcd.cli.etcd.help import in_place_of_go

FOLLOWED = "1.5.0"  # of bbolt, whose file format and tool these are


def version(call: Invocation) -> None:
    sys.stdout.write(f"bbolt Version: {FOLLOWED} (pyetcd)\n{in_place_of_go()}")
