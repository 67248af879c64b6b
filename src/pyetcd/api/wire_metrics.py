"""What clients are sent, tied to etcd's names: bytes of gRPC messages and the numbers of the watch hub."""

from __future__ import annotations

from collections.abc import Callable

from pyetcd.member.metrics import MemberMetrics
from pyetcd.mvcc.watch_hub import WatchHub

_LOOP = "etcd_debugging_server_watch_send_loop_{}_duration_{}seconds"


def bind_wire(metrics: MemberMetrics, message_bytes: Callable[[], tuple[int, int]], hub: WatchHub) -> None:
    """`message_bytes`: received and sent, the wire's."""
    metrics.bind(
        {
            "etcd_network_client_grpc_received_bytes_total": lambda: message_bytes()[0],
            "etcd_network_client_grpc_sent_bytes_total": lambda: message_bytes()[1],
            "etcd_debugging_mvcc_events_total": lambda: hub.events_sent,
            "etcd_debugging_mvcc_pending_events_total": lambda: hub.pending_events,
            "etcd_debugging_mvcc_slow_watcher_total": lambda: hub.slow_watchers,
            "etcd_debugging_mvcc_watch_stream_total": lambda: hub.streams,
            "etcd_debugging_mvcc_watcher_total": lambda: hub.watchers,
        }
    )
    messages = metrics.histogram(_LOOP.format("watch_stream", ""))
    events = metrics.histogram(_LOOP.format("watch_stream", "per_event_"))
    controls = metrics.histogram(_LOOP.format("control_stream", ""))
    progress = metrics.histogram(_LOOP.format("progress", ""))

    def gather() -> None:
        """Messages that left together share the time it took; so do their events."""
        for sent in hub.send_times:
            if sent.events:
                messages.observe(sent.seconds / sent.messages, sent.messages)
                events.observe(sent.seconds / sent.events, sent.messages)
            else:
                controls.observe(sent.seconds / sent.messages, sent.messages)
        hub.send_times.clear()
        progress.observe_many(hub.progress_seconds)
        hub.progress_seconds.clear()

    metrics.gatherers.append(gather)
