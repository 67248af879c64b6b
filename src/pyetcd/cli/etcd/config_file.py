"""`--config-file`: YAML (or JSON) with the flags' names as keys, read as etcd reads it.

With a file, flags and variables count for nothing. Values are typed as in JSON: a number is no text, a
duration is a whole number of nanoseconds, lists of URLs are one comma-separated text. Keys are matched
without regard to case, null means not given, and a key nobody knows is passed over; since that hides typing
mistakes, it is logged here. Refusals are worded as the JSON decoder's of etcd, by key and Go type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import yaml

from pyetcd import logs
from pyetcd.cli.etcd.assemble import finished, with_fields
from pyetcd.cli.etcd.flag_table import FLAGS, Kind
from pyetcd.cli.etcd.flags import UrlKeyError, parse_unique_urls
from pyetcd.cluster.urls import UrlError, parse_urls
from pyetcd.member.config import DEFAULT_INITIAL_CLUSTER, ServerConfig
from pyetcd.member.config_check import ConfigError
from pyetcd.member.features import FeatureError, FeatureGates

_log = logs.get("embed")

_GO_TYPES: Final = {
    Kind.STRING: "string",
    Kind.BOOL: "bool",
    Kind.INT: "int",
    Kind.UINT: "uint",
    Kind.UINT32: "uint32",
    Kind.MILLISECONDS: "uint",
    Kind.DURATION: "time.Duration",
    Kind.URLS: "string",
    Kind.ORIGINS: "string",
    Kind.STRINGS: "[]string",
    Kind.UNIQUE: "[]string",
    Kind.FEATURES: "string",
    Kind.CHOICE: "string",
    Kind.CHOICES: "string",
}
# Where a flag's own type and etcd's struct field differ.
_GO_TYPE_OF: Final = {
    "snapshot-count": "uint64",
    "snapshot-catchup-entries": "uint64",
    "quota-backend-bytes": "int64",
    "host-whitelist": "string",
}
_RANGES: Final = {
    "int": (-(2**63), 2**63 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "time.Duration": (-(2**63), 2**63 - 1),
    "uint": (0, 2**64 - 1),
    "uint64": (0, 2**64 - 1),
    "uint32": (0, 2**32 - 1),
}

# (key, field of the part, Go type)
_SECURITY: Final = (
    ("cert-file", "cert_file", "string"),
    ("key-file", "key_file", "string"),
    ("client-cert-file", "client_cert_file", "string"),
    ("client-key-file", "client_key_file", "string"),
    ("client-cert-auth", "client_cert_auth", "bool"),
    ("trusted-ca-file", "trusted_ca_file", "string"),
    ("auto-tls", "auto_tls", "bool"),
    ("allowed-cn", "allowed_cns", "[]string"),
    ("allowed-hostname", "allowed_hostnames", "[]string"),
    ("skip-client-san-verification", "skip_client_san_verify", "bool"),
)
_DISCOVERY_CLIENT: Final = (
    ("endpoints", "endpoints", "[]string"),
    ("request-timeout", "request_timeout_seconds", "time.Duration"),
    ("dial-timeout", "dial_timeout_seconds", "time.Duration"),
    ("keepalive-time", "keepalive_time_seconds", "time.Duration"),
    ("keepalive-timeout", "keepalive_timeout_seconds", "time.Duration"),
)
_DISCOVERY_SECURE: Final = (
    ("cert", "cert", "string"),
    ("key", "key", "string"),
    ("cacert", "cacert", "string"),
    ("insecure-transport", "insecure_transport", "bool"),
    ("insecure-skip-tls-verify", "insecure_skip_tls_verify", "bool"),
)
_DISCOVERY_AUTH: Final = (("username", "user", "string"), ("password", "password", "string"))
_SOCKETS: Final = (
    ("reuse-port", "socket_reuse_port", "bool"),
    ("reuse-address", "socket_reuse_address", "bool"),
)
_DECODING: Final = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "


class _Loader(yaml.SafeLoader):
    """YAML without dates: they are text to Go's reader."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Table:
    """A mapping of the file, keys folded, that remembers which of them were asked for."""

    def __init__(self, value: object, where: str, go_type: str) -> None:
        if not isinstance(value, dict):
            into = (
                f"Go value of type {go_type}" if where == "" else f"Go struct field {where} of type {go_type}"
            )
            raise ConfigError(f"{_DECODING}{_json_kind(value)} into {into}")
        self.keys = {str(key): item for key, item in value.items()}
        self._folded = {key.lower(): key for key in self.keys}
        self._asked: set[str] = set()

    def take(self, key: str) -> object:
        """The value of a key, None when it is absent or null."""
        name = self._folded.get(key)
        if name is None:
            return None
        self._asked.add(name)
        return self.keys[name]

    def unknown(self) -> list[str]:
        return sorted(set(self.keys) - self._asked)


def nested_keys() -> dict[str, str]:
    """Where settings stand whose key is not their flag's name: by field, the path of keys. For the docs."""
    tables = (
        ("client-transport-security", "client_tls.", _SECURITY),
        ("peer-transport-security", "peer_tls.", _SECURITY),
        ("discovery-config", "discovery.", (("token", "token", "string"),)),
        ("discovery-config.client", "discovery.", _DISCOVERY_CLIENT),
        ("discovery-config.client.secure", "discovery.", _DISCOVERY_SECURE),
        ("discovery-config.client.auth", "discovery.", _DISCOVERY_AUTH),
        ("socket-options", "", _SOCKETS),
    )
    return {head + field: f"{path}.{key}" for path, head, rows in tables for key, field, _ in rows}


def parse_file(data: bytes) -> ServerConfig:
    """The configuration a file holds, not checked yet. ConfigError or UrlKeyError with etcd's wording."""
    try:
        document: object = yaml.load(data, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise ConfigError(f"error converting YAML to JSON: yaml: {line}{error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"error converting YAML to JSON: yaml: {error}") from None
    if document is None:
        return ServerConfig()
    table = _Table(document, "", "embed.configYAML")
    fields = _flags_of(table)
    explicit = set(table.keys)
    _read_security(table, fields, explicit)
    _read_discovery(table, fields)
    sockets = table.take("socket-options")
    if sockets is not None:
        part = _Table(sockets, "configYAML.Config.socket-options", "transport.SocketOpts")
        fields.update(_read(part, _SOCKETS, "SocketOpts.Config.socket-options", ""))
    unknown = table.unknown()
    if unknown:
        _log.warn("ignored keys of the configuration file that are not known", {"keys": unknown})
    fields["explicit"] = frozenset(explicit)
    return _settled(with_fields(ServerConfig(), fields))


def _settled(config: ServerConfig) -> ServerConfig:
    discovers = bool(config.discovery.srv or config.discovery.endpoints)
    if discovers and config.initial_cluster == DEFAULT_INITIAL_CLUSTER:
        config = replace(config, initial_cluster="")
    if config.initial_cluster_state == "":
        config = replace(config, initial_cluster_state="new")
    if config.self_signed_cert_validity_years == 0:
        config = replace(config, self_signed_cert_validity_years=1)
    return finished(config)


def _flags_of(table: _Table) -> dict[str, object]:
    fields: dict[str, object] = {}
    for flag in FLAGS:
        value = table.take(flag.name) if flag.in_file else None
        if value is None:
            continue
        go_type = _GO_TYPE_OF.get(flag.name, _GO_TYPES[flag.kind])
        owner = "configJSON" if flag.kind in (Kind.URLS, Kind.ORIGINS, Kind.FEATURES) else "Config"
        typed = _typed(value, go_type, f"configYAML.{owner}.{flag.name}")
        if flag.kind in (Kind.URLS, Kind.ORIGINS, Kind.FEATURES):
            assert isinstance(typed, str), flag
            if typed:
                fields[flag.field] = _read_list(flag.name, flag.kind, typed)
        elif flag.name == "host-whitelist":
            assert isinstance(typed, str), flag
            if typed:
                fields[flag.field] = tuple(sorted(set(typed.split(","))))
        elif flag.field:
            fields[flag.field] = typed
    return fields


def _read_list(name: str, kind: Kind, text: str) -> object:
    if kind is Kind.FEATURES:
        try:
            return FeatureGates().with_text(text)
        except FeatureError as error:
            raise ConfigError(str(error)) from None
    try:
        if kind is Kind.URLS:
            return parse_urls(text.split(","))
        return (text,) if text == "*" else tuple(url.text for url in parse_unique_urls(text))
    except UrlError as error:
        # One of the keys goes by another name in this message of etcd's.
        shown = "advertise-peer-urls" if name == "advertise-client-urls" else name
        raise UrlKeyError(f"unexpected error setting up {shown}: {error}") from None


def _read_security(table: _Table, fields: dict[str, object], explicit: set[str]) -> None:
    for key, head in (("client-transport-security", "client_tls"), ("peer-transport-security", "peer_tls")):
        value = table.take(key)
        if value is None:
            if key in table.keys and key.startswith("peer"):
                raise ConfigError("invalid peer-transport-security")
            continue
        where = f"configYAML.configJSON.{key}"
        part = _Table(value, where, "embed.securityConfig")
        fields.update(_read(part, _SECURITY, f"securityConfig.configJSON.{key}", f"{head}."))
        if head == "peer_tls":
            explicit.update(f"peer-{name}" for name in part.keys)


def _read_discovery(table: _Table, fields: dict[str, object]) -> None:
    value = table.take("discovery-config")
    if value is None:
        return
    # The decoder names the innermost struct, then the path of keys from the top.
    path = "Config.discovery-config"
    part = _Table(value, f"configYAML.{path}", "v3discovery.DiscoveryConfig")
    fields.update(_read(part, (("token", "token", "string"),), f"DiscoveryConfig.{path}", "discovery."))
    client = part.take("client")
    if client is None:
        return
    path += ".client"
    inner = _Table(client, f"DiscoveryConfig.{path}", "clientv3.ConfigSpec")
    fields.update(_read(inner, _DISCOVERY_CLIENT, f"ConfigSpec.{path}", "discovery."))
    for key, rows, struct in (
        ("secure", _DISCOVERY_SECURE, "SecureConfig"),
        ("auth", _DISCOVERY_AUTH, "AuthConfig"),
    ):
        deeper = inner.take(key)
        if deeper is not None:
            table_of = _Table(deeper, f"ConfigSpec.{path}.{key}", f"clientv3.{struct}")
            fields.update(_read(table_of, rows, f"{struct}.{path}.{key}", "discovery."))


def _read(
    part: _Table, rows: tuple[tuple[str, str, str], ...], where: str, prefix: str
) -> Mapping[str, object]:
    fields: dict[str, object] = {}
    for key, field, go_type in rows:
        value = part.take(key)
        if value is not None:
            fields[prefix + field] = _typed(value, go_type, f"{where}.{key}")
    return fields


def _typed(value: object, go_type: str, where: str) -> object:
    """`value` as Go's decoder would store it in a field of this type, or its refusal."""
    refusal = f"{_DECODING}{_json_kind(value)} into Go struct field {where} of type {go_type}"
    if go_type == "string" and isinstance(value, str):
        return value
    if go_type == "bool" and isinstance(value, bool):
        return value
    if go_type == "[]string" and isinstance(value, list):
        for item in value:
            if not isinstance(item, str):
                what = _json_kind(item)
                raise ConfigError(f"{_DECODING}{what} into Go struct field {where} of type string")
        return tuple(value)
    bounds = _RANGES.get(go_type)
    if bounds is not None and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, float) or not bounds[0] <= value <= bounds[1]:
            raise ConfigError(f"{_DECODING}number {value} into Go struct field {where} of type {go_type}")
        return value / 1e9 if go_type == "time.Duration" else value
    raise ConfigError(refusal)


def _json_kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "object"
    return "string"
