"""Whether a configuration makes sense, in etcd's order and etcd's words.

The first thing wrong ends the start with exit code 1; what is merely unwise is logged as a warning. The order
is that of etcd's embed.Config.Validate, since of two mistakes the same one should be named. What is checked
later in etcd's start, when listeners and the compactor are made, is checked by `check_start` and
`compaction_retention`.
"""

from __future__ import annotations

import re
from typing import Final

from pyetcd import logs
from pyetcd.cluster.urls import UrlError, check_bindable, check_has_host, join_urls
from pyetcd.logs.gotext import GoValueError, parse_duration_ns
from pyetcd.member.config import DEFAULT_NAME, ServerConfig
from pyetcd.member.tls_choice import VERSIONS

ELECTION_MS_MAX: Final = 50_000
_NS_AN_HOUR: Final = 3_600_000_000_000

_log = logs.get("embed")


class ConfigError(Exception):
    """A configuration etcd would refuse; the text is etcd's."""


class UnsetAdvertiseClientUrls(ConfigError):
    """Listening was set, advertising was not. etcd says so twice."""

    def __init__(self) -> None:
        super().__init__("--advertise-client-urls is required when --listen-client-urls is set explicitly")


def validate(config: ServerConfig) -> None:
    """Raise ConfigError for the first mistake; log what is unwise."""
    _check_urls(config)
    _check_bootstrap(config)
    _check_timing(config)
    if config.listen_client_urls and not config.advertise_client_urls:
        raise UnsetAdvertiseClientUrls
    _check_compaction_mode(config.auto_compaction_mode)
    _check_tracing(config)
    _check_features(config)
    if config.compact_hash_check_time_seconds <= 0:
        given = logs.duration(config.compact_hash_check_time_seconds)
        raise ConfigError(f"--compact-hash-check-time must be >0 (set to {given})")
    if config.name == DEFAULT_NAME:
        _log.warn(
            "it isn't recommended to use default name, please set a value for --name. "
            "Note that etcd might run into issue when multiple members have the same default name",
            {"name": config.name},
        )
    _check_tls_versions(config)


def check_start(config: ServerConfig) -> None:
    """What etcd finds only when it makes its listeners: https without certificates, an address used twice."""
    served = (*config.listen_client_urls, *config.listen_client_http_urls)
    has_tls = config.client_tls.auto_tls or not config.client_tls.is_empty
    for url in served:
        if url.is_secure and not has_tls:
            raise ConfigError(
                "TLS key/cert (--cert-file, --key-file) must be provided "
                f"for client url {url} with HTTPS scheme"
            )
    grpc = {url.host + url.path for url in config.listen_client_urls}
    for url in config.listen_client_http_urls:
        if url.host + url.path in grpc:
            raise ConfigError(
                f"cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
            )
    for url in config.listen_metrics_urls:
        if url.is_secure and not has_tls:
            raise ConfigError(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
            )
    compaction_retention_ns(config)


def compaction_retention_ns(config: ServerConfig) -> int:
    """`--auto-compaction-retention` as a number: nanoseconds (`periodic`) or revisions (`revision`); 0 off.

    A bare number means hours, or revisions. ConfigError when it is neither a number nor a Go duration.
    """
    retention = config.auto_compaction_retention or "0"
    if re.fullmatch(r"\+?[0-9]+", retention) and int(retention) < 2**63:
        return int(retention) * (1 if config.auto_compaction_mode == "revision" else _NS_AN_HOUR)
    try:
        return parse_duration_ns(retention)
    except GoValueError as error:
        raise ConfigError(f"error parsing CompactionRetention: {error}") from None


def _check_urls(config: ServerConfig) -> None:
    try:
        check_bindable(config.listen_peer_urls)
        check_bindable(config.listen_client_urls)
        check_bindable(config.listen_client_http_urls)
        if not config.listen_client_http_urls:
            _log.warn("Running http and grpc server on single port. This is not recommended for production.")
        check_bindable(config.listen_metrics_urls)
    except UrlError as error:
        raise ConfigError(str(error)) from None
    try:
        check_has_host(config.initial_advertise_peer_urls)
    except UrlError as error:
        urls = logs.quote(join_urls(config.initial_advertise_peer_urls))
        raise ConfigError(f'--initial-advertise-peer-urls {urls} must be "host:port" ({error})') from None
    try:
        check_has_host(config.advertise_client_urls)
    except UrlError as error:
        urls = logs.quote(join_urls(config.advertise_client_urls))
        raise ConfigError(
            f'--advertise-client-urls {urls} must be in the format "host:port", '
            f'"unix:/path/to/socket" or "unixs:/path/to/socket" ({error})'
        ) from None


def _check_bootstrap(config: ServerConfig) -> None:
    discovery = config.discovery
    if config.initial_cluster_state not in ("new", "existing"):
        raise ConfigError(f"unexpected clusterState {logs.quote(config.initial_cluster_state)}")
    if bool(config.initial_cluster) + bool(discovery.srv) + bool(discovery.endpoints) > 1:
        raise ConfigError(
            "multiple discovery or bootstrap flags are set. "
            'Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"'
        )
    if bool(discovery.token) != bool(discovery.endpoints):
        raise ConfigError("both --discovery-token and --discovery-endpoints must be set")
    if any(not endpoint.strip() for endpoint in discovery.endpoints):
        raise ConfigError("--discovery-endpoints must not contain empty endpoints")


def _check_timing(config: ServerConfig) -> None:
    heartbeat, election = config.heartbeat_interval_ms, config.election_timeout_ms
    if heartbeat == 0:
        raise ConfigError("--heartbeat-interval must be >0 (set to 0ms)")
    if election == 0:
        raise ConfigError("--election-timeout must be >0 (set to 0ms)")
    if 5 * heartbeat > election:
        raise ConfigError(
            f"--election-timeout[{election}ms] should be at least as 5 times as "
            f"--heartbeat-interval[{heartbeat}ms]"
        )
    if election > ELECTION_MS_MAX:
        raise ConfigError(
            f"--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
        )


def _check_compaction_mode(mode: str) -> None:
    if mode == "":
        raise ConfigError("undefined auto-compaction-mode")
    if mode not in ("periodic", "revision"):
        raise ConfigError(f"unknown auto-compaction-mode {logs.quote(mode)}")


def _check_tracing(config: ServerConfig) -> None:
    rate = config.tracing.sampling_rate_per_million
    if not config.tracing.enabled:
        return
    if rate < 0:
        why = "positive"
    elif rate > 1_000_000:
        why = "less than 1000000"
    else:
        return
    raise ConfigError(
        f"distributed tracing configurition is not valid: (tracing sampling rate must be {why})"
    )


def _check_features(config: ServerConfig) -> None:
    checkpoint, persist = config.feature("LeaseCheckpoint"), config.feature("LeaseCheckpointPersist")
    if checkpoint and not persist:
        _log.warn(
            "Detected that checkpointing is enabled without persistence. "
            "Consider enabling feature gate LeaseCheckpointPersist"
        )
    if persist and not checkpoint:
        raise ConfigError(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
        )


def _check_tls_versions(config: ServerConfig) -> None:
    numbers = []
    for version in (config.tls_min_version, config.tls_max_version):
        if version not in VERSIONS:
            raise ConfigError(
                f"unexpected TLS version {logs.quote(version)} (must be one of: TLS1.2, TLS1.3)"
            )
        numbers.append(VERSIONS[version])
    lowest, highest = numbers
    if highest and lowest > highest:
        raise ConfigError(
            f"min version ({config.tls_min_version}) is greater than max version ({config.tls_max_version})"
        )
    if lowest == VERSIONS["TLS1.3"] and config.cipher_suites:
        raise ConfigError("cipher suites cannot be configured when only TLS1.3 is enabled")
