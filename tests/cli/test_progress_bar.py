"""A progress bar is seen on terminals, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pyetcd.cli.progress_bar import ProgressBar


@contextmanager
def terminal(columns: int) -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo terminal."""
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def drawn(columns: int, done: int, total: int, *, in_bytes: bool = False) -> str:
    with terminal(columns) as (ours, theirs):
        with open(theirs, "w", closefd=False) as out:
            bar = ProgressBar(total, in_bytes=in_bytes, out=out)
            bar.advance(done)
            bar.close()
            bar.close()
        text = ""
        while not text.endswith("\n"):  # which is the last that is drawn; a terminal gives it in parts
            text += os.read(ours, 4096).decode()
    last = text.rstrip("\r\n").split("\r")[-1]
    assert last.endswith("\x1b[K"), "what was drawn before is wiped out"
    return last.removesuffix("\x1b[K")


@pytest.fixture(autouse=True)
def term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_sees_counts_a_bar_and_the_rate() -> None:
    line = drawn(100, 30, 120)
    assert line.startswith("30 / 120 [=========>------------------------------]  25.00% ")
    assert line.endswith("/s")


def test_bytes_are_shown_in_units_that_people_read() -> None:
    assert drawn(100, 2_500_000, 2_500_000, in_bytes=True).startswith("2.5 MB / 2.5 MB [=====")


def test_a_bar_is_full_at_its_end_and_never_fuller() -> None:
    assert f"[{'=' * 40}] 100.00% " in drawn(100, 120, 120)
    assert f"[{'=' * 40}] 100.00% " in drawn(100, 150, 120)


@pytest.mark.parametrize("columns", [1, 10, 25, 40, 79])
def test_a_line_fits_its_terminal(columns: int) -> None:
    assert len(drawn(columns, 50, 100)) <= max(columns - 1, 1)


def test_nothing_is_known_of_a_total_of_zero() -> None:
    assert drawn(100, 5, 0).startswith("5 / 0 [----")


@pytest.mark.parametrize("kind", ["", "dumb"])
def test_a_terminal_that_cannot_move_its_cursor_sees_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TERM", kind)
    with terminal(80) as (ours, theirs), open(theirs, "w", closefd=False) as out:
        bar = ProgressBar(10, out=out)
        bar.advance(5)
        bar.close()
        os.set_blocking(ours, False)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)


def test_a_pipe_sees_nothing() -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as out:
        bar = ProgressBar(10, out=out)
        bar.advance(10)
        bar.close()
    assert os.read(reader, 10) == b""
    os.close(reader)
