"""How long a cluster is without a leader when its leader is killed: from the signal until a survivor names
another. The member comes back before the next round."""

from __future__ import annotations

import time

from bench.cluster import Cluster
from bench.results import Comparison
from bench.rounds import Settings, both_clusters, progress
from bench.servers import ServerFailed
from bench.workloads import ELECT, ELECT_TITLE, ELECTION, ELECTIONS_PER_ROUND, MEMBERS

POLL_SECONDS = 0.002
ELECTION_TIMEOUT_SECONDS = 30.0


def elections(settings: Settings) -> Comparison:
    comparison = Comparison(ELECT, ELECT_TITLE)
    rounds = settings.rounds * ELECTIONS_PER_ROUND
    with both_clusters(settings, MEMBERS) as clusters:
        for number in range(1, rounds + 1):
            for kind, cluster in clusters.items():
                seconds = election(cluster)
                comparison.note(kind, ELECTION, seconds)
                progress(f"{ELECT} {number}/{rounds} {kind:6}  {seconds:.2f} s")
    return comparison


def election(cluster: Cluster) -> float:
    """Kill the leader; seconds until another is known. Raises ServerFailed."""
    leader = cluster.leader()
    known = leader.status()
    assert known is not None, "it has just answered"
    survivors = [member for member in cluster.members if member is not leader]
    began = time.monotonic()
    leader.kill()
    while time.monotonic() - began < ELECTION_TIMEOUT_SECONDS:
        for member in survivors:
            status = member.status()
            if status is not None and status.leader not in (0, known.header.member_id):
                seconds = time.monotonic() - began
                leader.begin()
                leader.wait_healthy()
                return seconds
        time.sleep(POLL_SECONDS)
    raise ServerFailed(f"{cluster.kind}: no new leader in {ELECTION_TIMEOUT_SECONDS} s")
