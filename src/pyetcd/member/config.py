"""What one member is told at its start: every setting of etcd's command line, parsed and typed.

A `ServerConfig` is made by `cli.etcd` from flags, environment or file, or by hand in tests and by embedders;
its defaults are etcd 3.7.1's. It is frozen: nothing changes it while the member runs. Names are the flags'
with underscores; times carry their unit. Where etcd reads zero as "take the default", the field keeps the
zero that was given, as it shows in the log, and a property named `effective_…` or `…_limit` gives the value
to work with. Whether the whole makes sense is checked by `config_check`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pyetcd.cluster.urls import Url, parse_urls
from pyetcd.member.features import FeatureGates

DEFAULT_NAME: Final = "default"
DEFAULT_PEER_URL: Final = "http://localhost:2380"
DEFAULT_CLIENT_URL: Final = "http://localhost:2379"
DEFAULT_INITIAL_CLUSTER: Final = f"{DEFAULT_NAME}={DEFAULT_PEER_URL}"
DEFAULT_QUOTA_BYTES: Final = 2 * 1024**3
RECOMMENDED_QUOTA_BYTES_MAX: Final = 8 * 1024**3
RECOMMENDED_REQUEST_BYTES_MAX: Final = 10 * 1024**2
GRPC_OVERHEAD_BYTES: Final = 512 * 1024
DEFAULT_SNAPSHOT_COUNT: Final = 10_000
DEFAULT_SNAPSHOT_CATCHUP_ENTRIES: Final = 5_000
DEFAULT_LOG_ROTATION: Final = (
    '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}'
)
DEFAULT_AUDIT_ROTATION: Final = (
    '{"maxsize": 100, "maxage": 0, "maxbackups": 10, "localtime": false, "compress": false}'
)
MAX_UINT32: Final = 2**32 - 1

NO_URLS: Final[tuple[Url, ...]] = ()
DEFAULT_FEATURES: Final = FeatureGates()


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS of one side, clients' or peers'. File names as given; empty means not set."""

    cert_file: str = ""
    key_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    client_cert_auth: bool = False
    crl_file: str = ""
    trusted_ca_file: str = ""
    auto_tls: bool = False
    self_signed: bool = False  # the files above were generated: whom we dial need not prove who it is
    allowed_cns: tuple[str, ...] = ()
    allowed_hostnames: tuple[str, ...] = ()
    skip_client_san_verify: bool = False

    @property
    def is_empty(self) -> bool:
        """No certificate of our own: an https URL cannot be served (unless auto_tls makes one)."""
        return not self.cert_file and not self.key_file


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Where and how lines are logged."""

    logger: str = "zap"
    level: str = "info"
    format: str = "json"
    outputs: tuple[str, ...] = ("default",)
    rotation: bool = False
    rotation_json: str = DEFAULT_LOG_ROTATION


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """Where it is noted who asks for what; an empty path: nowhere."""

    path: str = ""
    rotation_json: str = DEFAULT_AUDIT_ROTATION


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """How to find the other first members: through an etcd cluster (`endpoints`, `token`) or DNS (`srv`)."""

    token: str = ""
    endpoints: tuple[str, ...] = ()
    dial_timeout_seconds: float = 2.0
    request_timeout_seconds: float = 5.0
    keepalive_time_seconds: float = 2.0
    keepalive_timeout_seconds: float = 6.0
    insecure_transport: bool = True
    insecure_skip_tls_verify: bool = False
    cert: str = ""
    key: str = ""
    cacert: str = ""
    user: str = field(default="", repr=False)  # may hold a password: name:password
    password: str = field(default="", repr=False)
    srv: str = ""
    srv_name: str = ""


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """Distributed tracing (OpenTelemetry)."""

    enabled: bool = False
    address: str = "localhost:4317"
    service_name: str = "etcd"
    instance_id: str = ""
    sampling_rate_per_million: int = 0


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of one member. URLs are parsed; times are float seconds unless the name says ms."""

    name: str = DEFAULT_NAME
    data_dir: str = ""
    wal_dir: str = ""

    # where to listen, and what to tell others
    listen_peer_urls: tuple[Url, ...] = parse_urls([DEFAULT_PEER_URL])
    listen_client_urls: tuple[Url, ...] = parse_urls([DEFAULT_CLIENT_URL])
    listen_client_http_urls: tuple[Url, ...] = NO_URLS
    listen_metrics_urls: tuple[Url, ...] = NO_URLS
    initial_advertise_peer_urls: tuple[Url, ...] = parse_urls([DEFAULT_PEER_URL])
    advertise_client_urls: tuple[Url, ...] = parse_urls([DEFAULT_CLIENT_URL])

    # the cluster at its first start
    initial_cluster: str = DEFAULT_INITIAL_CLUSTER
    initial_cluster_state: str = "new"
    initial_cluster_token: str = "etcd-cluster"
    discovery: DiscoveryConfig = DiscoveryConfig()
    strict_reconfig_check: bool = True
    force_new_cluster: bool = False
    max_learners: int = 1

    # raft
    heartbeat_interval_ms: int = 100
    election_timeout_ms: int = 1000
    initial_election_tick_advance: bool = True
    pre_vote: bool = True
    raft_read_timeout_seconds: float = 5.0
    raft_write_timeout_seconds: float = 5.0
    snapshot_count: int = DEFAULT_SNAPSHOT_COUNT
    snapshot_catchup_entries: int = DEFAULT_SNAPSHOT_CATCHUP_ENTRIES
    max_snapshots: int = 5
    max_wals: int = 5

    # storage
    quota_backend_bytes: int = 0
    backend_batch_interval_seconds: float = 0.0
    backend_batch_limit: int = 0
    backend_freelist_type: str = ""
    bootstrap_defrag_threshold_megabytes: int = 0
    memory_mlock: bool = False
    unsafe_no_fsync: bool = False
    auto_compaction_mode: str = "periodic"
    auto_compaction_retention: str = "0"
    compaction_batch_limit: int = 0
    compaction_sleep_interval_seconds: float = 0.0
    corrupt_check_time_seconds: float = 12 * 3600.0
    compact_hash_check_time_seconds: float = 60.0

    # what clients may ask for
    max_txn_ops: int = 128
    max_request_bytes: int = 1_572_864
    max_concurrent_streams: int = MAX_UINT32
    grpc_keepalive_min_time_seconds: float = 5.0
    grpc_keepalive_interval_seconds: float = 7200.0
    grpc_keepalive_timeout_seconds: float = 20.0
    watch_progress_notify_interval_seconds: float = 0.0
    warning_apply_duration_seconds: float = 0.1
    warning_unary_request_duration_seconds: float = 0.3
    downgrade_check_time_seconds: float = 5.0
    auto_disarm: bool = False
    auto_promote_learners: bool = False
    enable_grpc_gateway: bool = True
    enable_pprof: bool = False
    metrics: str = "basic"
    cors: tuple[str, ...] = ("*",)
    host_whitelist: tuple[str, ...] = ("*",)
    socket_reuse_port: bool = False
    socket_reuse_address: bool = False

    # security
    client_tls: TlsConfig = TlsConfig()
    peer_tls: TlsConfig = TlsConfig()
    self_signed_cert_validity_years: int = 1
    cipher_suites: tuple[str, ...] = ()
    tls_min_version: str = "TLS1.2"
    tls_max_version: str = ""
    auth_token: str = field(default="simple", repr=False)
    bcrypt_cost: int = 10
    auth_token_ttl_seconds: int = 300
    password_cache_ttl_seconds: float = 0.0
    max_requests_per_user: int = 0
    max_requests_per_connection: int = 0

    logging: LogConfig = LogConfig()
    audit: AuditConfig = AuditConfig()
    tracing: TracingConfig = TracingConfig()
    features: FeatureGates = DEFAULT_FEATURES
    v2_deprecation: str = "write-only"
    # names of the settings that were given, by flag, environment or file
    explicit: frozenset[str] = frozenset()

    @property
    def member_dir(self) -> str:
        return f"{self.data_dir.rstrip('/') or self.data_dir}/member"

    @property
    def effective_wal_dir(self) -> str:
        return self.wal_dir or f"{self.member_dir}/wal"

    @property
    def snap_dir(self) -> str:
        return f"{self.member_dir}/snap"

    @property
    def backend_path(self) -> str:
        return f"{self.snap_dir}/db"

    @property
    def election_ticks(self) -> int:
        """Heartbeat intervals without a leader until a member stands for election."""
        return self.election_timeout_ms // self.heartbeat_interval_ms

    @property
    def effective_election_timeout_seconds(self) -> float:
        return self.election_ticks * self.heartbeat_interval_ms / 1000

    @property
    def request_timeout_seconds(self) -> float:
        """How long a proposal may take: 5 s of queue, disk and computing, and two elections."""
        return 5.0 + 2 * self.effective_election_timeout_seconds

    @property
    def _chose_comparison(self) -> bool:
        """Whether the operator wants members compared while they run, beyond what is the default."""
        return (
            "compact-hash-check-time" in self.explicit
            or ("corrupt-check-time" in self.explicit and self.corrupt_check_time_seconds > 0)
            or self.features.explicit.get("CompactHashCheck", False)
        )

    @property
    def initial_check_timeout_seconds(self) -> float:
        """How long a start waits for the others' hashes. Where nobody has asked for the comparison, a dead
        member does not hold the start up for long."""
        asked_for = "InitialCorruptCheck" in self.features.explicit
        return self.request_timeout_seconds if asked_for else min(2.0, self.request_timeout_seconds)

    @property
    def peer_dial_timeout_seconds(self) -> float:
        """How long connecting to another member may take: 1 s of queue, and an election."""
        return 1.0 + self.effective_election_timeout_seconds

    @property
    def is_new_cluster(self) -> bool:
        return self.initial_cluster_state == "new"

    @property
    def quota_limit_bytes(self) -> int | None:
        """Size of the database at which NOSPACE is raised; None means no limit."""
        if self.quota_backend_bytes < 0:
            return None
        return self.quota_backend_bytes or DEFAULT_QUOTA_BYTES

    @property
    def max_receive_bytes(self) -> int:
        """Largest gRPC message taken from a client."""
        return self.max_request_bytes + GRPC_OVERHEAD_BYTES

    @property
    def effective_snapshot_count(self) -> int:
        return self.snapshot_count or DEFAULT_SNAPSHOT_COUNT

    @property
    def effective_snapshot_catchup_entries(self) -> int:
        return self.snapshot_catchup_entries or DEFAULT_SNAPSHOT_CATCHUP_ENTRIES

    @property
    def effective_backend_batch_interval_seconds(self) -> float:
        return self.backend_batch_interval_seconds or 0.1

    @property
    def effective_backend_batch_limit(self) -> int:
        return self.backend_batch_limit or 10_000

    @property
    def effective_compaction_batch_limit(self) -> int:
        return self.compaction_batch_limit or 1_000

    @property
    def effective_compaction_sleep_interval_seconds(self) -> float:
        return self.compaction_sleep_interval_seconds or 0.01

    @property
    def effective_watch_progress_notify_interval_seconds(self) -> float:
        return self.watch_progress_notify_interval_seconds or 600.0

    @property
    def splits_http(self) -> bool:
        """Plain HTTP has listeners of its own, and the client URLs serve gRPC alone."""
        return bool(self.listen_client_http_urls)

    def feature(self, name: str) -> bool:
        """Whether a feature gate is on. KeyError when there is none of this name.

        InitialCorruptCheck, unless set, is off where a later comparison of members has been chosen: a
        damaged member then starts, as with etcd, and that comparison is to find it.
        """
        if name == "InitialCorruptCheck" and name not in self.features.explicit and self._chose_comparison:
            return False
        return self.features.enabled(name)
