"""Snapshots that are on their way for long, or several at once, hold nobody up and are not held in memory."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import grpc
from cluster import Cluster, until
from conftest import Start
from hostile import Pretender
from members import Member
from proxies import State

from pyetcd.proto.rpc_pb2 import PutRequest, TxnRequest, TxnResponse
from pyetcd.raft import ConfState, Message, MessageType, Snapshot, SnapshotMetadata
from pyetcd.storage.bolt import meta

LIMITS = {"snapshot_count": 100, "snapshot_catchup_entries": 10}
MANY = 300  # entries; the log in memory is cut every hundred
LARGE_TXNS = 400
TXN_BYTES = 100_000
DATABASE_BYTES = LARGE_TXNS * TXN_BYTES  # at least
GROWTH_BYTES_MAX = 24 << 20  # of a leader's memory while it sends
PUT_SECONDS_MAX = 0.75  # on a busy machine
PAUSE_SECONDS = 0.01  # between two puts
DELAY_SECONDS = 0.008  # for every 64 KiB, so that a snapshot takes some seconds
LOOK_SECONDS = 0.02
SENT = "sent database snapshot"
RECEIVING = "receiving database snapshot"
SENDING = "sending database snapshot"
SLOW_PUTS = 100  # acknowledged while one snapshot is on its way


def fill(member: Member) -> None:
    for number in range(LARGE_TXNS):
        request = TxnRequest()
        for each in range(TXN_BYTES // 1000):
            put = PutRequest(key=b"large/%06d" % (number * 1000 + each), value=bytes(1000))
            request.success.add().request_put.CopyFrom(put)
        member.client.ask("KV/Txn", request, TxnResponse)
    for number in range(MANY):
        member.client.put(b"many/%d" % (number % 50), b"%d" % number)


class Memory:
    """How much a member has of its own, in bytes, looked at all the time; what it maps of its database is the
    system's to keep or not."""

    def __init__(self, member: Member) -> None:
        assert member.process is not None
        self._status = Path(f"/proc/{member.process.pid}/status")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.before = self.most = self._now()

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        return self.most - self.before

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self.most = max(self.most, self._now())

    def _now(self) -> int:
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def count_of(member: Member, text: str) -> int:
    return member.log.read_text().count(text)


class Puts:
    """One after the other through one member: when each was acknowledged, and how long that took."""

    def __init__(self, member: Member) -> None:
        self._client = member.client
        self._stopping = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seconds: list[float] = []
        self.trouble = ""

    def __enter__(self) -> Puts:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            began = time.monotonic()
            try:
                self._client.put(b"put", b"%d" % len(self.seconds))
            except grpc.RpcError as error:
                self.trouble = str(error)
                return
            with self._news:
                self.seconds.append(time.monotonic() - began)
                self._news.notify_all()

    def wait(self, more: int) -> None:
        with self._news:
            wanted = len(self.seconds) + more
            assert self._news.wait_for(lambda: len(self.seconds) >= wanted, 20), self.trouble


def test_two_followers_are_sent_snapshots_at_once(mixture: str, start: Start) -> None:
    cluster = start(mixture, 5, **LIMITS)
    leader = cluster.leader()
    behind = cluster.others(leader)[:2]
    for member in behind:
        member.kill()
    fill(leader)
    with Puts(leader) as puts, Memory(leader) as memory:
        for member in behind:
            cluster.begin_restart(member)
        until(lambda: leader.log.read_text().count(SENT) >= 2, "two snapshots arrive")
        for member in behind:
            member.wait_ready()
        puts.wait(20)
    unharmed(cluster, leader, puts, memory)
    assert all(member.output.has("applied snapshot") for member in behind)


def test_a_follower_that_takes_its_snapshot_slowly_holds_nobody_up(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, proxied=True, **LIMITS)
    assert cluster.network is not None
    leader, behind = cluster.leader(), cluster.follower()
    cluster.isolate(behind, State.CUT)
    fill(leader)
    with Puts(leader) as puts, Memory(leader) as memory:
        cluster.heal()
        cluster.network.between([leader.name], [behind.name], State.OPEN, delay=DELAY_SECONDS)
        until(lambda: leader.output.has(SENDING), "a snapshot is on its way")
        puts.wait(SLOW_PUTS)
        assert not leader.output.has(SENT), "that was not slow"
        until(lambda: leader.output.has(SENT), "the snapshot arrives", 60)
        cluster.heal()
        puts.wait(20)
    unharmed(cluster, leader, puts, memory)


def test_a_snapshot_without_an_end_does_not_keep_a_leaders_out(start: Start) -> None:
    """From a member that does not lead, and is not what it seems: a learner that has joined and never was."""
    cluster = start("ours", 3, proxied=True, strict_reconfig_check="false", **LIMITS)
    leader, behind = cluster.leader(), cluster.follower()
    learner = leader.client.member_add("http://127.0.0.1:1", learner=True).member.ID
    cluster.wait_revision(leader.client.put(b"a", b"1"))
    cluster.isolate(behind, State.CUT)
    for number in range(MANY):
        leader.client.put(b"many/%d" % (number % 50), b"%d" % number)
    told = behind.client.status()
    us = Pretender(learner, told.header.member_id, told.header.cluster_id)
    metadata = SnapshotMetadata(1 << 40, told.raftTerm, ConfState(voters=(told.header.member_id,)))
    message = Message(MessageType.MsgSnap, us.to, us.id, told.raftTerm, snapshot=Snapshot(metadata, b"{}"))
    first_page = meta.encode(meta.Meta(4096, 3, 0, meta.NO_FREELIST, 1 << 30, 1), 0)
    with socket.create_connection(("127.0.0.1", behind.peer_port)) as connection:
        for piece in us.snapshot(message, [first_page]):
            connection.sendall(piece)
        until(lambda: behind.output.has(RECEIVING), "it is being received")
        cluster.heal()
        until(lambda: leader.output.has(SENT), "the leader's snapshot arrives")
    until(lambda: behind.output.has("applied snapshot"), "it is applied")
    cluster.same_hashes()


def unharmed(cluster: Cluster, leader: Member, puts: Puts, memory: Memory) -> None:
    assert not puts.trouble
    assert max(puts.seconds) < PUT_SECONDS_MAX
    assert memory.grown < GROWTH_BYTES_MAX, f"{memory.grown} bytes, of a database of {DATABASE_BYTES}"
    assert cluster.leader() is leader
    cluster.same_hashes()
