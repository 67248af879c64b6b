"""`lock` and `elect` of real etcdctl 3.7.1 and ours: alike alone, and in one line with each other."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from both import Both
from ctl_runner import NOTE, Etcdctl, Ran

PAIRS = [("real", "ours"), ("ours", "real"), ("ours", "ours")]
STARTS = pytest.mark.parametrize("names", PAIRS, ids="-".join)


class Line:
    """Opens either program; what is still running at the end is killed."""

    def __init__(self, ctl: Etcdctl, both: Both) -> None:
        self.ctl = ctl
        self._both = both
        self._open: list[subprocess.Popen[bytes]] = []

    def open(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        command = self.ctl.command(*args) if name == "ours" else [self._both.program, *args]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # lest lines are lost between readline and communicate
            env=self.ctl.variables(),
        )
        self._open.append(process)
        return process

    def run(self, name: str, *args: str) -> Ran:
        process = self.open(name, *args)
        out, err = process.communicate(timeout=60)
        return Ran(process.returncode, out, b"".join(x for x in err.splitlines(True) if x[:1] != b"{"))

    def close(self) -> None:
        """End all, and the leases that the programs leave to run out."""
        for process in self._open:
            process.kill()
            process.communicate()
        for lease in self.ctl("lease", "list").text.splitlines()[1:]:
            self.ctl("lease", "revoke", lease)

    def await_line_of(self, prefix: str, count: int) -> list[str]:
        """Wait until so many keys stand below the prefix; returns them, the eldest first."""
        listed = [*self.ctl.command("watch", "--prefix", prefix, "--rev=1", "-w", "json")]
        watcher = subprocess.Popen(listed, stdout=subprocess.PIPE, env=self.ctl.variables())
        try:
            while True:
                got = json.loads(self.ctl("get", "--prefix", prefix, "--sort-by=create", "-w", "json").out)
                keys = [base64.b64decode(kv["key"]).decode() for kv in got.get("kvs", [])]
                if len(keys) == count:
                    return keys
                assert watcher.stdout is not None
                watcher.stdout.readline()
        finally:
            watcher.kill()
            watcher.communicate()


@pytest.fixture
def line(ctl: Etcdctl, both: Both) -> Iterator[Line]:
    made = Line(ctl, both)
    yield made
    made.close()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> tuple[int, bytes, bytes]:
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, NOTE.sub(b"", err)  # real etcdctl notes calls that it breaks off


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["lock"], 128),
        (["lock", "l", "true"], 0),
        (["lock", "l", "false"], 1),
        (["lock", "l", "--", "sh", "-c", "exit 7"], 7),
        (["lock", "l", "--", "sh", "-c", "kill -9 $$"], 255),
        (["lock", "l", "no-such-program"], 1),
        (["lock", "l", "/no/such/program"], 1),
        (["lock", "l", "--", "sh", "-c", "echo out; echo err >&2; cat; test ${ETCD_LOCK_KEY%%/*} = l"], 0),
        (["lock", "l", "--ttl=0", "true"], 0),
        (["lock", "l", "-w", "table"], 4),
        (["elect"], 128),
        (["elect", "e"], 128),
        (["elect", "e", "a", "b"], 128),
        (["elect", "-l", "e", "a"], 128),
        (["elect", "e", "a", "-w", "table"], 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_both_end_alike(line: Line, arguments: list[str], code: int) -> None:
    real = line.run("real", *arguments)
    line.ctl("del", "", "--prefix")  # what an output that cannot be has left
    assert line.run("ours", *arguments) == real
    assert real.code == code


def test_the_program_knows_the_locks_key_and_revision(line: Line) -> None:
    show = "import os; print(os.environ['ETCD_LOCK_KEY'], os.environ['ETCD_LOCK_REV'])"
    key, revision = line.run("ours", "lock", "l", sys.executable, "--", "-c", show).text.split()
    before = int(revision)
    assert key.startswith("l/")
    assert int(key[2:], 16)
    _, revision = line.run("real", "lock", "l", sys.executable, "--", "-c", show).text.split()
    assert int(revision) > before
    assert line.ctl("get", "--prefix", "l/").out == b"", "the lock was given back"
    kept = line.ctl.with_variables(ETCD_LOCK_REV="mine")("lock", "l", sys.executable, "--", "-c", show)
    assert kept.text.split()[1] == "mine"


@STARTS
def test_a_lock_is_handed_on_when_its_holder_is_told_to_stop(line: Line, names: tuple[str, str]) -> None:
    holder = line.open(names[0], "lock", "l")
    key = line_of(holder).rstrip(b"\n")
    waiter = line.open(names[1], "lock", "l")
    line.await_line_of("l/", 2)
    assert end(holder)[0] == 0
    second = line_of(waiter).rstrip(b"\n")
    assert second != key
    assert second.startswith(b"l/")
    assert end(waiter, signal.SIGINT) == (0, b"\n", b"")
    assert line.ctl("get", "--prefix", "l/").out == b""


@pytest.mark.parametrize("name", ["real", "ours"])
def test_who_waits_and_is_told_to_stop_leaves_the_line(line: Line, name: str) -> None:
    holder = line.open("ours", "lock", "l")
    line_of(holder)
    waiter = line.open(name, "lock", "l")
    line.await_line_of("l/", 2)
    assert end(waiter) == (1, b"", b"Error: context canceled\n")
    line.await_line_of("l/", 1)


def test_a_lock_is_kept_through_many_signals_until_its_program_ends(line: Line) -> None:
    script = "import sys; print('on', flush=True); sys.stdin = open(sys.argv[1]); sys.stdin.read()"
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    command = ["lock", "l", "--", sys.executable, "-c", script, f"/proc/{os.getpid()}/fd/{reader}"]
    holder = line.open("ours", *command)
    assert line_of(holder) == b"on\n"
    holder.send_signal(signal.SIGTERM)
    holder.send_signal(signal.SIGINT)
    line.await_line_of("l/", 1)
    os.close(writer)
    assert holder.wait(timeout=60) == 0
    os.close(reader)
    line.await_line_of("l/", 0)


@pytest.mark.parametrize("name", ["real", "ours"])
def test_a_lock_whose_lease_is_revoked_is_lost(line: Line, name: str) -> None:
    holder = line.open(name, "lock", "l", "--ttl=1")
    key = line_of(holder).decode().strip()
    assert line.ctl("lease", "revoke", key.removeprefix("l/")).code == 0
    out, err = holder.communicate(timeout=60)
    assert (holder.returncode, out, err) == (1, b"\n", b"Error: session expired\n")


def test_a_lock_outlives_its_ttl_while_it_is_held(line: Line) -> None:
    holder = line.open("ours", "lock", "l", "--ttl=2")
    lease = line_of(holder).decode().strip().removeprefix("l/")
    watcher = line.open("ours", "lease", "keep-alive", "--once", lease)
    watcher.communicate(timeout=60)
    waiter = line.open("ours", "lock", "l", "true", "--command-timeout=5s")
    line.await_line_of("l/", 2)
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(timeout=4)
    assert end(holder)[0] == 0
    assert waiter.wait(timeout=60) == 0


@pytest.mark.parametrize("format", ["simple", "json", "fields", "protobuf"])
def test_a_lock_is_shown_in_every_format_that_can(line: Line, format: str) -> None:
    shown: list[object] = []
    for name in ("real", "ours"):
        holder = line.open(name, "lock", "l", "-w", format)
        key = line.await_line_of("l/", 1)[0]
        out = line_of(holder)
        code, rest, err = end(holder)
        data = out + rest
        assert (code, err) == (0, b"")
        if format == "json":
            told = json.loads(data)
            assert base64.b64decode(told["kvs"][0]["key"]).decode() == key
            shown.append([list(told), list(told["header"]), list(told["kvs"][0])])
        elif format == "fields":
            shown.append([part.partition(b" : ")[0] for part in data.splitlines()])
        else:
            shown.append(bool(data))
    assert shown[0] == shown[1]


@STARTS
def test_leaders_follow_each_other_and_observers_see_them(line: Line, names: tuple[str, str]) -> None:
    observers = [line.open(name, "elect", "-l", "e") for name in names]
    first = line.open(names[0], "elect", "e", "one")
    key = line_of(first)
    assert line_of(first) == b"one\n"
    second = line.open(names[1], "elect", "e", "two")
    line.await_line_of("e/", 2)
    for observer in observers:
        assert [line_of(observer), line_of(observer)] == [key, b"one\n"]
    assert line.ctl("put", key.decode().strip(), "changed", "--ignore-lease").code == 0
    for observer in observers:
        assert [line_of(observer), line_of(observer)] == [key, b"changed\n"]
    assert end(first) == (0, b"", b"")
    key = line_of(second)
    assert line_of(second) == b"two\n"
    for observer in observers:
        assert [line_of(observer), line_of(observer)] == [key, b"two\n"]
    waiter = line.open("ours", "elect", "e", "three")
    line.await_line_of("e/", 2)
    assert end(waiter) == (1, b"", b"Error: context canceled\n")
    assert end(second, signal.SIGINT) == (0, b"", b"")
    for observer in observers:
        assert end(observer) == (0, b"", b"")
    assert line.ctl("get", "--prefix", "e/").out == b""
