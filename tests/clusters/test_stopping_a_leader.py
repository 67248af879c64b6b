"""SIGTERM to a leader: it hands leadership on before it ends."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

from client_streams import KeepingAlive, Watching
from cluster import Cluster, until
from cluster_leases import grant
from cluster_load import Load
from conftest import ROUNDS, Start
from programs import GO, OURS

# Until another leads, and until the process is gone. Real etcd first waits for its clients' connections.
BOUNDS = {OURS: (0.5, 1.5), GO: (1.5, 3.0)}
WITH_STREAMS = {OURS: (0.5, 1.5), GO: (15.0, 15.0)}


def test_a_leader_that_is_stopped_hands_over_at_once(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    with Load(cluster, watching=False) as load:  # real etcd waits seconds for clients to end their watches
        for _ in range(2 * ROUNDS):
            load.wait_writes(20)
            stop_leader(cluster, BOUNDS[cluster.leader().kind])
    cluster.same_hashes()


def stop_leader(cluster: Cluster, bounds: tuple[float, float], *, restart: bool = True) -> None:
    leader, follower = cluster.leader(), cluster.follower()
    status = follower.client.status()
    began = time.monotonic()
    leader.signal(signal.SIGTERM)
    until(lambda: follower.client.status().leader not in (0, status.leader), "another leads", 10)
    moved = time.monotonic() - began
    now = follower.client.status()
    code = leader.wait_end()
    stopped = time.monotonic() - began
    assert moved < bounds[0]
    assert stopped < bounds[1]
    assert now.raftTerm == status.raftTerm + 1, "leadership is transferred, nobody waits for a timeout"
    assert code in (0, -signal.SIGTERM)
    if restart:
        cluster.restart(leader)


def test_streams_neither_keep_a_leader_nor_end_with_it_elsewhere(mixture: str, start: Start) -> None:
    """Watches, and leases that clients keep alive, at each member: those at the others go on."""
    cluster = start(mixture, 3)
    leader = cluster.leader()
    seconds = 2
    with ExitStack() as stack:
        watches = {m: stack.enter_context(Watching(m, b"watched/")) for m in cluster.members}
        leases = {m: grant(m.client, seconds) for m in cluster.members}
        alive = {m: stack.enter_context(KeepingAlive(m, leases[m], 0.1)) for m in cluster.members}
        for member, lease in leases.items():
            member.client.put(b"leased/" + member.name.encode(), b"x", lease)
            alive[member].wait(0)
        leader.client.put(b"watched/a", b"before")
        for watch in watches.values():
            watch.wait(b"before")
        stop_leader(cluster, WITH_STREAMS[leader.kind], restart=False)
        moved = time.monotonic()
        others = cluster.others(leader)
        others[0].client.put(b"watched/a", b"after")
        for member in others:
            watches[member].wait(b"after")
            assert watches[member].seen == [b"before", b"after"]
            alive[member].wait(moved)
        for stream in (watches[leader], alive[leader]):
            until(lambda of=stream: of.ended is not None, "what the leader served has ended")  # type: ignore[misc]
        ended = b"leased/" + leader.name.encode()
        until(lambda: others[0].client.get(ended) is None, "a lease that nobody keeps alive ends")
        for member in others:
            assert member.client.get(b"leased/" + member.name.encode()) == b"x"
            alive[member].wait(time.monotonic())
            assert {ttl for ttl, _ in alive[member].renewed} == {seconds}
    cluster.restart(leader)
    cluster.same_hashes()
