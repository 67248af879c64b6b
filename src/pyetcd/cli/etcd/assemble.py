"""From values read, by flag or by file, to one `ServerConfig`.

Here are the rules that look at more than one setting: advertising must be set where listening is, discovery
pushes the default initial cluster aside, an unset data directory is named after the member, and a member that
listens everywhere advertises the machine's own address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from pyetcd import logs
from pyetcd.cli.etcd.flag_table import BY_NAME
from pyetcd.cli.etcd.flags import Settings
from pyetcd.cluster.urls import Url, join_urls, parse_url
from pyetcd.logs import quote
from pyetcd.member.config import (
    DEFAULT_CLIENT_URL,
    DEFAULT_INITIAL_CLUSTER,
    DEFAULT_NAME,
    DEFAULT_PEER_URL,
    NO_URLS,
    AuditConfig,
    DiscoveryConfig,
    LogConfig,
    ServerConfig,
    TlsConfig,
    TracingConfig,
)
from pyetcd.member.config_check import ConfigError

RAFT_TIMEOUT_SECONDS_MIN = 5.0
DEFAULT_WARNING_UNARY_SECONDS = 0.3

_log = logs.get("etcdmain")
_Part = TypeVar("_Part", ServerConfig, TlsConfig, LogConfig, AuditConfig, DiscoveryConfig, TracingConfig)


def with_fields(config: ServerConfig, fields: Mapping[str, object]) -> ServerConfig:
    """`config` with some fields set, by path: `{"name": "a", "client_tls.cert_file": "b"}`."""
    top: dict[str, object] = {}
    nested: dict[str, dict[str, object]] = {}
    for path, value in fields.items():
        head, dot, tail = path.partition(".")
        if dot:
            nested.setdefault(head, {})[tail] = value
        else:
            top[head] = value
    for head, part in nested.items():
        top[head] = _with(getattr(config, head), part)
    return _with(config, top)


def _with(part: _Part, fields: Mapping[str, object]) -> _Part:
    # The flag table ties every path to a kind of value; a test walks it all.
    return replace(part, **cast("Mapping[str, Any]", fields))


def from_settings(settings: Settings) -> ServerConfig:
    """The configuration of a command line and environment, not checked yet. ConfigError."""
    values = settings.values
    fields: dict[str, object] = {
        BY_NAME[name].field: value for name, value in values.items() if BY_NAME[name].field
    }
    for timeout, name in (
        ("raft_read_timeout_seconds", "raft-read-timeout"),
        ("raft_write_timeout_seconds", "raft-write-timeout"),
    ):
        given = fields.get(timeout)
        if isinstance(given, float) and given < RAFT_TIMEOUT_SECONDS_MIN:
            fields[timeout] = RAFT_TIMEOUT_SECONDS_MIN
            _log.info(f"{name} increased to minimum value: {logs.duration(RAFT_TIMEOUT_SECONDS_MIN)}")
    if "listen-client-urls" in settings.given and "advertise-client-urls" not in settings.given:
        fields["advertise_client_urls"] = NO_URLS
    discovers = any(values.get(n) for n in ("discovery-srv", "discovery-srv-name", "discovery-endpoints"))
    if discovers and "initial-cluster" not in settings.given:
        fields["initial_cluster"] = ""
    fields["explicit"] = frozenset(settings.given)
    if values.get("discovery-fallback") == "proxy":
        raise ConfigError(
            f"v2 proxy is deprecated, and --discovery-fallback can't be configured as {quote('proxy')}"
        )
    return finished(with_fields(ServerConfig(), fields))


def finished(config: ServerConfig) -> ServerConfig:
    """What holds for both sources of settings: a zero that means the default."""
    if config.warning_unary_request_duration_seconds == 0:
        return replace(config, warning_unary_request_duration_seconds=DEFAULT_WARNING_UNARY_SECONDS)
    return config


def with_defaults(config: ServerConfig, default_host: str) -> ServerConfig:
    """Settle what depends on name and machine. `default_host`: this machine's address, empty if unknown."""
    peers, clients, used = config.initial_advertise_peer_urls, config.advertise_client_urls, False
    if default_host and join_urls(peers) == DEFAULT_PEER_URL and _everywhere(config.listen_peer_urls):
        peers, used = (_at(peers[0], default_host, config.listen_peer_urls[0]),), True
    cluster = config.initial_cluster
    if config.name != DEFAULT_NAME and cluster == DEFAULT_INITIAL_CLUSTER:
        cluster = ",".join(f"{config.name}={url}" for url in peers)
    if default_host and join_urls(clients) == DEFAULT_CLIENT_URL and _everywhere(config.listen_client_urls):
        clients, used = (_at(clients[0], default_host, config.listen_client_urls[0]),), True
    if used:
        _log.info("detected default host for advertise", {"host": default_host})
    data_dir = config.data_dir
    if data_dir == "":
        data_dir = f"{config.name}.etcd"
        _log.warn("'data-dir' was empty; using default", {"data-dir": data_dir})
    return replace(
        config,
        initial_advertise_peer_urls=peers,
        advertise_client_urls=clients,
        initial_cluster=cluster,
        data_dir=data_dir,
    )


def _everywhere(urls: tuple[Url, ...]) -> bool:
    return bool(urls) and not urls[0].is_unix and urls[0].hostname == "0.0.0.0"


def _at(url: Url, host: str, listened: Url) -> Url:
    return parse_url(f"{url.scheme}://{host}:{listened.port}")
