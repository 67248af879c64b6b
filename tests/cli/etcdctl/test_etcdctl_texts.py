"""Help, unknown commands and flags, and what etcdctl loads to start: no server needed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from ctl_runner import Etcdctl

HELP_LINE = 'Use "etcdctl options" for a list of global command-line options (applies to all commands).\n'


@pytest.fixture
def ctl() -> Etcdctl:
    return Etcdctl("127.0.0.1:1")


def test_the_version_is_etcds(ctl: Etcdctl) -> None:
    assert ctl("version").text == "etcdctl version: 3.7.1\nAPI version: 3.7\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"], ["--", "get", "a"]])
def test_help_lists_the_commands_by_group(ctl: Etcdctl, arguments: list[str]) -> None:
    ran = ctl(*arguments)
    assert ran.code == 0
    assert "\n\nUsage:\n  etcdctl [command]\n\nKey-value commands\n  compaction  " in ran.text
    assert ran.text.endswith(f"more information about a command.\n{HELP_LINE}")


@pytest.mark.parametrize(
    "arguments", [["get", "--help"], ["get", "a", "-h"], ["help", "get"], ["--help", "get", "--limit=x"]]
)
def test_help_for_a_command_shows_its_flags(ctl: Etcdctl, arguments: list[str]) -> None:
    ran = ctl(*arguments)
    if "--limit=x" in arguments:
        assert ran.code == 1, "cobra reads all flags before it thinks of help"
        return
    assert ran.code == 0
    assert "\nUsage:\n  etcdctl get [options] <key> [range_end] [flags]\n\nFlags:\n" in ran.text
    assert "\n      --limit int            " in ran.text
    assert ' (default "l")\n' in ran.text
    assert ran.text.endswith(HELP_LINE)


@pytest.mark.parametrize("arguments", [["lease"], ["lease", "nonsense"], ["lease", "--help"]])
def test_a_group_of_commands_explains_itself(ctl: Etcdctl, arguments: list[str]) -> None:
    ran = ctl(*arguments)
    assert ran.code == 0
    assert "\nUsage:\n  etcdctl lease [command]\n\nAvailable Commands:\n  grant       " in ran.text


def test_inherited_flags_have_their_own_heading(ctl: Etcdctl) -> None:
    assert "\n\nGlobal Flags:\n      --cluster   " in ctl("endpoint", "status", "--help").text


def test_the_global_flags_are_listed_by_options(ctl: Etcdctl) -> None:
    ran = ctl("options")
    assert ran.text.startswith(
        "The following options can be passed to any command:\n\n      --auth-jwt-token string  "
    )
    assert "\n  -w, --write-out string  " in ran.text
    assert "(default [127.0.0.1:2379])\n" in ran.text
    assert "(default 5s)\n" in ran.text


def test_an_unknown_command_is_answered_with_what_it_may_have_been(ctl: Etcdctl) -> None:
    ran = ctl("getx")
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.decode() == (
        'Error: unknown command "getx" for "etcdctl"\n\nDid you mean this?\n\tget\n\n'
        "Run 'etcdctl --help' for usage.\n"
    )
    ran = ctl("nonsense")
    assert ran.err.decode() == (
        'Error: unknown command "nonsense" for "etcdctl"\nRun \'etcdctl --help\' for usage.\n'
    )


def test_what_may_have_been_meant_comes_in_etcds_order_and_never_help(ctl: Etcdctl) -> None:
    suggested = ctl("a").err.decode().partition("Did you mean this?\n")[2].partition("\n\n")[0].split()
    assert suggested == ["alarm", "auth"]
    suggested = ctl("al").err.decode().partition("Did you mean this?\n")[2].partition("\n\n")[0].split()
    assert suggested == [], "alarm is the only one that begins so"
    suggested = ctl("co").err.decode().partition("Did you mean this?\n")[2].partition("\n\n")[0].split()
    assert suggested == ["compaction", "completion"]
    assert "\thelp\n" not in ctl("helpp").err.decode()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["-w", "json", "lease", "k"], "keep-alive"),
        (["get", "-w", ""], "fields json protobuf simple table yaml"),
        (["get", "--write-out", "p"], "protobuf"),
        (["get", "--write-out", "="], "fields json protobuf simple table yaml"),
        (["get", "--write-out", "=", "ta"], "table"),
        (["check", "perf", "--load", "x"], "xLarge"),
        (["check", "--load", "x"], ""),
        (["lock", "--tt"], "--ttl"),
        (["get", "--decode", ""], "k8s"),
        (["to"], "top"),
        (["top", "--on"], "--once"),
        (["snapshot", ""], "save"),
        (["completion", "f"], "fish"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_takes_the_completion_script_and_completes_with_it(
    ctl: Etcdctl, tmp_path: Path, words: list[str], offered: str
) -> None:
    script = tmp_path / "completion"
    script.write_bytes(ctl("completion", "bash").out)
    line = " ".join(f"'{word}'" for word in ["etcdctl", *words])
    ask = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _etcdctl_complete;"
        ' echo "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split()[: len(offered.split()) or None] == offered.split()


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_other_shells_scripts_hold_every_command_and_the_values_of_flags(ctl: Etcdctl, shell: str) -> None:
    text = ctl("completion", shell).text
    names = ("make-mirror", "datascale", "grant-permission", "max-txn-ops", "write-out", "protobuf", "xLarge")
    assert [name for name in names if name not in text] == []


def test_a_command_may_be_shortened_while_it_is_the_only_one(ctl: Etcdctl) -> None:
    assert ctl("ver").text == ctl("version").text
    assert ctl("lease", "gr").err == b"Error: lease grant command needs TTL argument\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["get", "--nonsense", "a"], "unknown flag: --nonsense"),
        (["get", "-z", "a"], "unknown shorthand flag: 'z' in -z"),
        (["get", "-hz", "a"], "unknown shorthand flag: 'z' in -z"),
        (["get", "-é"], "unknown shorthand flag: 'Ã' in -é"),
        (["get", "a", "--limit"], "flag needs an argument: --limit"),
        (["get", "a", "-w"], "flag needs an argument: 'w' in -w"),
        (["get", "---a"], "bad flag syntax: ---a"),
        (
            ["get", "--limit", "x", "a"],
            'invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["get", "--prefix=maybe", "a"],
            'invalid argument "maybe" for "--prefix" flag: strconv.ParseBool:'
            ' parsing "maybe": invalid syntax',
        ),
        (
            ["--dial-timeout", "5", "get", "a"],
            'invalid argument "5" for "--dial-timeout" flag: time: missing unit in duration "5"',
        ),
        (
            ["--endpoints", '"a', "get", "a"],
            'invalid argument "\\"a" for "--endpoints" flag: parse error on line 1, column 3:'
            ' extraneous or missing " in quoted-field',
        ),
    ],
)
def test_a_bad_flag_is_named_and_followed_by_the_usage(
    ctl: Etcdctl, arguments: list[str], error: str
) -> None:
    ran = ctl(*arguments)
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.decode().startswith(f"Error: {error}\nUsage:\n  etcdctl get ")
    assert ran.err.endswith(b"(RangeStream)\n\n")


def test_an_unknown_help_topic_is_told(ctl: Etcdctl) -> None:
    ran = ctl("help", "nonsense")
    assert ran.code == 0
    assert ran.err.startswith(b"Unknown help topic [`nonsense`]\nUsage:\n  etcdctl [command]\n")


# Commands, as far as they get without a server. Each is one run in which nothing else may have been loaded.
RUNS = (
    ("version",),
    ("get", "a"),
    ("put", "a", "b"),
    ("txn", "-i"),
    ("watch", "-i"),
    ("lease", "grant", "5"),
    ("member", "list"),
    ("member", "add", "a", "--peer-urls=http://a:1"),
    ("move-leader", "1"),
    ("alarm", "list"),
    ("endpoint", "status", "-w", "table"),
    ("endpoint", "hashkv", "-w", "json"),
)
HEAVY = {
    "asyncio": "30 ms; and nothing here waits for two things at once",
    "google": "90 ms with etcd's descriptors; proto.lite does with 1 ms",
    "grpc": "100 ms; the wire's Channel calls",
    "logging": "notes are two lines",
    "argparse": "command reads what cobra reads",
    "typing": "5 ms, needed by no running code",
    "dataclasses": "10 ms with what it imports",
    "yaml": "20 ms; for `-w yaml` alone",
    "json": "answers are written as Go writes them",
    "socket": "the wire dials",
    "ssl": "the wire does that",
    "threading": "only for what is asked at once",
    "pathlib": "one file name is no path",
}


@pytest.mark.parametrize("arguments", RUNS, ids=" ".join)
def test_only_what_is_needed_is_loaded(arguments: tuple[str, ...]) -> None:
    """Start-up is imports: a budget of modules, which does not depend on the machine, and what costs most."""
    script = (
        "import sys\nbefore = set(sys.modules)\n"
        "from pyetcd.cli.etcdctl import main\n"
        f"main(['etcdctl', '--endpoints=127.0.0.1:1', '--command-timeout=1ms', *{arguments!r}])\n"
        "sys.stderr.write(' '.join(sorted(set(sys.modules) - before)))"
    )
    program = [sys.executable, "-c", script]
    ran = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    loaded = ran.stderr.splitlines()[-1].split()
    assert "pyetcd.cli.etcdctl.main" in loaded
    allowed = {"threading"} if arguments[0] == "watch" else set()  # its lines are read beside its events
    heavy = {name.partition(".")[0] for name in loaded} & set(HEAVY) - allowed
    assert not heavy, {name: HEAVY[name] for name in heavy}
    assert not any(name.endswith("_pb2") for name in loaded)
    assert len(loaded) < 55


def redirected(ctl: Etcdctl, arguments: str, how: str) -> subprocess.CompletedProcess[str]:
    line = " ".join(shlex.quote(word) for word in ctl.command()) + f" {arguments} {how}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, env=ctl.variables())


@pytest.mark.parametrize("arguments", ["version", "help get", "options", "completion fish"])
def test_output_that_cannot_be_written_is_an_error(ctl: Etcdctl, arguments: str) -> None:
    ran = redirected(ctl, arguments, ">/dev/full")
    assert (ran.returncode, ran.stderr) == (1, "Error: write /dev/stdout: no space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "how", "code"),
    [
        ("version", ">&-", 0),
        ("help", ">&-", 0),
        ("get", "2>&-", 128),
        ("txn", "<&-", 3),
        ("put a", "<&-", 128),
    ],
)
def test_what_was_closed_is_done_without(ctl: Etcdctl, arguments: str, how: str, code: int) -> None:
    ran = redirected(ctl, arguments, how)
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr


def test_an_empty_variable_is_one_that_is_not_known() -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    script = "from pyetcd.cli.etcdctl import main; main(['etcdctl', 'txn', '--command-timeout=1ms'])"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**variables, "ETCDCTL_CERT": "", "ETCDCTL_KEY": ""},
        check=False,
    )
    told = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    assert {line["environment-variable"] for line in told} == {"ETCDCTL_CERT=", "ETCDCTL_KEY="}
    assert {line["msg"] for line in told} == {"unrecognized environment variable"}
