"""Where tests of members find what stands in for their peers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "peer"))  # `fake_peers` lives there
