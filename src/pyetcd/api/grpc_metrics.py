"""Counts of gRPC calls by method, as etcd has them from go-grpc-middleware's prometheus interceptors.

The wire counts where Go's interceptors do, at no cost to the loop; here the counts get etcd's names when
somebody scrapes. Every method etcd registers at once (KV, Watch, Lease, Cluster, Maintenance, Auth, Health)
and every one served here has a row for each code from the start, so that a rate never begins with a gap.

What differs between an interceptor and the wire is settled here: a unary message that cannot be decoded
never reaches an interceptor, and the last read of a bidirectional stream, which fails, counts as received.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.descriptor import MethodDescriptor

from pyetcd.metrics import Family, HistogramVec, Number, Registry, Table
from pyetcd.proto import election_pb2, health_pb2, lock_pb2, rpc_pb2

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
HANDLING_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CALLER_HEADER: Final = "client-api-version"

UNARY: Final = "unary"
SERVER_STREAM: Final = "server_stream"
BIDI_STREAM: Final = "bidi_stream"

_LABELS: Final = ("grpc_method", "grpc_service", "grpc_type")
_AT_ONCE: Final = ("/etcdserverpb.", "/grpc.health.")
_INTERNAL: Final = CODES.index("Internal")
_NOTHING: Final = (0, 0, 0, 0, [0] * len(CODES), [0] * (len(HANDLING_BOUNDS) + 1), 0.0)

Counts = tuple[int, int, int, int, Sequence[int], Sequence[int], float]
"""One method's row of `Server.call_counts`."""


def kinds() -> dict[str, str]:
    """What every method of etcd is: full path to unary, server_stream or bidi_stream."""
    files = (rpc_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, lock_pb2.DESCRIPTOR, election_pb2.DESCRIPTOR)
    services = [service for file in files for service in file.services_by_name.values()]
    return {
        f"/{service.full_name}/{method.name}": _kind(method)
        for service in services
        for method in service.methods
    }


def _kind(method: MethodDescriptor) -> str:
    if method.client_streaming:
        return BIDI_STREAM
    return SERVER_STREAM if method.server_streaming else UNARY


class GrpcMetrics:
    """The families of calls.

    `served`: the methods of the wire in its order; `counts`: its `call_counts`; `callers`: its
    `caller_counts`; `malformed`: the dispatcher's unary requests that are no message, by method. With
    `extensive` the wire has to count durations by `HANDLING_BOUNDS`.
    """

    def __init__(
        self,
        registry: Registry,
        served: Sequence[str],
        counts: Callable[[], Sequence[Counts]],
        callers: Callable[[], Sequence[tuple[str, int, int]]],
        malformed: Sequence[int],
        *,
        extensive: bool = False,
    ) -> None:
        self._malformed = malformed
        known = kinds()
        at_once = (path for path in known if path.startswith(_AT_ONCE))
        paths = list(dict.fromkeys([*at_once, *served]))
        self._kinds = [known[path] for path in paths]
        self._at_once = [path.startswith(_AT_ONCE) for path in paths]
        self._keys = [_labels_of(path, known[path]) for path in paths]
        place = {path: at for at, path in enumerate(served)}
        self._places = [place.get(path, -1) for path in paths]
        self._counts = counts
        self._callers = callers
        self._add(registry, "grpc_server_started_total", "Calls begun.", self._started)
        self._add(registry, "grpc_server_msg_received_total", "Messages received.", self._received)
        self._add(registry, "grpc_server_msg_sent_total", "Messages sent.", self._sent)
        codes = [(code, *key) for key in self._keys for code in CODES]
        labels = ("grpc_code", *_LABELS)
        registry.add(
            Table(
                "grpc_server_handled_total",
                "counter",
                "Calls ended, by code.",
                labels,
                codes,
                lambda: self._shown(self._ended()),
            )
        )
        registry.rows(
            "etcd_server_client_requests_total",
            "counter",
            "Requests by type and by version of the client's API.",
            ("client_api_version", "type"),
        ).rows = self._by_caller
        if extensive:
            self._handling = registry.histograms(
                "grpc_server_handling_seconds", "Time from begin to end of a call.", HANDLING_BOUNDS, _LABELS
            )
            registry.on_scrape(lambda: self._fill(self._handling))

    def _add(self, registry: Registry, name: str, text: str, read: Callable[[], Sequence[Number]]) -> None:
        family: Family = Table(name, "counter", text, _LABELS, self._keys, lambda: self._shown(read()))
        registry.add(family)

    def _rows(self) -> list[tuple[str, int, Counts]]:
        """Kind, malformed messages and counts of each method, in the order of the keys."""
        counts = self._counts()
        return [
            (kind, self._malformed[place], counts[place]) if place >= 0 else (kind, 0, _NOTHING)
            for kind, place in zip(self._kinds, self._places, strict=True)
        ]

    def _shown(self, numbers: Sequence[Number]) -> list[Number | None]:
        """With None for what etcd would not show yet. Each method has as many numbers as any other."""
        each = len(numbers) // len(self._at_once)
        return [number if number or self._at_once[at // each] else None for at, number in enumerate(numbers)]

    def _started(self) -> list[Number]:
        return [row[0] - malformed for _, malformed, row in self._rows()]

    def _received(self) -> list[Number]:
        return [_received_of(*row) for row in self._rows()]

    def _sent(self) -> list[Number]:
        """A unary call's interceptor counts an answer also where it is an error."""
        return [sum(row[4]) - malformed if kind == UNARY else row[2] for kind, malformed, row in self._rows()]

    def _ended(self) -> list[Number]:
        ended: list[Number] = []
        for _, malformed, row in self._rows():
            codes = list(row[4])
            codes[_INTERNAL] -= malformed
            ended += codes
        return ended

    def _by_caller(self) -> list[tuple[tuple[str, str], int]]:
        unary = [((version, "unary"), count) for version, count, _ in self._callers() if count]
        streams = [((version, "stream"), count) for version, _, count in self._callers() if count]
        return unary + streams

    def _fill(self, family: HistogramVec) -> None:
        for key, at_once, (_, _, row) in zip(self._keys, self._at_once, self._rows(), strict=True):
            if not at_once and not any(row[5]):
                continue
            cell = family.cell(*key)
            cell.counts = list(row[5])
            cell.total = row[6]


def _received_of(kind: str, malformed: int, row: Counts) -> int:
    started, received, _, read_to_end, *_ = row
    if kind == SERVER_STREAM:
        return started  # its one request, come or not
    if kind == BIDI_STREAM:
        return received + read_to_end
    return received - malformed


def _labels_of(path: str, kind: str) -> tuple[str, str, str]:
    service, _, method = path.strip("/").rpartition("/")
    return method, service, kind
