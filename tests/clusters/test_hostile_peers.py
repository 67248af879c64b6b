"""What crashes real etcd, some of it for good, or makes it grow without bound, is refused at the peer port.

A cluster of three and a sole member, both under light load, hear every case of the table and go on: a
put and a linearizable read after each, the same leader in the same term unless a member may say what was
said, bounded memory; and after all that, and a kill of whom it was said to, nobody's data has changed. Both
clusters have a learner whose place is held by a `FakeMember`, so that hostile things can be said in the name
of a member, also on the streams that our members ask of it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster, until
from hostile import FakeMember, converse, request
from hostile_messages import UNSETTLING, Case, Scene, raft_cases
from hostile_requests import no_request_cases, path_cases, snapshot_cases, stream_cases
from hostile_streams import ANSWERS, LIES, MESSAGE, MSGAPP
from members import Member, free_port
from programs import OURS

CASES = (*raft_cases(), *snapshot_cases(), *stream_cases(), *path_cases(), *no_request_cases())
GROWTH_BYTES_MAX = 256 << 20  # beyond what a member has before: three bodies of the largest size allowed
TAKEN_BYTES_MAX = 96 << 20  # of one request: what is allowed, and what is under way
LOAD_PAUSE_SECONDS = 0.05
WAITING = 50  # connections to each member
SERVES_SECONDS = 5.0
HEARTBEAT_SECONDS = 0.2  # twice what a leader lets pass


class LightLoad:
    """Puts one key after another through one member that is not attacked, and remembers what was said."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._members = list(members)
        self._stopping = threading.Event()
        self.acknowledged: dict[bytes, bytes] = {}
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(LOAD_PAUSE_SECONDS):
            number += 1
            key, value = b"load/%d" % number, b"%d" % number
            try:
                self._members[number % len(self._members)].client.put(key, value)
            except Exception as error:
                self.failures.append(str(error))
            else:
                self.acknowledged[key] = value

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(20)


class Waiting:
    """Connections on which half a request has come, and nothing more comes, as long as the tests run."""

    def __init__(self, port: int) -> None:
        half = request("POST", "/raft", (("Content-Length", "1000000"),), None)
        self._connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(WAITING)]
        for number, connection in enumerate(self._connections):
            connection.sendall(half if number % 2 else half[:-3])

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()


@dataclass(slots=True)
class World:
    """One cluster with its load, its fake learner and the ID of a member that was removed."""

    cluster: Cluster
    fake: FakeMember
    removed: int
    load: LightLoad
    ids: dict[str, int]
    grown_from: dict[str, int]
    rounds: int = 0

    def scene(self, member: Member) -> Scene:
        status = member.client.status()
        return Scene(
            id=self.ids[member.name],
            cluster=status.header.cluster_id,
            removed=self.removed,
            learner=self.fake.id,
            other=next((id for name, id in self.ids.items() if name != member.name), 0),
            term=status.raftTerm,
            index=status.raftIndex,
        )

    def targets(self, leader: int) -> list[Member]:
        """The leader, and one that follows it, if there is one."""
        members = self.cluster.members
        return [
            next(member for member in members if self.ids[member.name] == leader),
            *[member for member in members if self.ids[member.name] != leader][:1],
        ]

    def serves(self, member: Member) -> None:
        """A write and a linearizable read."""
        self.rounds += 1
        value = b"%d" % self.rounds
        member.client.put(b"attacked", value, seconds=SERVES_SECONDS)
        assert member.client.get(b"attacked", seconds=SERVES_SECONDS) == value

    def settles(self) -> None:
        """Whoever leads, all follow, and have heard so after what was said."""
        elapsed = time.monotonic() + HEARTBEAT_SECONDS
        until(lambda: self.cluster.leader() is not None and time.monotonic() > elapsed, "a leader")

    def led(self) -> tuple[int, int]:
        status = self.cluster.members[0].client.status()
        return status.leader, status.raftTerm

    def is_bounded(self) -> None:
        for member in self.cluster.members:
            grown = resident(member) - self.grown_from[member.name]
            assert grown < GROWTH_BYTES_MAX, f"{member!r} has grown by {grown >> 20} MiB"


def resident(member: Member) -> int:
    """The most that a member has ever had in memory, in bytes."""
    assert member.process is not None
    for line in Path(f"/proc/{member.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def made(directory: Path, size: int, stack: ExitStack) -> World:
    directory.mkdir()
    cluster = stack.enter_context(Cluster(directory, [OURS] * size, strict_reconfig_check="false"))
    port = free_port()
    fake = stack.enter_context(FakeMember(port))
    fake.be_quiet()
    client = cluster.leader().client
    removed = client.member_add(f"http://127.0.0.1:{free_port()}", learner=True).member.ID
    client.member_remove(removed)
    fake.id = client.member_add(f"http://127.0.0.1:{port}", learner=True).member.ID
    for member in cluster.members:
        stack.enter_context(Waiting(member.peer_port))
    load = LightLoad(cluster.members)
    stack.callback(load.stop)
    ids = {member.name: cluster.id_of(member) for member in cluster.members}
    return World(cluster, fake, removed, load, ids, {m.name: resident(m) for m in cluster.members})


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[World]]:
    """Three members, and one alone."""
    directory = tmp_path_factory.mktemp("hostile")
    with ExitStack() as stack:
        yield [made(directory / f"of{size}", size, stack) for size in (3, 1)]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_it_is_refused_and_the_member_goes_on(case: Case, worlds: list[World]) -> None:
    for world in worlds:
        led = world.led()
        for member in world.targets(led[0]):
            scene = world.scene(member)
            heard = converse(
                member.peer_port, case.pieces(scene), seconds=case.seconds, then_end=case.then_end
            )
            said = f"{member!r} answered {heard.data[:300]!r} after {heard.sent} bytes"
            assert heard.status in case.statuses, said
            assert heard.sent < TAKEN_BYTES_MAX, said
            if case.unsettles:
                world.settles()
        world.serves(member)  # the one that follows asks the one that leads
        assert case.unsettles or world.led() == led
        world.is_bounded()


@pytest.mark.parametrize("name", LIES)
def test_a_stream_that_is_none_is_dropped_and_asked_for_again(name: str, worlds: list[World]) -> None:
    lie = LIES[name]
    for world in worlds:
        led = world.led()
        scenes = {scene.id: scene for scene in map(world.scene, world.cluster.members)}
        world.fake.say(lambda kind, to, of=scenes: lie(kind, of[to]), scenes, (MESSAGE, MSGAPP))  # type: ignore[misc]
        world.fake.be_quiet()
        for member in world.cluster.members:
            world.serves(member)
        assert world.led() == led
        world.is_bounded()


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_a_message_is_answered_with_the_leader_goes_on(name: str, worlds: list[World]) -> None:
    for world in worlds:
        led = world.led()
        world.fake.post(ANSWERS[name])
        world.serves(world.cluster.leader())
        assert world.led() == led
        world.is_bounded()


def test_after_all_that_nothing_has_changed_and_nothing_is_lost(worlds: list[World]) -> None:
    """Nor after a kill of those that were attacked, one after the other."""
    for world in worlds:
        world.load.stop()
        assert len(world.load.failures) <= len(UNSETTLING), (
            world.load.failures
        )  # lost on the way to no leader
        cluster = world.cluster
        unchanged(world)
        for member in world.targets(world.led()[0]):
            member.kill()
            cluster.restart(member)
            unchanged(world)
            left = {path.name for path in (member.data / "member" / "snap").iterdir()}
            assert left <= {"db", "db.sum"}, "nothing is left of what was not a snapshot"


def unchanged(world: World) -> None:
    expected = dict(world.load.acknowledged)
    assert expected
    world.cluster.same_hashes()
    for member in world.cluster.members:
        found = {kv.key: kv.value for kv in member.client.range(b"load/", b"load0").kvs}
        assert expected.items() <= found.items()
        members = {one.ID for one in member.client.members().members}
        assert members == {world.fake.id, *world.ids.values()}
