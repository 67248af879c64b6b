"""The families of traffic with other members: `etcd_network_peer_…`, `…_active_peers`, snapshots both ways.

Rooms count in `peer.counters`; a series appears once there is something to count, as in Go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from pyetcd.metrics import HistogramVec, Registry, Row, exponential
from pyetcd.peer.counters import Counters

_SNAPSHOT: Final = exponential(0.1, 2, 10)
_ROUND_TRIP: Final = exponential(0.0001, 2, 16)

_Count = Callable[[Counters], int]
# name: (type, label, text, number)
_BY_PEER: Final[Mapping[str, tuple[str, str, str, _Count]]] = {
    "etcd_network_peer_sent_bytes_total": (
        "counter",
        "To",
        "Bytes sent to other members.",
        lambda of: of.sent_bytes,
    ),
    "etcd_network_peer_received_bytes_total": (
        "counter",
        "From",
        "Bytes received from other members.",
        lambda of: of.received_bytes,
    ),
    "etcd_network_peer_sent_failures_total": (
        "counter",
        "To",
        "Messages to other members that were lost.",
        lambda of: of.sent_failures,
    ),
    "etcd_network_peer_received_failures_total": (
        "counter",
        "From",
        "Messages from other members that were lost.",
        lambda of: of.received_failures,
    ),
    "etcd_network_snapshot_send_success": (
        "counter",
        "To",
        "Snapshots sent.",
        lambda of: of.snapshot_send_success,
    ),
    "etcd_network_snapshot_send_failures": (
        "counter",
        "To",
        "Snapshots that could not be sent.",
        lambda of: of.snapshot_send_failures,
    ),
    "etcd_network_snapshot_receive_success": (
        "counter",
        "From",
        "Snapshots received.",
        lambda of: of.snapshot_receive_success,
    ),
    "etcd_network_snapshot_receive_failures": (
        "counter",
        "From",
        "Snapshots that did not arrive.",
        lambda of: of.snapshot_receive_failures,
    ),
    "etcd_network_snapshot_send_inflights_total": (
        "gauge",
        "To",
        "Snapshots that are being sent.",
        lambda of: of.snapshot_send_inflights,
    ),
    "etcd_network_snapshot_receive_inflights_total": (
        "gauge",
        "From",
        "Snapshots that are being received.",
        lambda of: of.snapshot_receive_inflights,
    ),
}


class PeerMetrics:
    """Binds the numbers of one member's traffic; `counters` by member ID. `gather` is to be called now and
    then, since lists are bounded."""

    def __init__(self, registry: Registry, local_id: int, counters: Mapping[int, Counters]) -> None:
        self._local = f"{local_id:x}"
        self._counters = counters
        for name, (kind, label, text, count) in _BY_PEER.items():
            registry.rows(name, kind, text, (label,)).rows = partial(self._rows, count)
        both = ("Local", "Remote")
        registry.rows(
            "etcd_network_active_peers", "gauge", "1 for a member that is connected.", both
        ).rows = self._active
        registry.rows(
            "etcd_network_disconnected_peers_total", "counter", "Losses of connection to a member.", both
        ).rows = self._disconnected
        self._sent = registry.histograms(
            "etcd_network_snapshot_send_total_duration_seconds",
            "Time to send a snapshot.",
            _SNAPSHOT,
            ("To",),
        )
        self._received = registry.histograms(
            "etcd_network_snapshot_receive_total_duration_seconds",
            "Time to receive a snapshot.",
            _SNAPSHOT,
            ("From",),
        )
        self._round_trips = registry.histograms(
            "etcd_network_peer_round_trip_time_seconds",
            "Time of a question to a member and back.",
            _ROUND_TRIP,
            ("To",),
        )

    def gather(self) -> None:
        """Fetch what has gathered in lists."""
        for id, of in self._counters.items():
            label = f"{id:x}"
            _take(of.snapshot_send_seconds, self._sent, label)
            _take(of.snapshot_receive_seconds, self._received, label)
            _take(of.round_trip_seconds, self._round_trips, label)

    def _rows(self, count: _Count) -> Iterable[Row]:
        return [((f"{id:x}",), number) for id, of in self._counters.items() if (number := count(of))]

    def _active(self) -> Iterable[Row]:
        return [((self._local, f"{id:x}"), of.active) for id, of in self._counters.items() if of.activations]

    def _disconnected(self) -> Iterable[Row]:
        counters = self._counters.items()
        return [((self._local, f"{id:x}"), of.disconnected) for id, of in counters if of.disconnected]


def _take(seconds: list[float], into: HistogramVec, label: str) -> None:
    if seconds:
        into.cell(label).observe_many(seconds)
        seconds.clear()
