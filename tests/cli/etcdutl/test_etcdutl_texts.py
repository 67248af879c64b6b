"""Help, mistakes on the command line, completion: what cobra makes of them, said twice as etcdutl does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from utl_runner import Utl

ROOT_USAGE = "Usage:\n  etcdutl [command]\n\nAvailable Commands:\n  bbolt       "
GLOBAL_FLAGS = "\n\nGlobal Flags:\n      --timeout duration   "


def test_the_version_is_etcds(utl: Utl) -> None:
    assert utl("version", "whatever").out == "etcdutl version: 3.7.1\nAPI version: 3.7\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"], ["-h"]])
def test_help_is_the_usage_and_no_more(utl: Utl, arguments: list[str]) -> None:
    ran = utl(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(ROOT_USAGE)
    names = [line.split()[0] for line in ran.out.splitlines() if line.startswith("  ") and line[2] != " "]
    commands = ["bbolt", "check", "completion", "defrag", "hashkv", "help", "migrate", "snapshot", "version"]
    assert names[1:10] == commands
    assert "  -w, --write-out string   " in ran.out
    assert ran.out.endswith('\n\nUse "etcdutl [command] --help" for more information about a command.\n')


@pytest.mark.parametrize("arguments", [["snapshot"], ["sna", "nonsense"], ["help", "snapshot"]])
def test_a_group_explains_itself(utl: Utl, arguments: list[str]) -> None:
    ran = utl(*arguments)
    assert ran.out.startswith("Usage:\n  etcdutl snapshot [command]\n\nAvailable Commands:\n  restore     ")
    assert GLOBAL_FLAGS in ran.out


def test_a_commands_flags_are_shown_with_their_defaults(utl: Utl) -> None:
    text = utl("snapshot", "restore", "--help").out
    assert text.startswith(
        "Usage:\n  etcdutl snapshot restore <filename> --data-dir {output dir} [options] [flags]\n\nFlags:\n"
        "      --bump-revision uint                   "
    )
    for default in ('"default=http://localhost:2380"', '"etcd-cluster"', "10737418240", '"default"'):
        assert f" (default {default})\n" in text


def test_an_unknown_command_is_told_twice(utl: Utl) -> None:
    ran = utl("nonsense")
    unknown = 'Error: unknown command "nonsense" for "etcdutl"\n'
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"{unknown}Run 'etcdutl --help' for usage.\n{unknown}"
    assert "Did you mean this?\n\thashkv\n\nRun" in utl("h").err, "help is never what was meant"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["defrag"], 'required flag(s) "data-dir" not set'),
        (["migrate"], 'required flag(s) "data-dir", "target-version" not set'),
        (["migrate", "--data-dir=x"], 'required flag(s) "target-version" not set'),
        (["defrag", "--nonsense"], "unknown flag: --nonsense"),
        (["hashkv"], "accepts 1 arg(s), received 0"),
        (["hashkv", "a", "b"], "accepts 1 arg(s), received 2"),
        (["completion", "tcsh"], 'invalid argument "tcsh" for "etcdutl completion"'),
        (
            ["snapshot", "restore", "x", "--bump-revision=-1"],
            'invalid argument "-1" for "--bump-revision" flag:'
            ' strconv.ParseUint: parsing "-1": invalid syntax',
        ),
    ],
)
def test_a_mistake_is_told_around_the_usage(utl: Utl, arguments: list[str], error: str) -> None:
    ran = utl(*arguments)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"Error: {error}\nUsage:\n  etcdutl {arguments[0]} ")
    assert ran.err.endswith(f'(default "simple")\n\nError: {error}\n')


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["snapshot", "status"], 128, "snapshot status requires exactly one argument"),
        (["snapshot", "restore"], 128, "snapshot restore requires exactly one argument"),
        (
            ["snapshot", "restore", "x", "--mark-compacted"],
            128,
            "--mark-compacted required if --revision-bump > 0",
        ),
        (
            ["snapshot", "restore", "x", "--bump-revision=5"],
            128,
            "--mark-compacted required if --revision-bump > 0",
        ),
        (["snapshot", "status", "nowhere"], 1, "stat nowhere: no such file or directory"),
        (["hashkv", "nowhere"], 1, "stat nowhere: no such file or directory"),
        (["hashkv", "nowhere", "-w", "xml"], 4, "unsupported output format"),
        (
            ["defrag", "--data-dir=./x/"],
            1,
            "Failed to defragment etcd data[./x/] (stat x/member/snap/db: no such file or directory)",
        ),
    ],
)
def test_what_cannot_be_done_is_told_once(utl: Utl, arguments: list[str], code: int, error: str) -> None:
    ran = utl(*arguments)
    assert (ran.code, ran.out, ran.err) == (code, "", f"Error: {error}\n")


def test_bash_takes_the_completion_script_and_completes_with_it(utl: Utl, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(utl("completion", "bash").out)
    ask = (
        f"source {script}; COMP_WORDS=(etcdutl -w json snapshot re); COMP_CWORD=4; _etcdutl_complete;"
        ' echo "${COMPREPLY[@]}"; COMP_WORDS=(etcdutl defrag --d); COMP_CWORD=2; _etcdutl_complete;'
        ' echo "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "restore\n--data-dir\n", "")


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_every_command_and_flag_is_in_the_other_shells_scripts(utl: Utl, shell: str) -> None:
    text = utl("completion", shell).out
    for word in ("snapshot", "restore", "status", "hashkv", "migrate", "bump-revision", "write-out"):
        assert word in text
