"""`--config-file`: read as etcd 3.7.1 reads it, refused in its words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.cli.etcd.config_file import UrlKeyError, parse_file
from pyetcd.member.config import ServerConfig
from pyetcd.member.config_check import ConfigError, compaction_retention_ns, validate

DECODING = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "


def test_an_empty_file_is_the_default() -> None:
    assert parse_file(b"") == parse_file(b"# nothing\n") == ServerConfig()


def test_keys_are_the_flags_names() -> None:
    config = parse_file(
        b"""
        name: full
        data-dir: d
        listen-client-urls: http://127.0.0.1:3,http://127.0.0.1:2
        Max-Txn-Ops: 77
        compact-hash-check-time: 5000000000
        quota-backend-bytes: -1
        pre-vote: false
        cipher-suites: [B, A]
        log-outputs: [stderr]
        host-whitelist: b,a
        cors: "*"
        feature-gates: CompactHashCheck=true
        auto-compaction-mode: revision
        auto-compaction-retention: "1000"
        initial-cluster-state: ""
        self-signed-cert-validity: 0
        warning-unary-request-duration: 0
        socket-options: {reuse-port: true, reuse-address: true}
        """
    )
    assert (config.name, config.data_dir, config.max_txn_ops) == ("full", "d", 77)
    assert [url.text for url in config.listen_client_urls] == ["http://127.0.0.1:2", "http://127.0.0.1:3"]
    assert config.compact_hash_check_time_seconds == 5.0
    assert (config.quota_backend_bytes, config.quota_limit_bytes) == (-1, None)
    assert not config.pre_vote
    assert (config.cipher_suites, config.host_whitelist, config.cors) == (("B", "A"), ("a", "b"), ("*",))
    assert config.logging.outputs == ("stderr",)
    assert config.feature("CompactHashCheck")
    assert compaction_retention_ns(config) == 1000
    assert (config.initial_cluster_state, config.self_signed_cert_validity_years) == ("new", 1)
    assert config.warning_unary_request_duration_seconds == 0.3
    assert config.socket_reuse_port
    assert config.socket_reuse_address
    assert {"name", "Max-Txn-Ops"} <= config.explicit


def test_security_and_discovery_have_sections() -> None:
    config = parse_file(
        b"""
        client-transport-security:
          cert-file: c
          client-cert-auth: true
          auto-tls: true
          allowed-hostname: [a, b]
        peer-transport-security: {key-file: k, allowed-cn: [x], skip-client-san-verification: true}
        discovery-config:
          token: t
          client:
            endpoints: [e]
            dial-timeout: 3000000000
            secure: {cacert: ca, insecure-transport: false}
            auth: {username: u, password: p}
        """
    )
    assert (config.client_tls.cert_file, config.client_tls.allowed_hostnames) == ("c", ("a", "b"))
    assert config.client_tls.client_cert_auth
    assert config.client_tls.auto_tls
    assert (config.peer_tls.key_file, config.peer_tls.allowed_cns) == ("k", ("x",))
    assert config.peer_tls.skip_client_san_verify
    discovery = config.discovery
    assert (discovery.token, discovery.endpoints, discovery.dial_timeout_seconds) == ("t", ("e",), 3.0)
    assert (discovery.cacert, discovery.insecure_transport) == ("ca", False)
    assert (discovery.user, discovery.password) == ("u", "p")
    assert config.initial_cluster == "", "discovery pushes the default cluster aside"
    assert "peer-key-file" in config.explicit


def test_upstreams_sample_with_its_keys_of_old_is_taken(capfd: pytest.CaptureFixture[str]) -> None:
    config = parse_file(
        b"""
        name: 'default'
        data-dir:
        cors:
        discovery-fallback: 'proxy'
        proxy: 'off'
        proxy-read-timeout: 0
        strict-reconfig-check: false
        enable-pprof: true
        client-transport-security: {cert-file: , auto-tls: false}
        peer-transport-security: {allowed-cn: , allowed-hostname: }
        cipher-suites: [
          TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ]
        tls-max-version: 'TLS1.3'
        """
    )
    validate(config)
    assert not config.strict_reconfig_check
    assert config.enable_pprof
    assert '"keys":["discovery-fallback","proxy","proxy-read-timeout"]' in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("log-level: 5", "number into Go struct field configYAML.Config.log-level of type string"),
        (
            "heartbeat-interval: abc",
            "string into Go struct field configYAML.Config.heartbeat-interval of type uint",
        ),
        (
            "corrupt-check-time: 10m",
            "string into Go struct field configYAML.Config.corrupt-check-time of type time.Duration",
        ),
        ("enable-pprof: 'true'", "string into Go struct field configYAML.Config.enable-pprof of type bool"),
        ("max-txn-ops: -1", "number -1 into Go struct field configYAML.Config.max-txn-ops of type uint"),
        (
            "max-concurrent-streams: 5000000000",
            "number 5000000000 into Go struct field configYAML.Config.max-concurrent-streams of type uint32",
        ),
        (
            "quota-backend-bytes: 12.5",
            "number 12.5 into Go struct field configYAML.Config.quota-backend-bytes of type int64",
        ),
        (
            "listen-client-urls: 5",
            "number into Go struct field configYAML.configJSON.listen-client-urls of type string",
        ),
        (
            "peer-transport-security: 5",
            "number into Go struct field configYAML.configJSON.peer-transport-security "
            "of type embed.securityConfig",
        ),
        ("log-outputs: [1]", "number into Go struct field configYAML.Config.log-outputs of type string"),
        ("name: {a: b}", "object into Go struct field configYAML.Config.name of type string"),
        (
            "client-transport-security: {cert-file: 5}",
            "number into Go struct field securityConfig.configJSON.client-transport-security.cert-file "
            "of type string",
        ),
        (
            "discovery-config: {client: {secure: 5}}",
            "number into Go struct field ConfigSpec.Config.discovery-config.client.secure "
            "of type clientv3.SecureConfig",
        ),
        (
            "name: 2001-01-01\nmax-wals: [x]",
            "array into Go struct field configYAML.Config.max-wals of type uint",
        ),
        ("- 1", "array into Go value of type embed.configYAML"),
    ],
)
def test_a_value_of_another_type_is_refused_as_gos_decoder_does(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_file(text.encode())
    assert str(caught.value) == DECODING + error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("feature-gates: Foo=true", "unrecognized feature gate: Foo"),
        ("peer-transport-security:", "invalid peer-transport-security"),
    ],
)
def test_other_refusals_of_a_file(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_file(text.encode())
    assert str(caught.value) == error


def test_yaml_that_is_none_names_the_line() -> None:
    with pytest.raises(ConfigError, match="error converting YAML to JSON: yaml: line 2: "):
        parse_file(b"name: [1\n")


def test_urls_that_are_none_name_the_key() -> None:
    with pytest.raises(UrlKeyError) as caught:
        parse_file(b"listen-peer-urls: foo")
    expected = (
        "unexpected error setting up listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo"
    )
    assert str(caught.value) == expected


@given(st.binary(max_size=200) | st.text("name: [{}]\n-'\"&*!%@`|>?,1 ", max_size=60).map(str.encode))
def test_no_file_breaks_the_reader(data: bytes) -> None:
    try:
        config = parse_file(data)
    except (ConfigError, UrlKeyError):
        return
    assert isinstance(config, ServerConfig)
