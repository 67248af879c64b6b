"""Lines about slow requests: those of etcd (CLUSTERS=go proves that), and which phase the time went to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cluster import Cluster, until
from conftest import Start
from members import Member
from programs import OURS

PAUSE_SECONDS = 0.4  # of an election timeout of 1
ETCDS = {"trace_id", "operation", "detail", "duration", "start", "end", "steps", "step_count"}


@contextmanager
def others_pausing(cluster: Cluster, leader: Member) -> Iterator[None]:
    """All but the leader are frozen, and go on after PAUSE_SECONDS."""
    others = cluster.others(leader)
    for member in others:
        member.freeze()

    def go_on() -> None:
        for member in others:
            member.thaw()

    timer = threading.Timer(PAUSE_SECONDS, go_on)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def trace(member: Member, operation: str) -> dict[str, object]:
    """The first such line, which must come."""
    found: list[dict[str, object]] = []

    def there() -> bool:
        lines = (json.loads(line) for line in member.log.read_text().splitlines() if '"trace"' in line)
        found.extend(line for line in lines if line["operation"] == operation)
        return bool(found)

    until(there, f"a trace of {operation}")
    return found[0]


def test_a_put_and_a_read_that_waited_for_the_others_say_so(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3)
    leader = cluster.leader()
    leader.client.put(b"a", b"1")
    with others_pausing(cluster, leader):
        leader.client.put(b"slow", b"2")
    put = trace(leader, "put")
    assert put.keys() >= ETCDS
    assert str(put["detail"]).startswith("{key:slow; req_size:9; response_revision:3; }")
    steps = put["steps"]
    assert isinstance(steps, list)
    assert steps[0].startswith("'process raft request'  (duration: ")
    if leader.kind == OURS:
        assert put["longest-phase"] == "raft"
        assert put.keys() >= {"queue", "raft", "fsync", "apply"}
    with others_pausing(cluster, leader):
        assert leader.client.get(b"slow") == b"2"
    read = trace(leader, "range")
    assert read.keys() >= ETCDS
    assert read["detail"] == "{range_begin:slow; range_end:; response_count:1; response_revision:3; }"
    steps = read["steps"]
    assert isinstance(steps, list)
    assert steps[0].startswith("'agreement among raft nodes before linearized reading'  (duration: ")
    assert trace(leader, "linearizableReadLoop").keys() >= ETCDS
