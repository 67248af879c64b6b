"""The line that says at every start what a member runs with: `starting an etcd server`.

Tools and people compare configurations by it, so it has etcd's keys in etcd's order. It holds no secrets:
neither the discovery password nor the options of the token provider are among the keys.
"""

from __future__ import annotations

import os
import platform

from pyetcd import logs
from pyetcd.cluster.urls import Url, cluster_text
from pyetcd.logs import duration, duration_ns
from pyetcd.member.config import DEFAULT_QUOTA_BYTES, ServerConfig
from pyetcd.member.config_check import compaction_retention_ns
from pyetcd.member.initial import Initial, from_flags
from pyetcd.version import SERVER_VERSION

_log = logs.get("embed")


def log_start(
    config: ServerConfig,
    *,
    member_initialized: bool,
    initial: Initial | None = None,
    local_address: str | None = None,
) -> None:
    """Write the line. `member_initialized`: the data directory already holds a member. `initial`: the first
    members, where DNS was asked for them. `local_address`: where others are dialled from, where that is set.
    BadCluster where the flags name none."""
    fields = start_fields(config, member_initialized, initial)
    fields["local-address"] = local_address or ""
    _log.info("starting an etcd server", fields)


def start_fields(
    config: ServerConfig, member_initialized: bool, initial: Initial | None = None
) -> dict[str, object]:
    retention_ns = compaction_retention_ns(config)
    cluster = token = ""
    if not member_initialized and (initial := initial or from_flags(config)) is not None:
        cluster, token = cluster_text(initial.urls), initial.token
    return {
        "etcd-version": SERVER_VERSION,
        "git-sha": "none",
        "go-version": "none",
        "python-version": platform.python_version(),
        "go-os": platform.system().lower(),
        "go-arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "max-cpu-set": len(os.sched_getaffinity(0)),
        "max-cpu-available": os.cpu_count() or 1,
        "member-initialized": member_initialized,
        "name": config.name,
        "data-dir": config.data_dir,
        "wal-dir": config.wal_dir,
        "wal-dir-dedicated": config.wal_dir,
        "member-dir": config.member_dir,
        "force-new-cluster": config.force_new_cluster,
        "heartbeat-interval": duration(config.heartbeat_interval_ms / 1000),
        "election-timeout": duration(config.effective_election_timeout_seconds),
        "initial-election-tick-advance": config.initial_election_tick_advance,
        "snapshot-count": config.snapshot_count,
        "max-wals": config.max_wals,
        "max-snapshots": config.max_snapshots,
        "snapshot-catchup-entries": config.snapshot_catchup_entries,
        "initial-advertise-peer-urls": _texts(config.initial_advertise_peer_urls),
        "listen-peer-urls": _texts(config.listen_peer_urls),
        "advertise-client-urls": _texts(config.advertise_client_urls),
        "listen-client-urls": _texts(config.listen_client_urls),
        "listen-metrics-urls": _texts(config.listen_metrics_urls),
        "local-address": "",
        "cors": list(config.cors),
        "host-whitelist": list(config.host_whitelist),
        "initial-cluster": cluster,
        "initial-cluster-state": config.initial_cluster_state,
        "initial-cluster-token": token,
        "quota-backend-bytes": config.quota_backend_bytes or DEFAULT_QUOTA_BYTES,
        "max-request-bytes": config.max_request_bytes,
        "max-concurrent-streams": config.max_concurrent_streams,
        "pre-vote": config.pre_vote,
        "feature-gates": str(config.features),
        "initial-corrupt-check": config.feature("InitialCorruptCheck"),
        "corrupt-check-time-interval": duration(config.corrupt_check_time_seconds),
        "compact-check-time-interval": duration(config.compact_hash_check_time_seconds),
        "auto-compaction-mode": config.auto_compaction_mode,
        "auto-compaction-retention": duration_ns(retention_ns),
        "auto-compaction-interval": duration_ns(retention_ns),
        **_discovery_fields(config),
        "downgrade-check-interval": duration(config.downgrade_check_time_seconds),
        "max-learners": config.max_learners,
        "v2-deprecation": config.v2_deprecation,
    }


def _discovery_fields(config: ServerConfig) -> dict[str, object]:
    discovery = config.discovery
    return {
        "discovery-token": discovery.token,
        "discovery-endpoints": ",".join(discovery.endpoints),
        "discovery-dial-timeout": duration(discovery.dial_timeout_seconds),
        "discovery-request-timeout": duration(discovery.request_timeout_seconds),
        "discovery-keepalive-time": duration(discovery.keepalive_time_seconds),
        "discovery-keepalive-timeout": duration(discovery.keepalive_timeout_seconds),
        "discovery-insecure-transport": discovery.insecure_transport,
        "discovery-insecure-skip-tls-verify": discovery.insecure_skip_tls_verify,
        "discovery-cert": discovery.cert,
        "discovery-key": discovery.key,
        "discovery-cacert": discovery.cacert,
        "discovery-user": discovery.user.partition(":")[0],
    }


def _texts(urls: tuple[Url, ...]) -> list[str]:
    return [url.text for url in urls]
