"""The transport as the third member of a cluster whose other two are real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from go_cluster import GoMember, build_etcd, free_port
from raft_member import RaftMember

from pyetcd.cluster.bootstrap import new_cluster
from pyetcd.cluster.urls import parse_urls
from pyetcd.proto import rpc_pb2 as rpc
from pyetcd.raft import ConfState, Message, MessageType, Role, Snapshot, SnapshotMetadata

pytestmark = pytest.mark.timeout(900)  # where etcd's modules must be had first


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_etcd(tmp_path_factory.mktemp("etcd") / "etcd")


class Trio:
    """Two members of real etcd, `a` and `b`, and the third's place."""

    def __init__(self, etcd: Path, directory: Path) -> None:
        self._etcd, self._directory = etcd, directory
        self.initial = {name: f"http://127.0.0.1:{free_port()}" for name in ("a", "b", "ours")}
        self.cluster = new_cluster({name: [url] for name, url in self.initial.items()}, "etcd-cluster")
        self.go: dict[str, GoMember] = {}

    def start(self, **flags: object) -> None:
        for name in ("a", "b"):
            self.go[name] = GoMember(self._etcd, self._directory, name, self.initial, **flags)

    def id_of(self, name: str) -> int:
        return self.cluster.named(name).id

    def ours(self) -> RaftMember:
        """Our member, which knows the others and has no log."""
        local = self.cluster.named("ours")
        urls = parse_urls([self.initial["ours"]])
        member = RaftMember(local.id, self.cluster.id, urls, asyncio.get_running_loop())
        for other in self.cluster.members:
            if other.id != local.id:
                member.transport.add_peer(other.id, parse_urls(other.peer_urls))
        return member

    def with_log(self) -> RaftMember:
        """Our member, with the log that every member of a new cluster begins with."""
        member = self.ours()
        member.node.bootstrap([(each.id, b"") for each in self.cluster.members])
        return member


@pytest.fixture
def trio(etcd: Path, tmp_path: Path) -> Iterator[Trio]:
    found = Trio(etcd, tmp_path)
    yield found
    for member in found.go.values():
        member.stop()


def play(
    member: Callable[[], RaftMember], scenario: Callable[[RaftMember], Coroutine[None, None, None]]
) -> None:
    async def whole() -> None:
        ours = member()
        ours.start()
        try:
            await scenario(ours)
        finally:
            await ours.close()

    asyncio.run(whole())


async def put(member: GoMember, key: bytes, value: bytes) -> None:
    await asyncio.to_thread(member.put, key, value)


def test_a_go_leader_replicates_to_us_and_counts_our_answers(trio: Trio) -> None:
    async def scenario(ours: RaftMember) -> None:
        trio.start()
        await put(trio.go["a"], b"first", b"1")
        for number in range(50):
            await put(trio.go["b"], b"key", b"value %d" % number)
        await ours.until(lambda: ours.has_applied(b"value 49"))
        assert all(ours.transport.active_since(trio.id_of(name)) is not None for name in trio.go)
        lead = ours.node.status().soft_state.lead
        gone = "b" if lead == trio.id_of("a") else "a"
        left = "a" if gone == "b" else "b"
        trio.go.pop(gone).stop()
        await put(trio.go[left], b"after", b"committed with us")
        await ours.until(lambda: ours.has_applied(b"committed with us"))

    play(trio.with_log, scenario)


def test_we_lead_two_go_members_which_read_what_we_send(trio: Trio) -> None:
    async def scenario(ours: RaftMember) -> None:
        trio.start()
        await put(trio.go["a"], b"first", b"1")
        await ours.until(lambda: ours.has_applied(b"first"))
        lead = ours.node.status().soft_state.lead
        if lead != trio.id_of("ours"):
            leader = next(name for name in trio.go if trio.id_of(name) == lead)
            request = rpc.MoveLeaderRequest(targetID=trio.id_of("ours"))
            await asyncio.to_thread(
                trio.go[leader].call, "Maintenance/MoveLeader", request, rpc.MoveLeaderResponse
            )
        await ours.until(lambda: ours.node.status().soft_state.role is Role.StateLeader)
        for number in range(50):
            await put(trio.go["a"], b"large %d" % number, b"x" * 1000 * number)
        await asyncio.gather(*(put(trio.go["b"], b"many", b"value %d" % number) for number in range(200)))
        await put(trio.go["b"], b"last", b"of all")
        for member in trio.go.values():
            found = await asyncio.to_thread(
                member.call, "KV/Range", rpc.RangeRequest(key=b"last", serializable=True), rpc.RangeResponse
            )
            while not found.kvs:
                found = await asyncio.to_thread(
                    member.call,
                    "KV/Range",
                    rpc.RangeRequest(key=b"last", serializable=True),
                    rpc.RangeResponse,
                )
            assert found.kvs[0].value == b"of all"
            assert "failed to process Raft message" not in member.printed()
            assert "lost TCP streaming connection" not in member.printed()
        assert ours.node.status().soft_state.role is Role.StateLeader
        assert MessageType.MsgProp in ours.seen

    play(trio.with_log, scenario)


def test_a_go_leader_sends_us_a_snapshot_when_its_log_no_longer_goes_back_so_far(trio: Trio) -> None:
    async def scenario(ours: RaftMember) -> None:
        await ours.until(lambda: ours.snapshots)
        snapshot, sink = ours.snapshots[0]
        assert snapshot.index > 100
        assert sink.finished
        assert not sink.aborted
        assert len(sink.data) % 4096 == 0
        assert int.from_bytes(sink.data[16:20], "little") == 0xED0CDAED  # a bolt database's first page
        await put(trio.go["a"], b"later", b"than the snapshot")
        await ours.until(lambda: ours.has_applied(b"than the snapshot"))

    trio.start(snapshot_count=10, snapshot_catchup_entries=5)
    for number in range(300):
        trio.go["a"].put(b"key %d" % number, b"x" * 2000)
    play(trio.ours, scenario)


def test_a_go_member_takes_a_snapshot_from_us(trio: Trio) -> None:
    """One so old that raft there has no use for it: it is received and acknowledged all the same."""

    class OldDatabase:
        size = 3_000_001
        closed = False

        async def read(self, offset: int, count: int) -> bytes:
            return b"d" * count

        def close(self) -> None:
            self.closed = True

    async def scenario(ours: RaftMember) -> None:
        trio.start()
        await put(trio.go["a"], b"first", b"1")
        await ours.until(lambda: ours.has_applied(b"first"))
        database, to = OldDatabase(), trio.id_of("a")
        voters = tuple(member.id for member in trio.cluster.members)
        snapshot = Snapshot(SnapshotMetadata(1, 1, ConfState(voters)), b"{}")
        status = ours.node.status()
        ours.transport.send_snapshot(
            Message(
                MessageType.MsgSnap, to=to, from_=status.id, term=status.hard_state.term, snapshot=snapshot
            ),
            database,
        )
        await ours.until(lambda: ours.reports)
        assert ours.reports == [(to, True)]
        assert database.closed
        assert '"incoming-snapshot-size-bytes":3000001' in trio.go["a"].printed()

    play(trio.with_log, scenario)


def test_we_are_told_when_we_have_been_removed(trio: Trio) -> None:
    async def scenario(ours: RaftMember) -> None:
        trio.start(strict_reconfig_check=False)
        await put(trio.go["a"], b"first", b"1")
        await ours.until(lambda: ours.has_applied(b"first"))
        request = rpc.MemberRemoveRequest(ID=trio.id_of("ours"))
        await asyncio.to_thread(trio.go["a"].call, "Cluster/MemberRemove", request, rpc.MemberRemoveResponse)
        await ours.until(lambda: ours.removed)

    play(trio.with_log, scenario)
