"""What is counted of the traffic with each other member, in plain attributes; metrics are made of them
elsewhere.

Lists hold observations since somebody took them away, and never more than `OBSERVATIONS_MAX`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

OBSERVATIONS_MAX: Final = 4096


def observe(into: list[float], seconds: float) -> None:
    if len(into) < OBSERVATIONS_MAX:
        into.append(seconds)


@dataclass(slots=True)
class Counters:
    """Of one member. Bytes are those of messages and databases as they went over the wire."""

    sent_bytes: int = 0
    received_bytes: int = 0
    sent_failures: int = 0
    received_failures: int = 0
    active: int = 0  # 1 while the peer is active
    activations: int = 0
    disconnected: int = 0
    snapshot_send_inflights: int = 0
    snapshot_send_success: int = 0
    snapshot_send_failures: int = 0
    snapshot_send_seconds: list[float] = field(default_factory=list)
    snapshot_receive_inflights: int = 0
    snapshot_receive_success: int = 0
    snapshot_receive_failures: int = 0
    snapshot_receive_seconds: list[float] = field(default_factory=list)
    round_trip_seconds: list[float] = field(default_factory=list)
