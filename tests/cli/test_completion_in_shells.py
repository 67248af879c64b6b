"""Completion scripts in real shells, on a terminal: what Tab makes of a line is what the program is given."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyetcd.cli.completion_scripts import script
from pyetcd.cli.etcdctl import tree as ctl_tree
from pyetcd.cli.etcdutl import tree as utl_tree

SECONDS = 30.0
# Prints what it is given; an end that no line can have, since shells echo lines.
PROGRAM = "#!/bin/sh\nprintf '<'\nprintf '[%s]' \"$@\"\nprintf '>%s\\n' END\n"
READY = 'echo REA""DY\r'

CTL = {
    "mem\tli\t": "[member][list]",
    "lease keep\t": "[lease][keep-alive]",
    "get --pre\tk": "[get][--prefix][k]",
    "user get --pre\t": "[user][get][--pre]",
    "get --write-out js\tk": "[get][--write-out][json][k]",
    "get -w js\tk": "[get][-w][json][k]",
    "get --write-out=js\tk": "[get][--write-out=json][k]",
    "-w json mem\tadd": "[-w][json][member][add]",
    "--endpoints a:1 role grant\t": "[--endpoints][a:1][role][grant-permission]",
    "snapshot sa\tsour\t": "[snapshot][save][sources.db]",
    "completion fi\t": "[completion][fish]",
    "help mem\t": "[help][member]",
    "put k sour\t": "[put][k][sources.db]",
}
UTL = {
    "bb\tsurg\tmeta val\tsour\t": "[bbolt][surgery][meta][validate][sources.db]",
    "bbolt compact sour\t--outp\tx": "[bbolt][compact][sources.db][--output][x]",
    "bbolt check --data\t": "[bbolt][check][--data]",
    "-w js\tsnapshot stat\tsour\t": "[-w][json][snapshot][status][sources.db]",
}
COMPINIT = "autoload -Uz compinit; compinit -u -D"
SETUP = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1=; source {made}"),
    "zsh": (["zsh", "-f", "-i"], f"PROMPT=; {COMPINIT}; source {{made}}"),
    "zsh, by fpath": (["zsh", "-f", "-i"], f"PROMPT=; fpath=({{home}} $fpath); {COMPINIT}"),
    "fish": (["fish", "--private"], "function fish_prompt; end; source {made}"),
}


class Terminal:
    """A shell in `home`, where the programs print what they are given."""

    def __init__(self, arguments: list[str], home: Path) -> None:
        environment = {
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
        }
        self._pid, self._fd = pty.fork()
        if not self._pid:
            os.chdir(home)
            os.execvpe(arguments[0], arguments, environment)

    def type(self, keys: str, until: str) -> str:
        """What is printed up to `until`."""
        os.write(self._fd, keys.encode())
        printed = b""
        deadline = time.monotonic() + SECONDS
        while until.encode() not in printed:
            readable, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{until!r} was not printed: {printed!r}"
            printed += os.read(self._fd, 65536)
        return printed.decode(errors="replace")

    def close(self) -> None:
        os.close(self._fd)
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)


@contextmanager
def terminal(kind: str, program: str, home: Path) -> Iterator[Terminal]:
    arguments, setup = SETUP[kind]
    shell = arguments[0]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    made = home / f"_{program}"  # the name by which zsh finds it
    made.write_text(script({"etcdctl": ctl_tree, "etcdutl": utl_tree}[program].root(), shell))
    (home / "sources.db").touch()
    (home / "bin").mkdir()
    (home / "bin" / program).write_text(PROGRAM)
    (home / "bin" / program).chmod(0o755)
    started = Terminal(arguments, home)
    try:
        started.type(f"{setup.format(made=made, home=home)}; {READY}", "READY")
        yield started
    finally:
        started.close()


@pytest.mark.parametrize("kind", SETUP)
@pytest.mark.parametrize("program", ["etcdctl", "etcdutl"])
def test_what_tab_completes_is_what_the_program_is_given(kind: str, program: str, tmp_path: Path) -> None:
    with terminal(kind, program, tmp_path) as shell:
        for keys, given in (CTL if program == "etcdctl" else UTL).items():
            printed = shell.type(f"{program} {keys}\r", ">END")
            found = re.findall(r"<(\S*)>END", printed)
            assert found == [given], (keys, printed)
