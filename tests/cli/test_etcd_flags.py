"""The command line of `etcd`: each text and exit code here is what etcd 3.7.1 answers to the same line."""

import json
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import pytest

from pyetcd import logs
from pyetcd.cli.etcd import main
from pyetcd.cli.etcd.assemble import with_fields
from pyetcd.cli.etcd.flag_table import BY_NAME, FLAGS, SECTIONS, Kind
from pyetcd.cli.etcd.host import Host
from pyetcd.logs.sinks import Writer
from pyetcd.member.config import ServerConfig

CLIENT = ["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:0"]


class Etcd:
    """Runs `main` with a server that only keeps its configuration."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.config: ServerConfig | None = None
        self.out = ""
        self.err = ""

    async def run(self, config: ServerConfig, host: Host) -> int:
        self.config = config
        return 0

    def __call__(self, *arguments: str, **environment: str) -> int:
        self.config = None
        code = main(["etcd", *arguments], environment)
        self.out, self.err = self._capfd.readouterr()
        return code

    def started(self, *arguments: str, **environment: str) -> ServerConfig:
        assert self(*arguments, **environment) == 0, self.err
        assert self.config is not None
        return self.config

    def lines(self) -> list[tuple[str, str]]:
        """Level and message of what was logged."""
        return [(line["level"], line["msg"]) for line in self.objects()]

    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.err.splitlines()]

    def refusal(self) -> object:
        return next(line["error"] for line in self.objects() if line["msg"] == "failed to verify flags")


@pytest.fixture
def etcd(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Etcd]:
    monkeypatch.chdir(tmp_path)
    runner = Etcd(capfd)
    module = ModuleType("pyetcd.cli.etcd.run")
    module.run = runner.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyetcd.cli.etcd.run", module)
    logs.setup("info", "json", [Writer(2)])
    yield runner
    logs.setup("info", "json", [Writer(2)])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--nope"], "flag provided but not defined: -nope"),
        (["-nope=1"], "flag provided but not defined: -nope"),
        (["--name"], "flag needs an argument: -name"),
        (["---x"], "bad flag syntax: ---x"),
        (["--=x"], "bad flag syntax: --=x"),
        (["--pre-vote=maybe"], 'invalid boolean value "maybe" for -pre-vote: parse error'),
        (["--heartbeat-interval=abc"], 'invalid value "abc" for flag -heartbeat-interval: parse error'),
        (["--heartbeat-interval=-1"], 'invalid value "-1" for flag -heartbeat-interval: parse error'),
        (["--max-wals="], 'invalid value "" for flag -max-wals: parse error'),
        (
            ["--heartbeat-interval=99999999999999999999"],
            'invalid value "99999999999999999999" for flag -heartbeat-interval: value out of range',
        ),
        (
            ["--max-concurrent-streams=abc"],
            'invalid value "abc" for flag -max-concurrent-streams: '
            'strconv.ParseUint: parsing "abc": invalid syntax',
        ),
        (
            ["--max-concurrent-streams=5000000000"],
            'invalid value "5000000000" for flag -max-concurrent-streams: '
            'strconv.ParseUint: parsing "5000000000": value out of range',
        ),
        (["--corrupt-check-time=5"], 'invalid value "5" for flag -corrupt-check-time: parse error'),
        (
            ["--initial-cluster-state=foo"],
            'invalid value "foo" for flag -initial-cluster-state: invalid value',
        ),
        (
            ["-v2-deprecation=not-yet"],
            'invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet"',
        ),
        (
            ["--v2-deprecation=gone,xx"],
            'invalid value "gone,xx" for flag -v2-deprecation: invalid value "xx"',
        ),
        (
            ["--feature-gates=Foo=true"],
            'invalid value "Foo=true" for flag -feature-gates: unrecognized feature gate: Foo',
        ),
        (
            ["--feature-gates=AllAlpha"],
            'invalid value "AllAlpha" for flag -feature-gates: missing bool value for AllAlpha',
        ),
        (
            ["--feature-gates=AllAlpha=x"],
            'invalid value "AllAlpha=x" for flag -feature-gates: invalid value of AllAlpha=x, '
            'err: strconv.ParseBool: parsing "x": invalid syntax',
        ),
        (
            ["--listen-client-urls", "foo"],
            'invalid value "foo" for flag -listen-client-urls: '
            "URL scheme must be http, https, unix, or unixs: foo",
        ),
        (
            ["--listen-client-urls=http://127.0.0.1"],
            'invalid value "http://127.0.0.1" for flag -listen-client-urls: '
            'URL address does not have the form "host:port": http://127.0.0.1',
        ),
        (
            ["--listen-client-urls=127.0.0.1:22"],
            'invalid value "127.0.0.1:22" for flag -listen-client-urls: '
            'parse "127.0.0.1:22": first path segment in URL cannot contain colon',
        ),
        (
            ["--listen-client-urls=:22"],
            'invalid value ":22" for flag -listen-client-urls: parse ":22": missing protocol scheme',
        ),
        (
            ["--listen-client-urls=http://a:b"],
            'invalid value "http://a:b" for flag -listen-client-urls: '
            'parse "http://a:b": invalid port ":b" after host',
        ),
        (
            ["--listen-client-urls=http://127.0.0.1:1/a"],
            'invalid value "http://127.0.0.1:1/a" for flag -listen-client-urls: '
            "URL must not contain a path: http://127.0.0.1:1/a",
        ),
        (
            ["--cors=abc"],
            'invalid value "abc" for flag -cors: URL scheme must be http, https, unix, or unixs: abc',
        ),
    ],
)
def test_a_mistake_in_a_flag_is_named_with_the_usage(etcd: Etcd, arguments: list[str], text: str) -> None:
    assert etcd(*arguments) == 2
    assert etcd.err.startswith(f"{text}\nUsage:\n")
    assert etcd.out == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["foo"], '"foo" is not a valid flag'),
        (["--", "foo"], '"foo" is not a valid flag'),
        (["-", "foo"], '"-" is not a valid flag'),
        (["--version", "bar"], '"bar" is not a valid flag'),
        (["--listen-client-urls", "http://a.b:1"], "expected IP in URL for binding (http://a.b:1)"),
        (["--listen-client-urls", "http://:1"], "expected IP in URL for binding (http://:1)"),
        (
            ["--listen-client-urls="],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            ["--initial-advertise-peer-urls=http://:1"],
            '--initial-advertise-peer-urls "http://:1" must be "host:port" (unexpected empty host (http://:1))',
        ),
        (
            ["--advertise-client-urls=http://:1"],
            '--advertise-client-urls "http://:1" must be in the format "host:port", "unix:/path/to/socket" '
            'or "unixs:/path/to/socket" (unexpected empty host (http://:1))',
        ),
        (["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            ["--heartbeat-interval=300"],
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        (
            ["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (
            ["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (["--log-format=foo"], "unknown log format: foo, supported values json, console"),
        (["--log-level=foo"], 'unrecognized level: "foo"'),
        (["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (["--logger=foo"], 'unknown logger option "foo"'),
        (["--log-outputs=default,stdout"], 'multi logoutput for "default" is not supported yet'),
        (
            ["--log-outputs=/nonexistent/x"],
            'open sink "/nonexistent/x": open /nonexistent/x: no such file or directory',
        ),
        (
            ["--enable-log-rotation"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (["--tls-min-version=TLS1"], 'unexpected TLS version "TLS1" (must be one of: TLS1.2, TLS1.3)'),
        (
            ["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            ["--tls-min-version=TLS1.3", "--cipher-suites=a"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            ["--discovery-fallback=proxy"],
            'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"',
        ),
        (["--auto-compaction-mode=foo"], 'unknown auto-compaction-mode "foo"'),
        (["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (["--discovery-token=a"], "both --discovery-token and --discovery-endpoints must be set"),
        (
            ["--discovery-srv=a", "--initial-cluster=b=http://a:1"],
            "multiple discovery or bootstrap flags are set. "
            'Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"',
        ),
        (["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
        (
            ["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=-1"],
            "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
        ),
    ],
)
def test_settings_that_make_no_sense_end_with_1(etcd: Etcd, arguments: list[str], text: str) -> None:
    assert etcd(*arguments) == 1
    assert etcd.refusal() == text
    running = next(line for line in etcd.objects() if line["msg"] == "Running: ")
    assert running["args"] == ["etcd", *arguments]
    assert not any(level == "error" for level, _ in etcd.lines())


def test_forms_of_a_flag_and_the_last_one_wins(etcd: Etcd) -> None:
    config = etcd.started(
        *CLIENT,
        "--name=a",
        "-name",
        "b",
        "--force-new-cluster",
        "--pre-vote=F",
        "-snapshot-count=0x10",
        "--auto-compaction-retention",
        "5",
        "--corrupt-check-time=1h30m",
        "--initial-cluster-token=x",
        "--initial-cluster-token=y",
        "--v",
        "--cipher-suites=b,a",
        "--host-whitelist=b,a,b",
        "--feature-gates=AllBeta=false",
        "--feature-gates=CompactHashCheck=true",
    )
    assert config.name == "b"
    assert (config.force_new_cluster, config.pre_vote) == (True, False)
    assert (config.snapshot_count, config.corrupt_check_time_seconds) == (16, 5400.0)
    assert config.initial_cluster_token == "y"
    assert (config.cipher_suites, config.host_whitelist) == (("b", "a"), ("a", "b"))
    assert config.feature("CompactHashCheck")
    assert not config.feature("FastLeaseKeepAlive")
    assert {"name", "v", "pre-vote"} <= config.explicit


@pytest.mark.parametrize(
    ("arguments", "compared"),
    [
        ([], True),
        (["--corrupt-check-time=0s"], True),
        (["--feature-gates=CompactHashCheck=false"], True),
        (["--corrupt-check-time=1h"], False),
        (["--compact-hash-check-time=10s"], False),
        (["--feature-gates=CompactHashCheck=true"], False),
        (["--corrupt-check-time=1h", "--feature-gates=InitialCorruptCheck=true"], True),
        (["--feature-gates=InitialCorruptCheck=false"], False),
        (["--feature-gates=AllAlpha=true"], True),
    ],
)
def test_members_are_compared_at_the_start_unless_a_later_comparison_is_chosen(
    etcd: Etcd, arguments: list[str], compared: bool
) -> None:
    config = etcd.started(*arguments)
    assert config.feature("InitialCorruptCheck") is compared


def test_a_name_alone_names_data_directory_and_cluster(etcd: Etcd) -> None:
    config = etcd.started("--name", "infra0")
    assert config.data_dir == "infra0.etcd"
    assert config.initial_cluster == "infra0=http://localhost:2380"
    assert ("warn", "'data-dir' was empty; using default") in etcd.lines()


def test_listening_everywhere_advertises_the_machines_address(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyetcd.cli.etcd.default_host.default_host", lambda: ("10.1.2.3", ""))
    config = etcd.started("--name=a", "--listen-peer-urls=http://0.0.0.0:2480")
    assert [url.text for url in config.initial_advertise_peer_urls] == ["http://10.1.2.3:2480"]
    assert config.initial_cluster == "a=http://10.1.2.3:2480"
    assert [url.text for url in config.advertise_client_urls] == ["http://localhost:2379"]


def test_urls_are_sorted_and_each_kept_once(etcd: Etcd) -> None:
    config = etcd.started(
        "--listen-client-urls=unix://a.b:1,http://127.0.0.1:2,http://127.0.0.1:2,https://127.0.0.1:2",
        "--advertise-client-urls=http://127.0.0.1:2",
        "--cert-file=c",
        "--key-file=k",
    )
    assert [url.text for url in config.listen_client_urls] == [
        "http://127.0.0.1:2",
        "https://127.0.0.1:2",
        "unix://a.b:1",
    ]
    assert config.listen_client_urls[2].socket_path == "a.b:1"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--listen-client-urls=https://127.0.0.1:0", "--advertise-client-urls=https://127.0.0.1:0"],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:0 "
            "with HTTPS scheme",
        ),
        (
            [*CLIENT, "--listen-client-http-urls=http://127.0.0.1:0"],
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://127.0.0.1:0",
        ),
        (
            ["--listen-metrics-urls=https://127.0.0.1:0"],
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (
            ["--auto-compaction-retention=5d"],
            'error parsing CompactionRetention: time: unknown unit "d" in duration "5d"',
        ),
    ],
)
def test_what_is_found_at_the_start_is_fatal(etcd: Etcd, arguments: list[str], text: str) -> None:
    assert etcd(*arguments) == 1
    assert (etcd.objects()[-1]["level"], etcd.objects()[-1]["error"]) == ("fatal", text)
    assert etcd.config is None


def test_deprecated_flags_are_said_to_be(etcd: Etcd) -> None:
    config = etcd.started("--max-snapshots=7", "--v2-deprecation=gone")
    assert (config.max_snapshots, config.v2_deprecation) == (7, "write-only")
    warnings = [text for level, text in etcd.lines() if level == "warn"]
    assert "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8." in warnings
    assert (
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. "
        "The default value is enforced, ignoring user input." in warnings
    )


def test_a_setting_without_effect_is_said_to_be(etcd: Etcd) -> None:
    etcd.started("--backend-bbolt-freelist-type=array", "--memory-mlock=false")
    named = [line["flag"] for line in etcd.objects() if "has no effect" in str(line["msg"])]
    assert named == ["--backend-bbolt-freelist-type"]


def test_the_first_lines_of_a_start(etcd: Etcd) -> None:
    etcd.started("--raft-read-timeout=1s", "--feature-gates=LeaseCheckpoint=true")
    assert etcd.lines()[:4] == [
        ("info", "raft-read-timeout increased to minimum value: 5s"),
        ("warn", "Running http and grpc server on single port. This is not recommended for production."),
        (
            "warn",
            "Detected that checkpointing is enabled without persistence. "
            "Consider enabling feature gate LeaseCheckpointPersist",
        ),
        (
            "warn",
            "it isn't recommended to use default name, please set a value for --name. "
            "Note that etcd might run into issue when multiple members have the same default name",
        ),
    ]
    assert ("info", "Initialize and start etcd server") in etcd.lines()


def test_secrets_are_not_logged(etcd: Etcd) -> None:
    etcd(
        "--discovery-password=hush",
        "--discovery-user",
        "me:hush",
        "foo",
        ETCD_ROOT_PASSWORD="hush",
    )
    assert "hush" not in etcd.err
    config = etcd.started("--discovery-password=hush", ETCD_DISCOVERY_USER="me:hush", ETCD_X_PASSWORD="hush")
    assert config.discovery.password == "hush"
    assert "hush" not in etcd.err
    assert "hush" not in repr(config)


def test_logs_go_where_they_are_sent(etcd: Etcd, tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    etcd.started("--log-outputs", f"stdout,{path}", "--log-format=console", "--log-level=WARN")
    assert etcd.err == ""
    assert "\twarn\t" in etcd.out
    assert "\tinfo\t" not in etcd.out
    assert path.read_text() == etcd.out


def test_a_data_directory_of_somebody_else_is_looked_at(etcd: Etcd, tmp_path: Path) -> None:
    (tmp_path / "d" / "lost+found").mkdir(parents=True)
    (tmp_path / "d" / "member").mkdir()
    etcd.started("--data-dir=d")
    assert ("warn", "found invalid file under data directory") in etcd.lines()
    assert ("info", "server has already been initialized") in etcd.lines()
    (tmp_path / "d" / "proxy").mkdir()
    assert etcd("--data-dir=d") == 1
    assert etcd.lines()[-1] == ("fatal", "invalid datadir; both member and proxy directories exist")
    (tmp_path / "file").write_text("")
    assert etcd("--data-dir=file") == 1
    assert etcd.objects()[-1]["error"] == "open file: not a directory"


def test_help_goes_to_stdout_and_shows_every_flag(etcd: Etcd) -> None:
    for form in ("-h", "--help", "-help"):
        assert etcd(form) == 0
        assert etcd.err.startswith("Usage:\n\n  etcd [flags]\n")
    shown = [line.split()[0] for line in etcd.out.splitlines() if line.startswith("  --")]
    assert shown == [f"--{flag.name}" for section in SECTIONS for flag in FLAGS if flag.section == section]
    assert "  --max-txn-ops '128'\n    " in etcd.out
    assert "FastLeaseKeepAlive=true|false (BETA - default=true)" in etcd.out


def test_version_begins_with_etcds_line(etcd: Etcd) -> None:
    assert etcd("--version") == 0
    first, *rest = etcd.out.splitlines()
    assert first == "etcd Version: 3.7.1"
    assert [line.partition(":")[0] for line in rest] == ["Git SHA", "Go Version", "Go OS/Arch"]
    assert etcd.err == ""


def test_every_flag_has_a_field_of_its_kind() -> None:
    """Set each flag's field to a value of its kind: no path is misspelt, no type mixed up."""
    samples: dict[Kind, object] = {Kind.BOOL: True, Kind.DURATION: 1.5, Kind.STRING: "x", Kind.CHOICE: "new"}
    kinds = {
        Kind.BOOL: bool,
        Kind.DURATION: float,
        Kind.STRING: str,
        Kind.CHOICE: str,
        Kind.INT: int,
        Kind.UINT: int,
        Kind.UINT32: int,
        Kind.MILLISECONDS: int,
    }
    leaves = set(_leaves(ServerConfig(), ""))
    for flag in FLAGS:
        if not flag.field:
            continue
        assert flag.field in leaves, flag.name
        default = _at(ServerConfig(), flag.field)
        assert type(default) is kinds.get(flag.kind, type(default)), flag.name
        changed = with_fields(ServerConfig(), {flag.field: samples.get(flag.kind, default)})
        assert _at(changed, flag.field) == samples.get(flag.kind, default)
    assert leaves - {flag.field for flag in FLAGS} == {
        "client_tls.allowed_cns",
        "client_tls.self_signed",
        "peer_tls.self_signed",
        "client_tls.skip_client_san_verify",
        "explicit",
        "v2_deprecation",
    }
    assert len({flag.variable for flag in FLAGS}) == len(FLAGS) == len(BY_NAME)


def _leaves(part: object, prefix: str) -> Iterator[str]:
    assert is_dataclass(part)
    for item in fields(part):
        value = getattr(part, item.name)
        if item.name in ("client_tls", "peer_tls", "discovery", "logging", "audit", "tracing"):
            yield from _leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name


def _at(part: object, path: str) -> object:
    for name in path.split("."):
        part = getattr(part, name)
    return part


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ETCD_NAME": "bb"}, ("info", "recognized and used environment variable")),
        ({"ETCD_FOO": "1"}, ("warn", "unrecognized environment variable")),
        ({"ETCD_VERSION": "1"}, ("warn", "cannot set special environment variable")),
        ({"ETCD_UNSUPPORTED_ARCH": "amd64"}, ("warn", "unrecognized environment variable")),
    ],
)
def test_the_environment_is_read_and_reported(
    etcd: Etcd, environment: dict[str, str], expected: tuple[str, str]
) -> None:
    config = etcd.started(**environment)
    assert etcd.lines()[0] == expected
    assert config.name == environment.get("ETCD_NAME", "default")


def test_a_flag_and_its_variable_together_are_refused(etcd: Etcd) -> None:
    assert etcd("--name", "cc", ETCD_NAME="bb") == 1
    last = etcd.objects()[-1]
    assert last["level"] == "fatal"
    assert last["environment-variable"] == "ETCD_NAME"
    assert "conflicting environment variable is shadowed by corresponding command-line flag" in str(
        last["msg"]
    )


def test_a_mistake_in_a_variable_ends_with_1(etcd: Etcd) -> None:
    assert etcd(ETCD_HEARTBEAT_INTERVAL="abc", ETCD_ZZZ="1") == 1
    assert etcd.refusal() == 'invalid value "abc" for ETCD_HEARTBEAT_INTERVAL: parse error'
    assert etcd.lines()[0] == ("warn", "unrecognized environment variable")


def test_a_configuration_file_puts_flags_and_variables_aside(etcd: Etcd, tmp_path: Path) -> None:
    (tmp_path / "etcd.yml").write_text("name: filed\nmax-snapshots: 3\n")
    config = etcd.started("--config-file=etcd.yml", "--name=flagged", ETCD_NAME="x", ETCD_NONSENSE="1")
    assert config.name == "filed"
    assert "unrecognized environment variable" not in etcd.err
    loaded = next(
        line for line in etcd.objects() if str(line["msg"]).startswith("loaded server configuration")
    )
    assert loaded["path"] == "etcd.yml"
    assert any(text.startswith("--max-snapshots is deprecated") for _, text in etcd.lines())
    assert etcd.started(ETCD_CONFIG_FILE="etcd.yml").name == "filed"


def test_a_configuration_file_that_cannot_be_read(etcd: Etcd, tmp_path: Path) -> None:
    assert etcd("--config-file=nosuch") == 1
    assert etcd.refusal() == "open nosuch: no such file or directory"
    (tmp_path / "bad.yml").write_text("listen-peer-urls: foo")
    assert etcd("--config-file=bad.yml") == 1
    assert etcd.err.startswith("unexpected error setting up listen-peer-urls: URL scheme must be http")
