"""What is held for long outlives the member it was begun at, when others are named too."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from ctl_runner import Etcdctl
from programs import OURS


class Held:
    """Programs that run until they are told to stop; what is left at the end is killed."""

    def __init__(self, ctl: Etcdctl) -> None:
        self.ctl = ctl
        self._open: list[subprocess.Popen[bytes]] = []

    def open(self, *args: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self.ctl.command(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=self.ctl.variables(),
        )
        self._open.append(process)
        return process

    def close(self) -> None:
        for process in self._open:
            process.kill()
            process.communicate()


def lines_of(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip(b"\n") for _ in range(count)]


def end(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    return process.returncode, b"".join(line for line in err.splitlines(True) if line[:1] != b"{")


@pytest.fixture
def held(cluster: Cluster) -> Iterator[Held]:
    made = Held(Etcdctl(",".join(f"127.0.0.1:{member.port}" for member in cluster.members)))
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), [OURS] * 3) as made:
        yield made


def test_locks_elections_and_watches_go_on_at_other_members(cluster: Cluster, held: Held) -> None:
    first = cluster.members[0]
    cluster.move_leader(first)
    holder = held.open("lock", "l", "--ttl=4")
    key, _ = lines_of(holder, 2)
    leader = held.open("elect", "e", "me")
    candidate, _ = lines_of(leader, 2)
    observer = held.open("elect", "-l", "e")
    assert lines_of(observer, 2) == [candidate, b"me"]
    watcher = held.open("watch", "w", "--rev=1")
    held.ctl("put", "w", "1")
    assert lines_of(watcher, 3) == [b"PUT", b"w", b"1"]

    first.kill()
    cluster.leader(cluster.others(first))
    assert held.ctl("put", "w", "2").text == "OK\n"
    assert lines_of(watcher, 3) == [b"PUT", b"w", b"2"], "and nothing twice"
    waiter = held.open("lock", "l", "echo", "mine")
    with pytest.raises(subprocess.TimeoutExpired):
        waiter.wait(timeout=6)
    eldest = held.ctl("get", "--prefix", "l/", "--limit=1", "--keys-only", "--sort-by=create")
    assert eldest.out.startswith(key)

    assert end(holder) == (0, b"")
    assert lines_of(waiter, 1) == [b"mine"]
    assert waiter.wait(timeout=60) == 0
    second = held.open("elect", "e", "you")
    assert end(leader) == (0, b"")
    elected = lines_of(second, 2)
    assert elected[1] == b"you"
    assert lines_of(observer, 2) == elected
    assert (end(second), end(observer)) == ((0, b""), (0, b""))
    cluster.restart(first)


def test_a_mirror_goes_on_at_another_member_of_its_source(cluster: Cluster, held: Held) -> None:
    first, last = cluster.members[0], cluster.members[2]
    held.ctl("put", "m/1", "one")
    destination = f"127.0.0.1:{last.port}"
    held.open("make-mirror", destination, "--prefix=m/", "--dest-prefix=copy/")
    watcher = held.open("watch", "--prefix", "copy/", "--rev=1")
    assert lines_of(watcher, 3) == [b"PUT", b"copy/1", b"one"]
    first.kill()
    cluster.leader(cluster.others(first))
    held.ctl("put", "m/2", "two")
    assert lines_of(watcher, 3) == [b"PUT", b"copy/2", b"two"]
    held.ctl("del", "m/1")
    assert lines_of(watcher, 3) == [b"DELETE", b"copy/1", b""]
    cluster.restart(first)


def test_a_lock_is_kept_when_the_member_it_was_taken_at_falls_silent(cluster: Cluster, held: Held) -> None:
    first = cluster.members[0]
    cluster.move_leader(cluster.members[1])
    holder = held.open("lock", "l", "--ttl=3")
    lines_of(holder, 2)
    first.freeze()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(timeout=6)
        assert end(holder) == (0, b"")
    finally:
        first.thaw()


def test_a_watch_has_itself_named_anew_after_its_server_was_started_again(tmp_path: Path) -> None:
    """Simple tokens are gone with the process that gave them."""
    with Cluster(tmp_path, [OURS]) as cluster:
        member = cluster.members[0]
        plain = Etcdctl(f"127.0.0.1:{member.port}")
        root = Etcdctl(plain.endpoint, {"ETCDCTL_USER": "root:pw"})
        assert plain("user", "add", "root:pw").code == 0
        assert plain("user", "grant-role", "root", "root").code == 0
        assert plain("auth", "enable").code == 0
        held = Held(root)
        try:
            watcher = held.open("watch", "w", "--rev=1")
            assert root("put", "w", "1").code == 0
            assert lines_of(watcher, 3) == [b"PUT", b"w", b"1"]
            member.stop()
            cluster.begin_restart(member)
            assert root("put", "w", "2", "--command-timeout=60s", "--dial-timeout=60s").code == 0
            assert lines_of(watcher, 3) == [b"PUT", b"w", b"2"]
        finally:
            held.close()
