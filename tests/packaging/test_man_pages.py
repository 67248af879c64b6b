"""Man pages: every command and flag is on them, and groff sets them without a complaint."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import man_pages

from pyetcd.cli.command import Command
from pyetcd.cli.etcd.flag_table import FLAGS
from pyetcd.cli.etcdctl.tree import root as etcdctl_root
from pyetcd.cli.etcdutl.tree import root as etcdutl_root

NAMES = ("etcd.1", "etcdctl.1", "etcdutl.1")


def set_by_groff(name: str) -> str:
    if shutil.which("groff") is None:
        pytest.skip("no groff")
    command = ["groff", "-man", "-Tascii", "-P-cbou", "-ww", "-rLL=200n"]
    page = man_pages.pages()[name]
    done = subprocess.run(command, input=page, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def every(command: Command) -> Iterator[Command]:
    yield command
    for each in command.commands:
        yield from every(each)


@pytest.mark.parametrize("name", NAMES)
def test_groff_has_nothing_to_say_against_it(name: str) -> None:
    text = set_by_groff(name)
    assert f"{name[:-2].upper()}(1)" in text
    for section in ("NAME", "SYNOPSIS", "OPTIONS", "SEE ALSO"):
        assert f"\n{section}\n" in text


def test_every_flag_of_etcd_that_its_help_shows_is_there() -> None:
    text = set_by_groff("etcd.1")
    shown = [flag for flag in FLAGS if flag.section]
    assert len(shown) > 100
    for flag in shown:
        assert f"--{flag.name}" in text


@pytest.mark.parametrize(("name", "tree"), [("etcdctl.1", etcdctl_root()), ("etcdutl.1", etcdutl_root())])
def test_every_command_with_every_flag_is_there(name: str, tree: Command) -> None:
    text = set_by_groff(name)
    commands = [each for each in every(tree) if each.run is not None and each.parent is not None]
    assert len(commands) > 5
    for command in commands:
        title = " ".join([*command.path.split(" ")[1:]])
        assert f"\n   {title}" in text, title
        for flag in [*command.flags, *tree.persistent]:
            assert flag.hidden or flag.name == "help" or f"--{flag.name}" in text, flag.name


def test_text_that_looks_like_roff_stays_text() -> None:
    assert man_pages.escaped(".TH 'x' \\n") == "\\&.TH \\(aqx\\(aq \\en"
