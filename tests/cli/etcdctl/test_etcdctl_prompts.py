"""What people see who type: prompts of real etcdctl 3.7.1 and ours, on a terminal."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest
from both import Both
from ctl_runner import Etcdctl

ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
WAIT_SECONDS = 60.0
NOTE = re.compile(rb'^\{"level".*\n', re.MULTILINE)
Typed = list[tuple[bytes, bytes]]  # after this prompt, these keys


def on_terminal(ctl: Etcdctl, command: list[str], typed: Typed) -> tuple[int, bytes]:
    """Run the command on a terminal of its own; returns its exit code and all that was to be seen."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**ctl.variables(), "TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    try:
        for prompt, keys in typed:
            while not seen.endswith(prompt):
                read = _read(ours, 1)
                assert read, f"waiting for {prompt!r}, seen {seen!r}"
                seen += read
            if not prompt.endswith(b"\n"):
                _await_silence(ours)
            os.write(ours, keys)
        while read := _read(ours, 4096):
            seen += read
        code = process.wait(timeout=WAIT_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return code, NOTE.sub(b"", seen)


def _read(terminal: int, count: int) -> bytes:
    """Nothing once the program has ended, which the kernel calls an error."""
    try:
        return os.read(terminal, count)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def _await_silence(terminal: int) -> None:
    """Wait until what is typed is not shown any more: real etcdctl asks first, and then turns that off."""
    end = time.monotonic() + WAIT_SECONDS
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        assert time.monotonic() < end, "what is typed would be shown"
        time.sleep(0.001)  # there is no event to wait for


Same = Callable[[list[str], Typed], tuple[int, bytes]]


@pytest.fixture
def same(ctl: Etcdctl, both: Both) -> Iterator[Same]:
    def run(arguments: list[str], typed: Typed) -> tuple[int, bytes]:
        ctl("user", "delete", "u")
        real = on_terminal(ctl, [both.program, *arguments], typed)
        ctl("user", "delete", "u")
        assert on_terminal(ctl, ctl.command(*arguments), typed) == real
        return real

    yield run
    ctl("user", "delete", "u")


FIRST, AGAIN = b"Password of u: ", b"Type password of u again for confirmation: "


@pytest.mark.parametrize(
    ("typed", "code", "end"),
    [
        ([(FIRST, b"pw\n"), (AGAIN, b"pw\n")], 0, b"User u created\r\n"),
        ([(FIRST, b"pw\n"), (AGAIN, b"px\n")], 128, b"Error: given passwords are different\r\n"),
        ([(FIRST, b"\n")], 128, b"Error: empty password\r\n"),
        ([(FIRST, b"\x04")], 128, b"Error: empty password\r\n"),
        ([(FIRST, b"\x03")], 255, FIRST),
    ],
    ids=["twice the same", "two different ones", "none", "end of input", "interrupt"],
)
def test_a_new_password_is_asked_for_twice(same: Same, typed: Typed, code: int, end: bytes) -> None:
    told, seen = same(["user", "add", "u"], typed)
    assert told == code
    assert seen.endswith(end)
    assert b"pw" not in seen, "what is typed is not shown"


def test_the_password_of_the_caller_is_asked_for(same: Same) -> None:
    assert same(["--user=u", "get", "k"], [(b"Password: ", b"pw\n")]) == (0, b"Password: \r\n")
    assert same(["--user=u", "get", "k"], [(b"Password: ", b"\x03")])[0] == 255


def test_the_password_for_the_destination_of_a_mirror_is_asked_for(same: Same) -> None:
    line = ["make-mirror", "--dest-user=u", "127.0.0.1:1", "--dial-timeout=200ms"]
    code, seen = same(line, [(b"Destination Password: ", b"pw\n")])
    assert (code, seen) == (2, b"Destination Password: \r\nError: context deadline exceeded\r\n")


def test_a_transaction_is_asked_for_part_by_part(same: Same) -> None:
    typed = [
        (b"compares:\r\n", b'value("k") = "x"\n\n'),
        (b"success requests (get, put, del):\r\n", b"put k 1\n\n"),
        (b"failure requests (get, put, del):\r\n", b"get k\n\n"),
    ]
    code, seen = same(["txn", "-i"], typed)
    assert (code, seen.splitlines()[-2:]) == (0, [b"FAILURE", b""])
    assert same(["txn", "-i"], [(b"compares:\r\n", b"\x04")]) == (3, b"compares:\r\nError: EOF\r\n")
