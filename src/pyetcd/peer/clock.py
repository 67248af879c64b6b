"""The wall clock, as members tell it to each other. It is that of log lines: nothing is decided by it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from pyetcd import logs

_FRACTION: Final = re.compile(r"\.([0-9]{1,6})[0-9]*")


def wall_time() -> datetime:
    return datetime.fromisoformat(logs.ago(0))


def parse_time(text: str) -> datetime | None:
    """A moment as Go writes it, to the nanosecond; None when it cannot be read."""
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(lambda found: "." + found[1].ljust(6, "0"), text))
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
