"""Counts of gRPC calls by method, as go-grpc-prometheus names and initialises them.

The dispatcher counts into plain lists indexed by the number of a method (0.05 us a count); label texts are
put together only when somebody scrapes. Every method and code has a row from the start, as in etcd, so that a
rate never begins with a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pyetcd.metrics import Histogram, HistogramVec, Registry, Row

CODES: Final = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
_HANDLING_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LABELS: Final = ("grpc_method", "grpc_service", "grpc_type")
# Server streams that are not client streams too.
_SERVER_STREAMS: Final = frozenset(("Snapshot", "RangeStream", "Observe"))


class GrpcMetrics:
    """`started[m]`, `received[m]` and `sent[m]` are added to directly; a call's end goes through `handled`.

    `methods`: full paths with whether either side streams, in the wire's order. With `extensive`,
    `handling(m)` is the histogram of a method's times.
    """

    def __init__(
        self, registry: Registry, methods: Sequence[tuple[str, bool]], *, extensive: bool = False
    ) -> None:
        self._names = [_labels_of(path, streams) for path, streams in methods]
        self.started = [0] * len(methods)
        self.received = [0] * len(methods)
        self.sent = [0] * len(methods)
        self._ended = [[0] * len(CODES) for _ in methods]
        add = registry.rows
        add("grpc_server_started_total", "counter", "Calls begun.", _LABELS).rows = lambda: self._rows(
            self.started
        )
        add("grpc_server_msg_received_total", "counter", "Messages received.", _LABELS).rows = lambda: (
            self._rows(self.received)
        )
        add("grpc_server_msg_sent_total", "counter", "Messages sent.", _LABELS).rows = lambda: self._rows(
            self.sent
        )
        add(
            "grpc_server_handled_total", "counter", "Calls ended, by code.", ("grpc_code", *_LABELS)
        ).rows = self._ended_rows
        self._handling: list[Histogram] = []
        if extensive:
            family: HistogramVec = registry.histograms(
                "grpc_server_handling_seconds", "Time from begin to end of a call.", _HANDLING_BOUNDS, _LABELS
            )
            self._handling = [family.cell(*names) for names in self._names]

    @property
    def extensive(self) -> bool:
        return bool(self._handling)

    def handled(self, method: int, code: int, count: int = 1) -> None:
        """Calls of a method have ended with a gRPC code."""
        self._ended[method][code if 0 <= code < len(CODES) else 2] += count

    def handling(self, method: int) -> Histogram:
        """Times of a method's calls. Only with `extensive`."""
        return self._handling[method]

    def _rows(self, counts: Sequence[int]) -> Iterable[Row]:
        return zip(self._names, counts, strict=True)

    def _ended_rows(self) -> Iterable[Row]:
        for names, counts in zip(self._names, self._ended, strict=True):
            for code, count in zip(CODES, counts, strict=True):
                yield (code, *names), count


def _labels_of(path: str, streams: bool) -> tuple[str, str, str]:
    service, _, method = path.strip("/").rpartition("/")
    if not streams:
        kind = "unary"
    elif method in _SERVER_STREAMS or service == "grpc.health.v1.Health":
        kind = "server_stream"
    else:
        kind = "bidi_stream"
    return method, service, kind
