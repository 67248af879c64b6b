"""Every flag of `etcd` 3.7.1 as data: name, kind, where its value goes, where the help shows it, and how.

From this one table come the parser, the `ETCD_*` variables, the configuration file's top-level keys and the
help text. Names, kinds and defaults are etcd's; the sentences are ours. `field` is a path in `ServerConfig`;
a flag without one is handled by name. `shown` is the default as the help prints it (None: the flag stands
there bare).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from pyetcd.member.config import DEFAULT_AUDIT_ROTATION


class Kind(Enum):
    """How a value is read."""

    STRING = auto()
    BOOL = auto()
    INT = auto()  # int64
    UINT = auto()  # uint64
    UINT32 = auto()
    MILLISECONDS = auto()  # uint, named for what it counts
    DURATION = auto()  # Go duration on the command line, nanoseconds in the file, seconds in the field
    URLS = auto()
    ORIGINS = auto()  # URLs or `*`
    STRINGS = auto()  # comma-separated, order kept
    UNIQUE = auto()  # comma-separated, sorted, each once
    FEATURES = auto()
    CHOICE = auto()  # one of `choices`
    CHOICES = auto()  # some of `choices`
    IGNORED = auto()  # once a flag, accepted and without effect


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `in_file`: whether the configuration file knows it as a top-level key of the same name."""

    name: str
    kind: Kind
    field: str
    section: str = ""
    shown: str | None = ""
    help: str = ""
    in_file: bool = True
    choices: tuple[str, ...] = ()

    @property
    def is_bool(self) -> bool:
        """May stand without a value."""
        return self.kind in (Kind.BOOL, Kind.IGNORED)

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "ETCD_" + self.name.upper().replace("-", "_")


MEMBER: Final = "Member"
CLUSTERING: Final = "Clustering"
SECURITY: Final = "Security"
AUTH: Final = "Auth"
PROFILING: Final = "Profiling and Monitoring"
LOGGING: Final = "Logging"
TRACING: Final = "Distributed tracing"
FEATURES: Final = "Features"
UNSAFE: Final = "Unsafe feature"

SECTIONS: Final = (MEMBER, CLUSTERING, SECURITY, AUTH, PROFILING, LOGGING, TRACING, FEATURES, UNSAFE)
V2_STAGES: Final = ("write-only", "write-only-skip-check", "write-only-drop-data", "gone")
_ROTATION: Final = '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}'
_PEER: Final = "http://localhost:2380"
_CLIENT: Final = "http://localhost:2379"

_S, _B, _I, _U, _D = Kind.STRING, Kind.BOOL, Kind.INT, Kind.UINT, Kind.DURATION

_MEMBER_FLAGS: Final = (
    ("name", _S, "name", "default", "A name for this member that people can read."),
    ("data-dir", _S, "data_dir", "${name}.etcd", "Directory that holds the member's data."),
    ("wal-dir", _S, "wal_dir", "", "Directory of its own for the write-ahead log."),
    (
        "snapshot-count",
        _U,
        "snapshot_count",
        "10000",
        "Applied entries after which a snapshot is written to disk.",
    ),
    (
        "heartbeat-interval",
        Kind.MILLISECONDS,
        "heartbeat_interval_ms",
        "100",
        "Milliseconds between two heartbeats of the leader.",
    ),
    (
        "election-timeout",
        Kind.MILLISECONDS,
        "election_timeout_ms",
        "1000",
        "Milliseconds without a leader until a member stands for election.",
    ),
    (
        "initial-election-tick-advance",
        _B,
        "initial_election_tick_advance",
        "true",
        "Skip most of the first election timeout after a start, to have a leader sooner.",
    ),
    ("listen-peer-urls", Kind.URLS, "listen_peer_urls", _PEER, "URLs on which other members are served."),
    (
        "listen-client-urls",
        Kind.URLS,
        "listen_client_urls",
        _CLIENT,
        "URLs on which clients are served: gRPC, and plain HTTP unless --listen-client-http-urls takes it.",
    ),
    (
        "listen-client-http-urls",
        Kind.URLS,
        "listen_client_http_urls",
        "",
        "URLs for plain HTTP alone. With it, --listen-client-urls serve only gRPC.",
    ),
    (
        "max-snapshots",
        _U,
        "max_snapshots",
        "5",
        "Snapshot files to keep, 0 keeps all. Deprecated since v3.6.",
    ),
    ("max-wals", _U, "max_wals", "5", "Log segments to keep, 0 keeps all."),
    ("memory-mlock", _B, "memory_mlock", None, "Lock the member's memory into RAM."),
    (
        "quota-backend-bytes",
        _I,
        "quota_backend_bytes",
        "0",
        "Size of the database at which an alarm stops writes that add to it. 0: 2GiB; below 0: no limit.",
    ),
    (
        "backend-bbolt-freelist-type",
        _S,
        "backend_freelist_type",
        "map",
        "How free pages are kept in memory, array or map. Accepted; here there is one way.",
    ),
    (
        "backend-batch-interval",
        _D,
        "backend_batch_interval_seconds",
        "",
        "Longest time until buffered writes are committed to the database file.",
    ),
    (
        "backend-batch-limit",
        _I,
        "backend_batch_limit",
        "0",
        "Buffered writes after which they are committed to the database file.",
    ),
    ("max-txn-ops", _U, "max_txn_ops", "128", "Operations allowed in one branch of a transaction."),
    (
        "max-request-bytes",
        _U,
        "max_request_bytes",
        "1572864",
        "Largest request taken from a client, in bytes.",
    ),
    (
        "max-concurrent-streams",
        Kind.UINT32,
        "max_concurrent_streams",
        "math.MaxUint32",
        "Streams a client may have open at a time.",
    ),
    (
        "grpc-keepalive-min-time",
        _D,
        "grpc_keepalive_min_time_seconds",
        "5s",
        "A client that pings more often than this is disconnected.",
    ),
    (
        "grpc-keepalive-interval",
        _D,
        "grpc_keepalive_interval_seconds",
        "2h",
        "A connection silent for so long is pinged (0 for never).",
    ),
    (
        "grpc-keepalive-timeout",
        _D,
        "grpc_keepalive_timeout_seconds",
        "20s",
        "A ping not answered in this time closes the connection (0 for never).",
    ),
    ("socket-reuse-port", _B, "socket_reuse_port", "false", "Set SO_REUSEPORT on listening sockets.", False),
    (
        "socket-reuse-address",
        _B,
        "socket_reuse_address",
        "false",
        "Set SO_REUSEADDR on listening sockets.",
        False,
    ),
    ("enable-grpc-gateway", _B, "enable_grpc_gateway", None, "Serve the JSON gateway under /v3."),
    (
        "raft-read-timeout",
        _D,
        "raft_read_timeout_seconds",
        "5s",
        "Time to wait for data on a connection from a member, at least 5s.",
        False,
    ),
    (
        "raft-write-timeout",
        _D,
        "raft_write_timeout_seconds",
        "5s",
        "Time a write on a connection to a member may take, at least 5s.",
        False,
    ),
    (
        "feature-gates",
        Kind.FEATURES,
        "features",
        "",
        "Switches for features that are not settled, as name=true,name=false. Known are:",
    ),
)

_CLUSTERING_FLAGS: Final = (
    (
        "initial-advertise-peer-urls",
        Kind.URLS,
        "initial_advertise_peer_urls",
        _PEER,
        "URLs under which the other members reach this one.",
    ),
    (
        "initial-cluster",
        _S,
        "initial_cluster",
        f"default={_PEER}",
        "The first members, as name=peer-url,name=peer-url. Used when the data directory is empty.",
    ),
    (
        "initial-cluster-state",
        Kind.CHOICE,
        "initial_cluster_state",
        "new",
        "'new' to found a cluster, 'existing' to join one. Without effect once there is data.",
    ),
    (
        "initial-cluster-token",
        _S,
        "initial_cluster_token",
        "etcd-cluster",
        "Part of the cluster's ID: clusters with different tokens never talk to each other.",
    ),
    (
        "advertise-client-urls",
        Kind.URLS,
        "advertise_client_urls",
        _CLIENT,
        "URLs under which clients reach this member; clients get them with the list of members.",
    ),
    ("discovery-token", _S, "discovery.token", "", "Discovery: the token of the cluster to found.", False),
    (
        "discovery-endpoints",
        Kind.UNIQUE,
        "discovery.endpoints",
        "",
        "Discovery: the etcd cluster through which the first members find each other.",
        False,
    ),
    (
        "discovery-dial-timeout",
        _D,
        "discovery.dial_timeout_seconds",
        "2s",
        "Discovery: time allowed for a connection to come up.",
        False,
    ),
    (
        "discovery-request-timeout",
        _D,
        "discovery.request_timeout_seconds",
        "5s",
        "Discovery: time allowed for a request, connection aside.",
        False,
    ),
    (
        "discovery-keepalive-time",
        _D,
        "discovery.keepalive_time_seconds",
        "2s",
        "Discovery: time between two keepalive pings.",
        False,
    ),
    (
        "discovery-keepalive-timeout",
        _D,
        "discovery.keepalive_timeout_seconds",
        "6s",
        "Discovery: time allowed for the answer to a ping.",
        False,
    ),
    (
        "discovery-insecure-transport",
        _B,
        "discovery.insecure_transport",
        "true",
        "Discovery: connect without TLS.",
        False,
    ),
    (
        "discovery-insecure-skip-tls-verify",
        _B,
        "discovery.insecure_skip_tls_verify",
        "false",
        "Discovery: do not verify the server's certificate. For tests only.",
        False,
    ),
    ("discovery-cert", _S, "discovery.cert", "", "Discovery: our TLS certificate file.", False),
    ("discovery-key", _S, "discovery.key", "", "Discovery: our TLS key file.", False),
    ("discovery-cacert", _S, "discovery.cacert", "", "Discovery: CA file to verify the server with.", False),
    ("discovery-user", _S, "discovery.user", "", "Discovery: user name, or name:password.", False),
    (
        "discovery-password",
        _S,
        "discovery.password",
        "",
        "Discovery: password, if not given with the name.",
        False,
    ),
    (
        "discovery-fallback",
        Kind.CHOICE,
        "",
        "exit",
        "What to do when discovery fails. Only 'exit' is left.",
        False,
    ),
    ("discovery-srv", _S, "discovery.srv", "", "DNS domain whose SRV records name the first members."),
    ("discovery-srv-name", _S, "discovery.srv_name", "", "Suffix to the SRV service name asked for."),
    (
        "strict-reconfig-check",
        _B,
        "strict_reconfig_check",
        "true",
        "Refuse changes of membership that would cost the quorum.",
    ),
    (
        "pre-vote",
        _B,
        "pre_vote",
        "true",
        "Ask for votes on trial first, so that a member that comes back does not depose the leader.",
    ),
    (
        "auto-compaction-retention",
        _S,
        "auto_compaction_retention",
        "0",
        "History to keep: a time, in hours where no unit is given, or a number of revisions. 0 keeps all.",
    ),
    (
        "auto-compaction-mode",
        _S,
        "auto_compaction_mode",
        "periodic",
        "What --auto-compaction-retention counts: 'periodic' for time, 'revision' for revisions.",
    ),
    (
        "v2-deprecation",
        Kind.CHOICES,
        "",
        "write-only",
        "Stage of the removal of the v2 store. Deprecated; the default is in force whatever is given.",
    ),
)

_SECURITY_FLAGS: Final = (
    ("cert-file", _S, "client_tls.cert_file", "", "TLS certificate file for clients.", False),
    ("key-file", _S, "client_tls.key_file", "", "TLS key file for clients.", False),
    (
        "client-cert-auth",
        _B,
        "client_tls.client_cert_auth",
        "false",
        "Require certificates of clients and verify them.",
        False,
    ),
    (
        "client-cert-file",
        _S,
        "client_tls.client_cert_file",
        "",
        "Certificate file to use as a client, where --cert-file is for servers only.",
        False,
    ),
    (
        "client-key-file",
        _S,
        "client_tls.client_key_file",
        "",
        "Key file to use as a client, where --key-file is for servers only.",
        False,
    ),
    ("client-crl-file", _S, "client_tls.crl_file", "", "Revocation list of client certificates.", False),
    (
        "client-cert-allowed-hostname",
        Kind.STRINGS,
        "client_tls.allowed_hostnames",
        "",
        "Host names, comma-separated, of which a client certificate has to carry one.",
        False,
    ),
    ("trusted-ca-file", _S, "client_tls.trusted_ca_file", "", "CA file to verify clients with.", False),
    ("auto-tls", _B, "client_tls.auto_tls", "false", "Serve clients with a self-signed certificate.", False),
    ("peer-cert-file", _S, "peer_tls.cert_file", "", "TLS certificate file for members.", False),
    ("peer-key-file", _S, "peer_tls.key_file", "", "TLS key file for members.", False),
    (
        "peer-client-cert-auth",
        _B,
        "peer_tls.client_cert_auth",
        "false",
        "Require certificates of members and verify them.",
        False,
    ),
    (
        "peer-client-cert-file",
        _S,
        "peer_tls.client_cert_file",
        "",
        "Certificate file to call members with, where --peer-cert-file is for servers only.",
        False,
    ),
    (
        "peer-client-key-file",
        _S,
        "peer_tls.client_key_file",
        "",
        "Key file to call members with, where --peer-key-file is for servers only.",
        False,
    ),
    ("peer-trusted-ca-file", _S, "peer_tls.trusted_ca_file", "", "CA file to verify members with.", False),
    (
        "peer-cert-allowed-cn",
        Kind.STRINGS,
        "peer_tls.allowed_cns",
        "",
        "Common names, comma-separated, of which a member's certificate has to carry one.",
        False,
    ),
    (
        "peer-cert-allowed-hostname",
        Kind.STRINGS,
        "peer_tls.allowed_hostnames",
        "",
        "Host names, comma-separated, of which a member's certificate has to carry one.",
        False,
    ),
    (
        "peer-auto-tls",
        _B,
        "peer_tls.auto_tls",
        "false",
        "Talk to members with a self-signed certificate.",
        False,
    ),
    (
        "self-signed-cert-validity",
        _U,
        "self_signed_cert_validity_years",
        "1",
        "Years for which certificates of --auto-tls and --peer-auto-tls are valid.",
    ),
    ("peer-crl-file", _S, "peer_tls.crl_file", "", "Revocation list of members' certificates.", False),
    (
        "cipher-suites",
        Kind.STRINGS,
        "cipher_suites",
        "",
        "TLS cipher suites by Go's names, comma-separated. Empty leaves the choice to the TLS library.",
    ),
    (
        "cors",
        Kind.ORIGINS,
        "cors",
        "*",
        "Origins that browsers may call from, comma-separated (* or empty: all).",
    ),
    (
        "host-whitelist",
        Kind.UNIQUE,
        "host_whitelist",
        "*",
        "Host names that plain HTTP requests may be addressed to (* or empty: all).",
    ),
    ("tls-min-version", _S, "tls_min_version", "TLS1.2", "Lowest TLS version accepted, TLS1.2 or TLS1.3."),
    (
        "tls-max-version",
        _S,
        "tls_max_version",
        "",
        "Highest TLS version accepted, TLS1.2 or TLS1.3 (empty: highest).",
    ),
)

_AUTH_FLAGS: Final = (
    ("auth-token", _S, "auth_token", "simple", "Kind of token and its options, 'simple' or 'jwt,...'."),
    ("bcrypt-cost", _U, "bcrypt_cost", "10", "Cost of hashing a password with bcrypt, 4 to 31."),
    ("auth-token-ttl", _U, "auth_token_ttl_seconds", "300", "Seconds a simple token lives unused."),
    (
        "password-cache-ttl",
        _D,
        "password_cache_ttl_seconds",
        "0s",
        "How long a password that was right is remembered, in memory and salted (0: never). Not in etcd.",
    ),
    (
        "max-requests-per-user",
        Kind.UINT32,
        "max_requests_per_user",
        "0",
        "Requests a second that one user may make (0: any number). Not in etcd.",
    ),
    (
        "max-requests-per-connection",
        Kind.UINT32,
        "max_requests_per_connection",
        "0",
        "Requests a second that may come over one connection (0: any number). Not in etcd.",
    ),
)

_PROFILING_FLAGS: Final = (
    (
        "enable-pprof",
        _B,
        "enable_pprof",
        "false",
        'Serve profiling data on the client URLs under "/debug/pprof/".',
    ),
    (
        "metrics",
        _S,
        "metrics",
        "basic",
        "How much is measured: 'basic', or 'extensive' for gRPC histograms too.",
    ),
    (
        "listen-metrics-urls",
        Kind.URLS,
        "listen_metrics_urls",
        "",
        "URLs for /metrics and /health alone; https takes the certificate for clients.",
    ),
)

_LOGGING_FLAGS: Final = (
    ("logger", _S, "logging.logger", "zap", "Shape of the log. Only 'zap' is known."),
    (
        "log-outputs",
        Kind.UNIQUE,
        "logging.outputs",
        "default",
        "Where to log, comma-separated: 'default', 'stdout', 'stderr', 'systemd/journal' or files.",
    ),
    (
        "log-level",
        _S,
        "logging.level",
        "info",
        "Lowest level logged: debug, info, warn, error, panic or fatal.",
    ),
    ("log-format", _S, "logging.format", "json", "Form of a line, json or console."),
    ("enable-log-rotation", _B, "logging.rotation", "false", "Rotate the log file."),
    (
        "log-rotation-config-json",
        _S,
        "logging.rotation_json",
        _ROTATION,
        "When to rotate: maxsize in MB, maxage in days, maxbackups (0: no bound), localtime, compress.",
    ),
    (
        "audit-log-path",
        _S,
        "audit.path",
        "",
        "File to note in who asks for what, from where, and how it ends (empty: none). Not in etcd.",
    ),
    (
        "audit-log-rotation-config-json",
        _S,
        "audit.rotation_json",
        DEFAULT_AUDIT_ROTATION,
        "When to rotate that file, in the form of --log-rotation-config-json. Not in etcd.",
    ),
    (
        "warning-unary-request-duration",
        _D,
        "warning_unary_request_duration_seconds",
        "300ms",
        "A request that takes longer is logged.",
    ),
)

_TRACING_FLAGS: Final = (
    ("enable-distributed-tracing", _B, "tracing.enabled", "false", "Send OpenTelemetry traces."),
    ("distributed-tracing-address", _S, "tracing.address", "localhost:4317", "Collector to send traces to."),
    (
        "distributed-tracing-service-name",
        _S,
        "tracing.service_name",
        "etcd",
        "Service name, the same for all members.",
    ),
    (
        "distributed-tracing-instance-id",
        _S,
        "tracing.instance_id",
        "",
        "Instance name, different for every member.",
    ),
    (
        "distributed-tracing-sampling-rate",
        _I,
        "tracing.sampling_rate_per_million",
        "0",
        "Spans kept out of a million.",
    ),
)

_FEATURE_FLAGS: Final = (
    (
        "corrupt-check-time",
        _D,
        "corrupt_check_time_seconds",
        "12h",
        "Time between two comparisons of data with peers; 0s: never.",
    ),
    (
        "compact-hash-check-time",
        _D,
        "compact_hash_check_time_seconds",
        "1m",
        "Time between two comparisons of compaction hashes by the leader.",
    ),
    (
        "compaction-batch-limit",
        _I,
        "compaction_batch_limit",
        "1000",
        "Revisions looked at in one step of a compaction.",
    ),
    (
        "peer-skip-client-san-verification",
        _B,
        "peer_tls.skip_client_san_verify",
        "false",
        "Do not compare a member's address with its certificate.",
        False,
    ),
    (
        "watch-progress-notify-interval",
        _D,
        "watch_progress_notify_interval_seconds",
        "10m",
        "Time between two progress notifications to watchers that asked for them.",
    ),
    (
        "warning-apply-duration",
        _D,
        "warning_apply_duration_seconds",
        "100ms",
        "An entry that takes longer to apply is logged.",
    ),
    (
        "bootstrap-defrag-threshold-megabytes",
        _U,
        "bootstrap_defrag_threshold_megabytes",
        None,
        "Defragment at the start if that frees at least so much. 0 is never.",
    ),
    ("max-learners", _I, "max_learners", "1", "Learners there may be in the cluster at a time."),
    (
        "compaction-sleep-interval",
        _D,
        "compaction_sleep_interval_seconds",
        None,
        "Pause between two steps of a compaction.",
    ),
    (
        "downgrade-check-time",
        _D,
        "downgrade_check_time_seconds",
        None,
        "Time between two looks at a downgrade under way.",
    ),
    (
        "auto-disarm",
        _B,
        "auto_disarm",
        "false",
        "Clear this member's NOSPACE alarm once compactions have made room, defragmenting if need be. "
        "Not in etcd.",
    ),
    (
        "auto-promote-learners",
        _B,
        "auto_promote_learners",
        "false",
        "As leader, promote learners as soon as they are in sync. Not in etcd.",
    ),
    (
        "snapshot-catchup-entries",
        _U,
        "snapshot_catchup_entries",
        None,
        "Entries kept in memory behind the applied ones, for members that lag.",
    ),
)

_UNSAFE_FLAGS: Final = (
    (
        "force-new-cluster",
        _B,
        "force_new_cluster",
        "false",
        "Make this member's data a new cluster of one, whoever else was in it.",
    ),
    ("unsafe-no-fsync", _B, "unsafe_no_fsync", "false", "Do not fsync. Data will be lost in a crash."),
)

_CHOICES: Final = {
    "initial-cluster-state": ("new", "existing"),
    "discovery-fallback": ("exit", "proxy"),
    "v2-deprecation": V2_STAGES,
}

# Flags of old that etcd takes without effect, and those that no table section shows.
_IGNORED_NAMES: Final = (
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
    "test.coverprofile",
    "test.outputdir",
)


def _build() -> tuple[Flag, ...]:
    tables = (
        _MEMBER_FLAGS,
        _CLUSTERING_FLAGS,
        _SECURITY_FLAGS,
        _AUTH_FLAGS,
        _PROFILING_FLAGS,
        _LOGGING_FLAGS,
        _TRACING_FLAGS,
        _FEATURE_FLAGS,
        _UNSAFE_FLAGS,
    )
    flags: list[Flag] = []
    for section, table in zip(SECTIONS, tables, strict=True):
        for name, kind, field, shown, text, *rest in table:
            in_file = bool(rest[0]) if rest else True
            flags.append(Flag(name, kind, field, section, shown, text, in_file, _CHOICES.get(name, ())))
    flags.append(Flag("config-file", Kind.STRING, "", in_file=False))
    flags.append(Flag("version", Kind.BOOL, "", in_file=False))
    flags.extend(Flag(name, Kind.IGNORED, "", in_file=False) for name in _IGNORED_NAMES)
    return tuple(flags)


FLAGS: Final[tuple[Flag, ...]] = _build()
BY_NAME: Final[dict[str, Flag]] = {flag.name: flag for flag in FLAGS}
