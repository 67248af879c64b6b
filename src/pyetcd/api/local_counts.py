"""Counts of local calls, in the rows in which the wire counts its own, and the two added up.

Real etcd's gateway is a gRPC client of its own server, so a request that comes as JSON is in etcd's gRPC
metrics too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from pyetcd.api.grpc_metrics import CALLER_HEADER, CODES, HANDLING_BOUNDS, Counts

UNKNOWN_CALLER: Final = "unknown"
CALLERS_MAX: Final = 64  # versions told apart; they come from headers

Callers = Sequence[tuple[str, int, int]]


class _Row:
    """One method."""

    def __init__(self) -> None:
        self.started = self.received = self.sent = self.read_to_end = 0
        self.ended = [0] * len(CODES)
        self.durations = [0] * (len(HANDLING_BOUNDS) + 1)
        self.seconds = 0.0


class LocalCounts:
    """Everything local calls have come to; `methods` is how many there are at the wire."""

    def __init__(self, methods: int) -> None:
        self._rows = [_Row() for _ in range(methods)]
        self._callers: dict[str, list[int]] = {}
        self.received_bytes = 0
        self.sent_bytes = 0

    def began(self, method: int, headers: Sequence[tuple[str, str]], *, is_stream: bool) -> None:
        self._rows[method].started += 1
        version = next((value for name, value in headers if name == CALLER_HEADER), UNKNOWN_CALLER)
        if version not in self._callers and len(self._callers) >= CALLERS_MAX:
            version = UNKNOWN_CALLER
        self._callers.setdefault(version, [0, 0])[is_stream] += 1

    def received(self, method: int, size: int) -> None:
        self._rows[method].received += 1
        self.received_bytes += size

    def read_to_end(self, method: int) -> None:
        self._rows[method].read_to_end += 1

    def sent(self, method: int, size: int) -> None:
        self._rows[method].sent += 1
        self.sent_bytes += size

    def ended(self, method: int, code: int, seconds: float) -> None:
        row = self._rows[method]
        row.ended[code] += 1
        row.durations[bisect_left(HANDLING_BOUNDS, seconds)] += 1
        row.seconds += seconds

    # Added to what the wire has counted

    def with_rows(self, wire: Sequence[Counts]) -> list[Counts]:
        """`wire`: its `call_counts`."""
        return [
            (
                theirs[0] + row.started,
                theirs[1] + row.received,
                theirs[2] + row.sent,
                theirs[3] + row.read_to_end,
                _sums(theirs[4], row.ended),
                _sums(theirs[5], row.durations),
                theirs[6] + row.seconds,
            )
            for theirs, row in zip(wire, self._rows, strict=True)
        ]

    def with_callers(self, wire: Callers) -> Callers:
        """`wire`: its `caller_counts`."""
        sums = {version: [unary, streams] for version, unary, streams in wire}
        for version, (unary, streams) in self._callers.items():
            known = sums.setdefault(version, [0, 0])
            known[0] += unary
            known[1] += streams
        return [(version, unary, streams) for version, (unary, streams) in sums.items()]

    def with_bytes(self, wire: tuple[int, int]) -> tuple[int, int]:
        """`wire`: its `message_bytes`."""
        return wire[0] + self.received_bytes, wire[1] + self.sent_bytes


def _sums(theirs: Sequence[int], ours: Sequence[int]) -> list[int]:
    """Only as many as the wire counts: without bounds it has no durations."""
    return [one + other for one, other in zip(theirs, ours, strict=False)]
