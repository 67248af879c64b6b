"""SIGTERM to a leader: it hands leadership on before it ends."""

from __future__ import annotations

import signal
import time

from cluster import Cluster, until
from cluster_load import Load
from conftest import ROUNDS, Start
from programs import GO, OURS

# Until another leads, and until the process is gone. Real etcd first waits for its clients' connections.
BOUNDS = {OURS: (0.5, 1.5), GO: (1.5, 3.0)}


def test_a_leader_that_is_stopped_hands_over_at_once(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    with Load(cluster, watching=False) as load:  # real etcd waits seconds for clients to end their watches
        for _ in range(2 * ROUNDS):
            load.wait_writes(20)
            stop_leader(cluster)
    cluster.same_hashes()


def stop_leader(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.follower()
    status = follower.client.status()
    began = time.monotonic()
    leader.signal(signal.SIGTERM)
    until(lambda: follower.client.status().leader not in (0, status.leader), "another leads", 10)
    moved = time.monotonic() - began
    now = follower.client.status()
    code = leader.wait_end()
    stopped = time.monotonic() - began
    assert moved < BOUNDS[leader.kind][0]
    assert stopped < BOUNDS[leader.kind][1]
    assert now.raftTerm == status.raftTerm + 1, "leadership is transferred, nobody waits for a timeout"
    assert code in (0, -signal.SIGTERM)
    cluster.restart(leader)
