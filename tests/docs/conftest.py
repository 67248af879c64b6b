"""The servers are those of tests/interop, Go's executables those of tests/clusters."""

from __future__ import annotations

import sys
from pathlib import Path

for room in ("interop", "clusters"):
    sys.path.append(str(Path(__file__).parents[1] / room))
