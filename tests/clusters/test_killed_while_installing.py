"""A follower that is killed while a snapshot takes the place of its database is as the others after the next
start, whatever it was just about."""

from __future__ import annotations

import time

from conftest import Start

from pyetcd.proto.rpc_pb2 import PutRequest, TxnRequest, TxnResponse

LIMITS = {"snapshot_count": 100, "snapshot_catchup_entries": 10}
RECEIVING, SAVED, APPLYING = (
    "receiving database snapshot",
    "received and saved database snapshot",
    "applying snapshot",
)
# What it is killed at, and how much later. It needs the snapshot until its log has the marker.
KILLS = ((RECEIVING, 0.0), (RECEIVING, 0.02), (SAVED, 0.0), (APPLYING, 0.0), (APPLYING, 0.03))
STEP_SECONDS = 5.0


def large(first: int) -> TxnRequest:
    request = TxnRequest()
    for number in range(first, first + 100):
        put = PutRequest(key=b"large/%06d" % number, value=bytes(1000))
        request.success.add().request_put.CopyFrom(put)
    return request


def test_a_follower_killed_while_it_installs_a_snapshot_goes_on(start: Start) -> None:
    cluster = start("ours", 3, **LIMITS)
    leader, behind = cluster.leader(), cluster.follower()
    for number in range(200):  # 20 MB
        leader.client.ask("KV/Txn", large(100 * number), TxnResponse)
    behind.kill()
    for number in range(500):
        leader.client.put(b"many/%d" % (number % 50), b"%d" % number)
    kills = 0
    for step, later in KILLS:
        cluster.begin_restart(behind)
        if not behind.output.wait(step, STEP_SECONDS):
            behind.kill()  # it has all it needs
            break
        time.sleep(later)  # into the midst of it
        behind.kill()
        kills += 1
    assert kills >= 3
    cluster.restart(behind)
    leader.client.put(b"last", b"")
    cluster.same_hashes()
