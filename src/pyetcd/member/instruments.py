"""One member's numbers, tied to the names etcd has for them.

Nothing is counted here: rooms count in plain attributes, and this module says which of them is which metric.
What they gather in lists (times of writes, of compactions) is fetched with `MemberMetrics.gather`, at every
scrape and ten times a second, so that lists stay short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from pyetcd.member.alarms import name_of
from pyetcd.member.member import Member
from pyetcd.member.metrics import MemberMetrics
from pyetcd.member.peer_metrics import PeerMetrics
from pyetcd.member.quota import DEFAULT_BYTES
from pyetcd.metrics import Histogram, Row
from pyetcd.storage import schema
from pyetcd.storage.backend import CommitTimes
from pyetcd.storage.snap import Saved


class LogThread(Protocol):
    """What is asked of the log's appender: durations since the last time, in seconds."""

    def sync_seconds(self) -> list[float]: ...
    def write_seconds(self) -> list[float]: ...


class Instruments:
    """Binds the metrics of one member. `clock`: the loop's; `unix`: seconds since 1970."""

    def __init__(
        self,
        metrics: MemberMetrics,
        member: Member,
        log: LogThread,
        clock: Callable[[], float],
        unix: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._member = member
        self._log = log
        self._clock = clock
        self._unix = unix
        config = member.config
        metrics.identify(member.id, member.cluster_version, config.feature)
        self._bind_server()
        self._bind_store()
        self._bind_leases()
        self._add_rows()
        times = member.times
        for family in (times.apply_duration, times.request_duration, times.range_duration):
            metrics.registry.add(family)
        peers = PeerMetrics(metrics.registry, member.id, member.transport.counters)
        metrics.gatherers += [self._gather, times.fold, peers.gather]
        member.backend.on_commit = self._committed
        member.retention.on_saved = self._saved
        member.leases.lessor.on_grant = metrics.histogram("etcd_debugging_lease_ttl_total").observe

    def _bind_server(self) -> None:
        member = self._member
        consensus, times = member.consensus, member.times
        quota = member.config.quota_backend_bytes or DEFAULT_BYTES
        self._metrics.bind(
            {
                "etcd_server_has_leader": lambda: int(member.leader != 0),
                "etcd_server_is_leader": lambda: int(consensus.node.is_leader),
                "etcd_server_is_learner": lambda: int(member.is_learner),
                "etcd_server_leader_changes_seen_total": lambda: member.leader_changes,
                "etcd_server_proposals_applied_total": lambda: member.applied_index,
                "etcd_server_proposals_committed_total": lambda: member.committed_index,
                "etcd_server_proposals_failed_total": lambda: member.failed_proposals,
                "etcd_server_proposals_pending": lambda: member.pending_proposals,
                "etcd_server_quota_backend_bytes": lambda: quota,
                "etcd_server_slow_apply_total": lambda: times.slow,
                "etcd_server_slow_read_indexes_total": lambda: member.reads.slow,
                "etcd_server_read_indexes_failed_total": lambda: member.reads.failed,
                "etcd_server_heartbeat_send_failures_total": lambda: member.late_heartbeats,
                "etcd_server_learner_promote_successes": lambda: member.reconfiguration.promotions,
                "etcd_server_snapshot_apply_in_progress_total": lambda: member.installer.in_progress,
                "etcd_disk_wal_write_bytes_total": lambda: member.log_bytes_written,
                "etcd_disk_defrag_inflight": lambda: int(member.defragmentation.under_way),
            }
        )

    def _bind_store(self) -> None:
        store, backend = self._member.store, self._member.backend
        auth_revision = lambda: schema.uint64(backend.get(schema.AUTH, schema.AUTH_REVISION))  # noqa: E731
        self._metrics.bind(
            {
                "etcd_debugging_auth_revision": auth_revision,
                "etcd_debugging_mvcc_compact_revision": lambda: store.compact_revision,
                "etcd_debugging_mvcc_current_revision": lambda: store.revision,
                "etcd_debugging_mvcc_db_compaction_keys_total": lambda: store.compactions.keys_removed,
                "etcd_debugging_mvcc_db_compaction_last": self._last_compaction,
                "etcd_debugging_mvcc_keys_total": lambda: store.key_count,
                "etcd_debugging_mvcc_total_put_size_in_bytes": lambda: store.counts.put_bytes,
                "etcd_mvcc_db_open_read_transactions": lambda: backend.open_read_transactions,
                "etcd_mvcc_db_total_size_in_bytes": lambda: backend.size_bytes,
                "etcd_mvcc_db_total_size_in_use_in_bytes": lambda: backend.size_in_use_bytes,
                "etcd_mvcc_delete_total": lambda: store.counts.deletes,
                "etcd_mvcc_put_total": lambda: store.counts.puts,
                "etcd_mvcc_range_total": lambda: store.counts.ranges,
                "etcd_mvcc_txn_total": lambda: store.counts.transactions,
            }
        )

    def _bind_leases(self) -> None:
        lessor, revoker = self._member.leases.lessor, self._member.leases.revoker
        self._metrics.bind(
            {
                "etcd_debugging_lease_granted_total": lambda: lessor.granted,
                "etcd_debugging_lease_renewed_total": lambda: lessor.renewed,
                "etcd_debugging_lease_revoked_total": lambda: lessor.revoked,
                "etcd_debugging_server_lease_expired_total": lambda: revoker.expired,
            }
        )

    def _add_rows(self) -> None:
        add = self._metrics.registry.rows
        add(
            "etcd_network_known_peers", "gauge", "1 for each member of the cluster.", ("Local", "Remote")
        ).rows = self._known_peers
        add(
            "etcd_server_learner_promote_failures",
            "counter",
            "Learners that could not be promoted while this member was leader.",
            ("Reason",),
        ).rows = lambda: [((why,), n) for why, n in self._member.reconfiguration.failed_promotions.items()]
        add(
            "etcd_debugging_server_alarms",
            "gauge",
            "1 for an alarm that is raised.",
            ("alarm_type", "server_id"),
        ).rows = self._alarms

    def _known_peers(self) -> Iterable[Row]:
        local = f"{self._member.id:x}"
        return [((local, f"{member.id:x}"), 1) for member in self._member.cluster.list()]

    def _alarms(self) -> Iterable[Row]:
        """An alarm that has been raised stays, at 0, once it is cleared."""
        alarms = self._member.alarms
        raised = {(alarm.alarm, alarm.memberID) for alarm in alarms.active()}
        return [
            ((name_of(alarm), f"{alarm.memberID:x}"), int(key in raised))
            for key, alarm in alarms.seen.items()
        ]

    def _last_compaction(self) -> float:
        ended_at = self._member.store.compactions.ended_at
        return 0 if ended_at is None else int(self._unix() - (self._clock() - ended_at))

    def _committed(self, times: CommitTimes) -> None:
        observe = self._metrics.histogram
        phase = "etcd_debugging_disk_backend_commit_{}_duration_seconds"
        observe(phase.format("rebalance")).observe(times.rebalance)
        observe(phase.format("spill")).observe(times.spill)
        observe(phase.format("write")).observe(times.write)
        observe("etcd_disk_backend_commit_duration_seconds").observe(times.total)

    def _saved(self, saved: Saved) -> None:
        observe = self._metrics.histogram
        observe("etcd_debugging_snap_save_marshalling_duration_seconds").observe(saved.encode_seconds)
        observe("etcd_debugging_snap_save_total_duration_seconds").observe(saved.total_seconds)
        observe("etcd_snap_fsync_duration_seconds").observe(saved.sync_seconds)

    def _gather(self) -> None:
        """Fetch what has gathered in lists."""
        histogram = self._metrics.histogram
        member = self._member
        histogram("etcd_disk_wal_fsync_duration_seconds").observe_many(self._log.sync_seconds())
        histogram("etcd_disk_wal_write_duration_seconds").observe_many(self._log.write_seconds())
        _take(member.incoming.sync_seconds, histogram("etcd_snap_db_fsync_duration_seconds"))
        _take(member.incoming.save_seconds, histogram("etcd_snap_db_save_total_duration_seconds"))
        _take(member.snapshot_seconds, histogram("etcd_disk_backend_snapshot_duration_seconds"))
        _take(member.defragmentation.seconds, histogram("etcd_disk_backend_defrag_duration_seconds"))
        _take(member.hash_seconds, histogram("etcd_mvcc_hash_duration_seconds"))
        _take(member.hash_revision_seconds, histogram("etcd_mvcc_hash_rev_duration_seconds"))
        compactions = member.store.compactions
        milliseconds = "etcd_debugging_mvcc_{}_duration_milliseconds"
        _take(compactions.pauses, histogram(milliseconds.format("db_compaction_pause")), 1000)
        _take(compactions.totals, histogram(milliseconds.format("db_compaction_total")), 1000)
        _take(compactions.index_pauses, histogram(milliseconds.format("index_compaction_pause")), 1000)


def _take(seconds: list[float], histogram: Histogram, scale: int = 1) -> None:
    if seconds:
        histogram.observe_many(value * scale for value in seconds)
        seconds.clear()
