"""Progress: a bar on a terminal that says what it is, nothing of it in a pipe or on one that does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from utl_runner import Made

ETCDUTL = Path(sys.executable).parent / "etcdutl"


def on_terminal(directory: Path, term: str | None, *arguments: str) -> str:
    """What a terminal shows of a run."""
    ours, theirs = os.openpty()
    environment = {"PATH": os.environ["PATH"], **({} if term is None else {"TERM": term})}
    process = subprocess.Popen(
        [str(ETCDUTL), *arguments], cwd=directory, env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 0, shown
    return shown.decode()


@pytest.mark.parametrize(("term", "bar"), [("xterm", True), ("dumb", False), (None, False)])
def test_restore_and_defrag_draw_a_bar_where_it_can_be_drawn(
    made: Made, tmp_path: Path, term: str | None, bar: bool
) -> None:
    restore = on_terminal(tmp_path, term, "snapshot", "restore", str(made.path), "--data-dir=data")
    defrag = on_terminal(tmp_path, term, "defrag", "--data-dir=data")
    for shown in (restore, defrag):
        assert ("100.00%" in shown) == ("\r" in shown.replace("\r\n", "")) == bar, shown
        lines = [line for line in shown.split("\r\n") if "\tinfo\t" in line]
        assert len(lines) >= 2, "log lines stand on lines of their own"
        assert all(line.startswith("20") for line in lines), lines


def test_a_pipe_has_nothing_of_it(made: Made, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm"}
    command = [str(ETCDUTL), "snapshot", "restore", str(made.path), "--data-dir=data"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "%" not in done.stderr
    assert "\r" not in done.stderr
