"""Power fails at any moment: the member as a whole, log, database and all, has what was acknowledged.

A member runs in this process over a disk that remembers what was synced (`crash_power`). Its whole history
is known. Then it is started again from what the disk may have kept at many moments; from one of these it
goes on, and power fails again.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from crash_member import ROUNDS, SEED
from crash_power import Image, PowerAppender, PowerFiles
from google.protobuf.message import Message

from pyetcd import logs
from pyetcd.cluster.datadir import DataDirError
from pyetcd.member import snapshots
from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.member.opening import CannotOpen, open_member
from pyetcd.mvcc.answer import Answer, finish
from pyetcd.peer.wire import PeerWire
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from pyetcd.storage.bolt import DatabaseError
from pyetcd.storage.wal import WalError

SEGMENT_BYTES = 16 << 10
GENERATIONS = 3
REQUESTS = 400
CUTS = 8
DEADLINE_SECONDS = 60.0
RAFT = InternalRaftRequest
KINDS: dict[type[Message], int] = {
    PutRequest: RAFT.PUT_FIELD_NUMBER,
    DeleteRangeRequest: RAFT.DELETE_RANGE_FIELD_NUMBER,
    TxnRequest: RAFT.TXN_FIELD_NUMBER,
    CompactionRequest: RAFT.COMPACTION_FIELD_NUMBER,
    LeaseGrantRequest: RAFT.LEASE_GRANT_FIELD_NUMBER,
    LeaseRevokeRequest: RAFT.LEASE_REVOKE_FIELD_NUMBER,
}
State = dict[bytes, tuple[bytes, int, int]]  # value, mod revision and lease by key
NOWHERE = cast(PeerWire, SimpleNamespace(server=None))  # a member without others dials nobody


@dataclass(frozen=True, slots=True)
class Told:
    """What clients had been told when the disk had seen `mark` operations."""

    mark: int
    revision: int
    compacted: int
    leases: frozenset[int]
    revoked: frozenset[int]


@dataclass
class Past:
    """All that ever happened to a member: its keys at each revision, and what clients were told when."""

    states: dict[int, State] = field(default_factory=lambda: {1: {}})
    granted: set[int] = field(default_factory=set)  # or asked for
    doomed: set[int] = field(default_factory=set)  # their revocation was asked for
    told: list[Told] = field(default_factory=lambda: [Told(0, 1, 0, frozenset(), frozenset())])

    def at(self, mark: int) -> Told:
        return [each for each in self.told if each.mark <= mark][-1]

    def goes_on_from(self, told: Told, revision: int, leases: frozenset[int]) -> None:
        """Forget what was lost."""
        self.states = {number: state for number, state in self.states.items() if number <= revision}
        self.doomed -= leases
        self.told = [Told(0, revision, told.compacted, leases, told.revoked)]


def config_of(directory: Path, fsync: bool = True) -> ServerConfig:
    return ServerConfig(
        data_dir=str(directory),
        snapshot_count=40,
        snapshot_catchup_entries=10,
        max_wals=1,
        max_snapshots=2,
        backend_batch_interval_seconds=0.003,
        backend_batch_limit=25,
        unsafe_no_fsync=not fsync,
    )


async def until(happened: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_SECONDS
    while not happened():
        assert loop.time() < deadline, "did not happen in time"
        await asyncio.sleep(0.001)


@asynccontextmanager
async def running(files: PowerFiles, config: ServerConfig, chance: random.Random) -> AsyncIterator[Member]:
    """A member that leads. In the end it is dropped as by a crash: nothing is written any more."""
    loop = asyncio.get_running_loop()
    logs.attach(loop)
    failures: list[BaseException] = []
    appender = PowerAppender(files, loop, chance)
    executor = ThreadPoolExecutor(2)
    opened = open_member(config, files, executor, appender, chance, segment_bytes=SEGMENT_BYTES)
    member = Member(config, opened, loop, int(loop.time() * 1000), NOWHERE, failures.append, lambda: None)
    appender.on_news = member.on_wake
    member.start()
    try:
        await until(lambda: member.reads_are_current)
        yield member
    finally:
        appender.close()
        await member.stop()
        executor.shutdown()
        logs.attach(None)
    assert not failures


class Clients:
    """Requests of all kinds, several under way at any time, and the past they make."""

    def __init__(self, member: Member, files: PowerFiles, past: Past, chance: random.Random) -> None:
        self.member = member
        self.files = files
        self.past = past
        self.chance = chance
        self.under_way = 0
        self.keys = [b"k%02d" % number for number in range(30)]

    async def run(self, requests: int) -> None:
        for _ in range(requests):
            await until(lambda: not self.member.backend.full)
            self.send(*self.next())
            self.member.end_of_turn()
            while self.under_way > self.chance.randrange(12):
                await asyncio.sleep(0)
        await until(lambda: self.under_way == 0)

    def next(self) -> tuple[Message, Callable[[State, int], None]]:
        """A request, and what it does to the keys."""
        chance = self.chance
        choice = chance.random()
        value = chance.randbytes(chance.choice([5, 100, 700]))
        if choice < 0.5:
            return self.put(chance.choice(self.keys), value, 0)
        if choice < 0.65:
            moved = chance.randrange(1000)
            amounts = {b"left": b"%d" % (1000 - moved), b"right": b"%d" % moved}
            puts = [RequestOp(request_put=PutRequest(key=key, value=new)) for key, new in amounts.items()]

            def move(state: State, revision: int) -> None:
                state.update({key: (new, revision, 0) for key, new in amounts.items()})

            return TxnRequest(success=puts), move
        if choice < 0.75:
            first = chance.choice(self.keys)

            def delete(state: State, revision: int) -> None:
                for key in [key for key in state if first <= key < b"l"]:
                    del state[key]

            return DeleteRangeRequest(key=first, range_end=b"l"), delete
        if choice < 0.8:
            return self.compaction()
        live = sorted(self.past.told[-1].leases - self.past.doomed)
        if choice < 0.88 or not live:
            id = chance.randrange(1, 1 << 40)
            self.past.granted.add(id)
            return LeaseGrantRequest(ID=id, TTL=1000), lambda state, revision: None
        id = chance.choice(live)
        if choice < 0.95:
            return self.put(b"leased/%d" % chance.randrange(20), value, id)
        self.past.doomed.add(id)

        def revoke(state: State, revision: int) -> None:
            for key in [key for key, (_, _, lease) in state.items() if lease == id]:
                del state[key]

        return LeaseRevokeRequest(ID=id), revoke

    def put(self, key: bytes, value: bytes, lease: int) -> tuple[Message, Callable[[State, int], None]]:
        def effect(state: State, revision: int) -> None:
            state[key] = (value, revision, lease)

        return PutRequest(key=key, value=value, lease=lease), effect

    def compaction(self) -> tuple[Message, Callable[[State, int], None]]:
        revision = max(self.past.told[-1].revision - self.chance.randrange(10, 60), 1)
        return CompactionRequest(revision=revision), lambda state, number: None

    def send(self, request: Message, effect: Callable[[State, int], None]) -> None:
        def done(token: None, answer: Answer | None, error: Exception | None) -> None:
            self.under_way -= 1
            if error is not None:
                assert isinstance(error, EtcdError), error
                return  # compacted already, or the lease has just been revoked
            assert answer is not None
            self.answered(request, effect, answer.revision)

        self.under_way += 1
        self.member.propose(KINDS[type(request)], request.SerializeToString(), request, done, None)

    def answered(self, request: Message, effect: Callable[[State, int], None], revision: int) -> None:
        past, last = self.past, self.past.told[-1]
        assert last.revision <= revision <= last.revision + 1
        state = dict(past.states[last.revision])
        effect(state, revision)
        assert revision > last.revision or state == past.states[revision]
        past.states[revision] = state
        compacted, leases, revoked = last.compacted, last.leases, last.revoked
        if isinstance(request, CompactionRequest):
            compacted = max(compacted, request.revision)
        elif isinstance(request, LeaseGrantRequest):
            leases |= {request.ID}
        elif isinstance(request, LeaseRevokeRequest):
            leases -= {request.ID}
            revoked |= {request.ID}
        past.told.append(Told(len(self.files.operations), revision, compacted, leases, revoked))


def keys_of(member: Member, revision: int) -> State:
    work = member.store.range(RangeRequest(key=b"\0", range_end=b"\0", revision=revision))
    answer = work if isinstance(work, Answer) else finish(work)
    found = RangeResponse.FromString(b"".join(answer.body))
    return {kv.key: (kv.value, kv.mod_revision, kv.lease) for kv in found.kvs}


def check(member: Member, past: Past, told: Told) -> tuple[int, frozenset[int]]:
    """Everything that had been told is there, nothing is that never happened. The revision and the leases."""
    revision = member.store.revision
    assert told.revision <= revision <= max(past.states), "an acknowledged write is lost"
    assert keys_of(member, 0) == past.states[revision]
    compacted = max(member.store.compact_revision, 0)
    assert compacted >= told.compacted
    base = max(compacted, 1)
    state = dict(past.states[base])
    if base < revision:
        if compacted > 0:
            assert keys_of(member, base) == state
        for change in member.store.events(base + 1).read(revision, 1 << 20):
            if change.deleted:
                del state[change.key]
            else:
                kv = KeyValue.FromString(change.record)
                state[kv.key] = (kv.value, kv.mod_revision, kv.lease)
        assert state == past.states[revision], "the history leads to the present"
    leases = frozenset(finish(member.leases.lessor.ids_by_expiry()))
    assert told.leases - past.doomed <= leases, "an acknowledged lease is lost"
    assert leases <= past.granted - told.revoked, "a revoked lease is back"
    return revision, leases


HOW = ("none", "all", "some", "some")


def cuts_of(files: PowerFiles, end: int, chance: random.Random) -> list[int]:
    """Moments to fail at: any, and those beside changes of names, of which there are few."""
    names = [
        at for at, each in enumerate(files.operations[:end]) if each.kind in ("rename", "unlink", "link")
    ]
    chosen = [chance.randrange(end + 1) for _ in range(CUTS * ROUNDS)]
    chosen += [at + chance.randrange(3) for at in chance.sample(names, min(len(names), CUTS * ROUNDS))]
    return sorted(min(at, end) for at in chosen)


async def live_and_die(directory: Path, seed: int, fsync: bool = True) -> None:
    chance = random.Random(seed)
    past = Past()
    root = directory / "0"
    root.mkdir()
    seen: set[str] = set()
    for generation in range(GENERATIONS):
        files = PowerFiles(root)
        config = config_of(root / "data", fsync)
        async with running(files, config, chance) as member:
            clients = Clients(member, files, past, chance)
            await clients.run(REQUESTS)
            end = len(files.operations)
        seen |= {f"{each.kind} {(each.other or each.name)[-4:]}" for each in files.operations[:end]}
        image, done = Image(files), 0
        cuts = cuts_of(files, end, chance)
        last = chance.randrange(len(cuts))
        for at, cut in enumerate(cuts):
            for operation in files.operations[done:cut]:
                image.advance(operation)
            done = cut
            found = directory / f"{generation}-{at}"
            image.lose_power(chance, chance.choice(HOW), found)
            told = past.at(cut)
            async with running(PowerFiles(found), config_of(found / "data"), chance) as member:
                revision, leases = check(member, past, told)
            if at == last:
                root = found
                survived = told, revision, leases
            else:
                shutil.rmtree(found)
        past.goes_on_from(*survived)
    assert seen >= {"rename .wal", "unlink .wal", "rename snap", "unlink snap"}, "all of it happened"


@pytest.mark.parametrize("seed", range(SEED, SEED + 2 * ROUNDS))
def test_whenever_power_fails_everything_acknowledged_is_there(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "PURGE_SECONDS", 0.02)
    asyncio.run(live_and_die(tmp_path, seed))


def test_a_member_that_does_not_sync_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of these tests does lose what is not synced."""
    monkeypatch.setattr(snapshots, "PURGE_SECONDS", 0.02)
    with pytest.raises((AssertionError, WalError, DatabaseError, DataDirError, CannotOpen)):
        asyncio.run(live_and_die(tmp_path, SEED, fsync=False))
