"""The metric families of one member: etcd 3.7.1's names, types, labels and bucket bounds, in our words.

What a room counts in plain attributes anyway is bound by callable with `MemberMetrics.bind` where the
member is put together; times are observed through the histograms below. A family that nothing feeds yet
stays at zero, as it does in etcd, so that dashboards find every name. Families of requests are in
`request_times`, those of gRPC calls in `api.grpc_metrics`, those of the process in `process_metrics`, those
of traffic with other members in `peer_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pyetcd.member.features import FEATURES
from pyetcd.metrics import Counter, Gauge, Histogram, Registry, exponential
from pyetcd.version import SERVER_VERSION

MILLISECONDS_UP: Final = exponential(0.001, 2, 14)
_TENTHS_UP: Final = exponential(0.1, 2, 13)
_HASH: Final = exponential(0.01, 2, 15)
_SNAPSHOT: Final = exponential(0.01, 2, 17)

_COUNTERS: Final = {
    "etcd_debugging_lease_granted_total": "Leases granted.",
    "etcd_debugging_lease_renewed_total": "Lease renewals answered by this member as leader.",
    "etcd_debugging_lease_revoked_total": "Leases revoked.",
    "etcd_debugging_mvcc_db_compaction_keys_total": "Records removed by compactions.",
    "etcd_debugging_mvcc_events_total": "Events sent to watchers by this member.",
    "etcd_debugging_server_lease_expired_total": "Leases that ran out.",
    "etcd_debugging_store_expires_total": "Keys expired in the v2 store, which does not exist here.",
    "etcd_debugging_store_watch_requests_total": "Watches on the v2 store, which does not exist here.",
    "etcd_grpc_proxy_events_coalescing_total": "Events the gRPC proxy coalesced; this is none.",
    "etcd_mvcc_delete_total": "Deletes seen by this member.",
    "etcd_mvcc_put_total": "Puts seen by this member.",
    "etcd_mvcc_range_total": "Ranges seen by this member.",
    "etcd_mvcc_txn_total": "Transactions seen by this member.",
    "etcd_network_client_grpc_received_bytes_total": "Bytes of gRPC messages received from clients.",
    "etcd_network_client_grpc_sent_bytes_total": "Bytes of gRPC messages sent to clients.",
    "etcd_server_health_failures": "Health checks that failed.",
    "etcd_server_health_success": "Health checks that passed.",
    "etcd_server_heartbeat_send_failures_total": "Heartbeats this member sent late as leader.",
    "etcd_server_leader_changes_seen_total": "Changes of leader seen.",
    "etcd_server_learner_promote_successes": "Learners promoted while this member was leader.",
    "etcd_server_proposals_failed_total": "Proposals that failed.",
    "etcd_server_read_indexes_failed_total": "Read indexes that could not be had.",
    "etcd_server_slow_apply_total": "Entries whose applying took longer than the warning limit.",
    "etcd_server_slow_read_indexes_total": "Read indexes that took long or ran out of time.",
}
_GAUGES: Final = {
    "etcd_debugging_auth_revision": "Revision of the auth store.",
    "etcd_debugging_mvcc_compact_revision": "Revision up to which history is compacted, -1 for never.",
    "etcd_debugging_mvcc_current_revision": "Revision of the store.",
    "etcd_debugging_mvcc_db_compaction_last": "Unix time of the last compaction.",
    "etcd_debugging_mvcc_keys_total": "Keys in the store.",
    "etcd_debugging_mvcc_pending_events_total": "Events waiting for slow watchers.",
    "etcd_debugging_mvcc_slow_watcher_total": "Watchers that lag behind.",
    "etcd_debugging_mvcc_total_put_size_in_bytes": "Bytes of keys and values put since the start.",
    "etcd_debugging_mvcc_watch_stream_total": "Watch streams.",
    "etcd_debugging_mvcc_watcher_total": "Watchers.",
    "etcd_debugging_store_watchers": "Watchers on the v2 store, which does not exist here.",
    "etcd_disk_defrag_inflight": "1 while a defragmentation is under way.",
    "etcd_disk_wal_write_bytes_total": "Bytes written to the write-ahead log.",
    "etcd_grpc_proxy_cache_hits_total": "Cache hits of the gRPC proxy; this is none.",
    "etcd_grpc_proxy_cache_keys_total": "Keys cached by the gRPC proxy; this is none.",
    "etcd_grpc_proxy_cache_misses_total": "Cache misses of the gRPC proxy; this is none.",
    "etcd_grpc_proxy_watchers_coalescing_total": "Watchers the gRPC proxy coalesced; this is none.",
    "etcd_mvcc_db_open_read_transactions": "Read transactions open on the database file.",
    "etcd_mvcc_db_total_size_in_bytes": "Size of the database file.",
    "etcd_mvcc_db_total_size_in_use_in_bytes": "Size of the database file without its free pages.",
    "etcd_server_has_leader": "1 if this member knows a leader.",
    "etcd_server_is_leader": "1 if this member is the leader.",
    "etcd_server_is_learner": "1 if this member is a learner.",
    "etcd_server_proposals_applied_total": "Index of the last entry applied.",
    "etcd_server_proposals_committed_total": "Index of the last entry committed.",
    "etcd_server_proposals_pending": "Proposals waiting to be committed.",
    "etcd_server_quota_backend_bytes": "Quota of the database in bytes.",
    "etcd_server_snapshot_apply_in_progress_total": "1 while a snapshot from the leader is applied.",
}
# name: (text, bounds)
_HISTOGRAMS: Final = {
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds": (
        "Part of a commit: merging sparse pages.",
        MILLISECONDS_UP,
    ),
    "etcd_debugging_disk_backend_commit_spill_duration_seconds": (
        "Part of a commit: building pages.",
        MILLISECONDS_UP,
    ),
    "etcd_debugging_disk_backend_commit_write_duration_seconds": (
        "Part of a commit: writing and syncing pages.",
        MILLISECONDS_UP,
    ),
    "etcd_debugging_lease_ttl_total": ("TTLs of leases granted, in seconds.", exponential(1, 2, 24)),
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds": (
        "Time a step of a compaction held up the store.",
        exponential(1, 2, 13),
    ),
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds": (
        "Time from the start of a compaction to its end.",
        exponential(100, 2, 14),
    ),
    "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds": (
        "Time a compaction of the key index held up the store.",
        exponential(0.5, 2, 14),
    ),
    "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds": (
        "Time to send the answer to a watch request.",
        MILLISECONDS_UP,
    ),
    "etcd_debugging_server_watch_send_loop_progress_duration_seconds": (
        "Time to send a progress notification.",
        MILLISECONDS_UP,
    ),
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds": (
        "Time to send events to a watch stream, by event.",
        MILLISECONDS_UP,
    ),
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds": (
        "Time to send events to a watch stream.",
        MILLISECONDS_UP,
    ),
    "etcd_debugging_snap_save_marshalling_duration_seconds": (
        "Part of saving a snapshot file: encoding.",
        MILLISECONDS_UP,
    ),
    "etcd_debugging_snap_save_total_duration_seconds": ("Time to save a snapshot file.", MILLISECONDS_UP),
    "etcd_disk_backend_commit_duration_seconds": ("Time to commit buffered writes.", MILLISECONDS_UP),
    "etcd_disk_backend_defrag_duration_seconds": ("Time of a defragmentation.", _TENTHS_UP),
    "etcd_disk_backend_snapshot_duration_seconds": ("Time to send out the database.", _SNAPSHOT),
    "etcd_disk_wal_fsync_duration_seconds": ("Time of an fsync of the write-ahead log.", MILLISECONDS_UP),
    "etcd_disk_wal_write_duration_seconds": ("Time of a write to the write-ahead log.", MILLISECONDS_UP),
    "etcd_mvcc_hash_duration_seconds": ("Time to hash the database.", _HASH),
    "etcd_mvcc_hash_rev_duration_seconds": ("Time to hash the store at a revision.", _HASH),
    "etcd_snap_db_fsync_duration_seconds": ("Time to sync a database received as snapshot.", MILLISECONDS_UP),
    "etcd_snap_db_save_total_duration_seconds": (
        "Time to save a database received as snapshot.",
        exponential(0.1, 2, 10),
    ),
    "etcd_snap_fsync_duration_seconds": ("Time to sync a snapshot file.", MILLISECONDS_UP),
    # ours: how late the loop comes to what was due; nothing may hold it for long
    "pyetcd_loop_lag_seconds": (
        "How late the event loop ran a timer that was due.",
        exponential(0.0005, 2, 15),
    ),
}


class MemberMetrics:
    """Registers the families and holds the cells that are observed where the work is done."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.gatherers: list[Callable[[], None]] = []  # fetch what rooms keep in lists; see `gather`
        registry.on_scrape(self.gather)
        self._counters = {name: registry.counter(name, text) for name, text in _COUNTERS.items()}
        self._gauges = {name: registry.gauge(name, text) for name, text in _GAUGES.items()}
        self._histograms = {
            name: registry.histogram(name, text, bounds) for name, (text, bounds) in _HISTOGRAMS.items()
        }
        self._gauges["etcd_debugging_mvcc_compact_revision"].value = -1

    def counter(self, name: str) -> Counter:
        """KeyError when there is none."""
        return self._counters[name]

    def gauge(self, name: str) -> Gauge:
        """KeyError when there is none."""
        return self._gauges[name]

    def histogram(self, name: str) -> Histogram:
        """KeyError when there is none."""
        return self._histograms[name]

    def gather(self) -> None:
        """Bring histograms up to date. To be called now and then too, since lists are bounded."""
        for gather in self.gatherers:
            gather()

    def bind(self, reads: Mapping[str, Callable[[], int | float]]) -> None:
        """Let counters and gauges read what the rooms count themselves. KeyError for an unknown name."""
        self.registry.bind(reads)

    def identify(
        self, server_id: int, cluster_version: Callable[[], str], enabled: Callable[[str], bool]
    ) -> None:
        """The families that tell who this is: versions, ID and features, each a 1 with labels.

        `cluster_version`: "3.7.0" or empty while not decided; `enabled`: whether a feature gate is on.
        """
        add = self.registry.rows
        add("etcd_server_version", "gauge", "Version of the server.", ("server_version",)).rows = lambda: [
            ((SERVER_VERSION,), 1)
        ]
        add(
            "etcd_server_go_version", "gauge", "Version of Go; there is none here.", ("server_go_version",)
        ).rows = lambda: [(("none",), 1)]
        add("etcd_server_id", "gauge", "ID of this member.", ("server_id",)).rows = lambda: [
            ((f"{server_id:x}",), 1)
        ]
        add("etcd_cluster_version", "gauge", "Version the cluster agreed on.", ("cluster_version",)).rows = (
            lambda: [((".".join(cluster_version().split(".")[:2]),), 1)] if cluster_version() else []
        )
        add("etcd_server_feature_enabled", "gauge", "1 for a feature that is on.", ("name", "stage")).rows = (
            lambda: [((name, feature.stage), int(enabled(name))) for name, feature in FEATURES.items()]
        )
