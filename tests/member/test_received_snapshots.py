"""A snapshot of the leader's takes the place of what a member has, whatever the member is about."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from two_members import Between, ask, leading, learner_of, level, running, until
from whole_member import UnsyncedFiles, configured, content, delete, put

from pyetcd.member import snapshot_out
from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.mvcc.answer import Answer
from pyetcd.mvcc.change import Change
from pyetcd.mvcc.index import KeyIndex
from pyetcd.mvcc.watch_group import Shape, WatchStream
from pyetcd.mvcc.watch_hub import WatchHub
from pyetcd.proto import errors
from pyetcd.proto.kv_pb2 import Event
from pyetcd.proto.rpc_pb2 import (
    NOSPACE,
    AlarmRequest,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    WatchResponse,
)
from pyetcd.storage import schema

EVERYTHING = RangeRequest(key=b"\0", range_end=b"\0")
KEYS = 900  # more than are read in one slice
BEHIND = 250  # entries; the log in memory is cut every hundred


@pytest.fixture(autouse=True)
def _no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is compacted as soon as a snapshot has arrived."""
    monkeypatch.setattr(snapshot_out, "HOLD_SECONDS", 0.0)


State = tuple[tuple[bytes, bytes], ...]


def config(directory: Path, **settings: object) -> ServerConfig:
    return configured(directory, **{"snapshot_catchup_entries": 5, **settings})


class Journal:
    """Every state and every change of a store, by revision."""

    def __init__(self, member: Member) -> None:
        self._now: dict[bytes, bytes] = {kv.key: kv.value for kv in content(member)}
        self.states: dict[int, State] = {member.store.revision: self._state()}
        self.changes: list[tuple[int, bool, bytes]] = []
        member.store.watch(self._on_change, lambda revision, spans: pytest.fail("too many deletions"))

    def _state(self) -> State:
        return tuple(sorted(self._now.items()))

    def _on_change(self, revision: int, changes: list[Change]) -> None:
        for change in changes:
            self.changes.append((revision, change.deleted, change.key))
            if change.deleted:
                del self._now[change.key]
            else:
                response = RangeResponse.FromString(b"\x12" + _varint(len(change.record)) + change.record)
                self._now[change.key] = response.kvs[0].value
        self.states[revision] = self._state()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


class Streams:
    """Clients that watch a member, one watcher a stream, and read at once unless they are told not to."""

    backlog_bytes_max = 2000

    def __init__(self, member: Member) -> None:
        self.sent: dict[int, list[WatchResponse]] = {}
        self.unread: dict[int, int] = {}
        self.lazy: set[int] = set()
        loop = asyncio.get_running_loop()
        header = member.header
        self.hub = WatchHub(
            member.store,
            self,
            header,
            loop,
            random.Random(1),
            backlog_bytes_max=self.backlog_bytes_max,
        )
        member.store.watch(self.hub.on_change, self.hub.on_bulk, self.hub.restored)

    def send_many(self, messages: list[tuple[int, bytes | list[bytes]]]) -> list[int]:
        return [self._send(call, body) for call, body in messages]

    def send_fanout(self, calls: list[int], body: bytes | list[bytes]) -> list[int]:
        return [self._send(call, body) for call in calls]

    def _send(self, call: int, body: bytes | list[bytes]) -> int:
        data = body if isinstance(body, bytes) else b"".join(body)
        self.sent[call].append(WatchResponse.FromString(data))
        self.unread[call] += len(data) if call in self.lazy else 0
        return self.unread[call]

    def watch(self, call: int, start: int = 0, *, lazy: bool = False, **form: bool) -> WatchStream:
        self.sent[call], self.unread[call] = [], 0
        if lazy:
            self.lazy.add(call)
        stream = self.hub.open(call)
        self.hub.create(stream, 0, Shape(b"key", b"kez", **form), start)
        return stream

    def read_on(self, call: int, stream: WatchStream) -> None:
        self.lazy.discard(call)
        self.unread[call] = 0
        self.hub.writable(stream)

    def events(self, call: int) -> list[Event]:
        return [event for response in self.sent[call] for event in response.events]

    def told(self, call: int) -> list[tuple[int, bool, bytes]]:
        return [
            (event.kv.mod_revision, event.type == Event.DELETE, event.kv.key) for event in self.events(call)
        ]


async def write(member: Member, count: int, seed: int = 1) -> None:
    """Puts and some deletions, a few at a time."""
    rnd = random.Random(seed)
    for _ in range(count // 10):
        keys = [b"key-%03d" % rnd.randrange(KEYS) for _ in range(10)]
        await asyncio.gather(*(put(member, key, rnd.randbytes(30)) for key in keys[:9]))
        await delete(member, keys[9])


async def fall_behind(between: Between, leader: Member, other: Member) -> None:
    """Let the other one miss so much that it needs a snapshot; it hears of nothing yet."""
    between.is_open = False
    between.snapshots = 0  # the one it began with does not count
    await write(leader, BEHIND)
    assert leader.consensus._storage.first_index() > other.consensus._storage.last_index() + 1


async def same(leader: Member, other: Member) -> None:
    """Everything that members agree on."""
    await level(leader, other)
    assert content(other) == content(leader)
    assert await other.hash_kv(0) == await leader.hash_kv(0)
    leases = [
        {
            id: (lease.ttl, lease.remaining_ttl, sorted(lease.keys))
            for id, lease in member.leases.lessor._leases.items()
        }
        for member in (leader, other)
    ]
    assert leases[0] == leases[1]
    assert other.alarms.active() == leader.alarms.active()
    assert other.cluster.list() == leader.cluster.list()
    assert other.cluster.removed == leader.cluster.removed
    assert other.cluster.version == leader.cluster.version
    for member in (leader, other):
        assert list(member.store._index.keys) == sorted(member.store._index.live)


async def grant(member: Member, id: int) -> None:
    await ask(member, LeaseGrantRequest(ID=id, TTL=1000))


def test_everything_is_the_sources_and_watchers_miss_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        between = Between()
        with ThreadPoolExecutor(4) as executor:
            async with leading(between, config(tmp_path / "1"), UnsyncedFiles(), executor=executor) as leader:
                await asyncio.gather(*(put(leader, b"key-%03d" % number, b"") for number in range(KEYS)))
                for lease in (1, 2, 3):
                    await grant(leader, lease)
                    await ask(leader, PutRequest(key=b"key-leased-%d" % lease, value=b"v", lease=lease))
                beginning = await learner_of(leader)
                async with running(
                    between, config(tmp_path / "2"), UnsyncedFiles(), beginning=beginning, executor=executor
                ) as other:
                    await level(leader, other)
                    await everything(between, leader, other)

    asyncio.run(work())


async def everything(between: Between, leader: Member, other: Member) -> None:
    streams, journal = Streams(other), Journal(leader)
    first = other.store.revision + 1
    streams.watch(1)
    streams.watch(2, prev_kv=True)
    streams.watch(3, first - KEYS // 2)  # which is still reading when the snapshot comes
    asleep = streams.watch(4, lazy=True)
    streams.watch(5, first + BEHIND)  # whose time has not come
    await write(leader, 60, seed=2)
    await level(leader, other)
    assert other.store.revision > first
    await fall_behind(between, leader, other)
    await ask(leader, LeaseRevokeRequest(ID=2))
    await grant(leader, 4)
    await ask(leader, PutRequest(key=b"key-leased-1", value=b"moved", lease=4))
    await ask(leader, AlarmRequest(memberID=7, action=AlarmRequest.ACTIVATE, alarm=NOSPACE))
    reading = [asyncio.ensure_future(read_all_along(leader, other, journal, each)) for each in (False, True)]
    between.is_open, between.pause_seconds = True, 0.002
    await until(lambda: between.snapshots == 1)
    await same(leader, other)
    assert [alarm.memberID for alarm in other.alarms.active()] == [7]
    await ask(leader, AlarmRequest(memberID=7, action=AlarmRequest.DEACTIVATE, alarm=NOSPACE))
    await write(leader, 40, seed=3)  # entries behind it
    await level(leader, other)
    for task in reading:
        task.cancel()
    stale, current = await asyncio.gather(*reading)
    assert stale > 5
    assert current > 1
    assert between.snapshots == 1
    await same(leader, other)
    streams.read_on(4, asleep)
    last = leader.store.revision
    for call, since in ((1, first), (2, first), (4, first), (5, first + BEHIND)):
        expected = [change for change in journal.changes if change[0] >= since]
        await until(lambda call=call: streams.told(call)[-1:] == expected[-1:])  # noqa: B023
        assert streams.told(call) == expected, call
    await until(lambda: streams.told(3)[-1][0] == last)
    seen = [revision for revision, _, _ in streams.told(3)]
    assert seen == sorted(seen)
    assert [change for change in streams.told(3) if change[0] >= first] == journal.changes
    for event in streams.events(2):
        before = dict(journal.states[event.kv.mod_revision - 1])
        assert (event.prev_kv.value if event.HasField("prev_kv") else None) == before.get(event.kv.key)


async def read_all_along(leader: Member, other: Member, journal: Journal, linearizable: bool) -> int:
    """Read everything from `other`, over and over: each answer is the state of its revision, and no older
    than it may be. How many there were."""
    count = newest = 0
    try:
        while True:
            await asyncio.sleep(0.001)
            due = leader.store.revision if linearizable else newest
            try:
                if linearizable:
                    await other.current()
                work = other.store.range(EVERYTHING)
                answer = work if isinstance(work, Answer) else await other.jobs.run(work)
            except (errors.LEADER_CHANGED, errors.TIMEOUT):
                continue
            kvs = RangeResponse.FromString(b"".join(answer.body)).kvs
            is_right = tuple((kv.key, kv.value) for kv in kvs) == journal.states[answer.revision]
            assert is_right, f"a mixture at revision {answer.revision}"  # the difference would be huge
            assert answer.revision >= due
            newest = answer.revision
            count += 1
    except asyncio.CancelledError:
        return count


def with_two(
    tmp_path: Path,
    act: Callable[[Between, Member, Member], object],
    *,
    threads: bool = False,
    leader_settings: dict[str, object] | None = None,
    **settings: object,
) -> None:
    """Run `act` on a leader and its learner, which are level."""

    async def work() -> None:
        between = Between()
        with ThreadPoolExecutor(4) as pool:
            executor = pool if threads else None
            settled = config(tmp_path / "1", **(leader_settings or {}))
            async with leading(between, settled, UnsyncedFiles(), executor=executor) as leader:
                beginning = await learner_of(leader)
                async with running(
                    between,
                    config(tmp_path / "2", **settings),
                    UnsyncedFiles(),
                    beginning=beginning,
                    executor=executor,
                ) as other:
                    await write(leader, 100, seed=9)
                    await level(leader, other)
                    await act(between, leader, other)  # type: ignore[misc]

    asyncio.run(work())


async def installed(between: Between, leader: Member, other: Member) -> None:
    between.is_open = True
    await until(lambda: between.snapshots == 1)
    await same(leader, other)


def test_a_compaction_under_way_does_not_touch_the_new_database(tmp_path: Path) -> None:
    async def act(between: Between, leader: Member, other: Member) -> None:
        await ask(leader, CompactionRequest(revision=leader.store.revision))
        await level(leader, other)
        told: list[bool] = []
        other.after_compaction(lambda: told.append(True))
        await fall_behind(between, leader, other)
        await ask(leader, CompactionRequest(revision=leader.store.revision))
        await leader.store.compacted()
        [old] = other.store._compactor._tasks
        await installed(between, leader, other)
        await asyncio.wait([old])
        await until(lambda: told == [True])
        finished = leader.backend.get(schema.META, schema.FINISHED_COMPACT)
        assert other.backend.get(schema.META, schema.FINISHED_COMPACT) == finished
        assert (await other.hash())[0] == (await leader.hash())[0]

    slow = {"compaction_batch_limit": 1, "compaction_sleep_interval_seconds": 0.004}
    with_two(tmp_path, act, **slow)


def test_a_large_deletion_under_way_is_let_go_of(tmp_path: Path) -> None:
    async def act(between: Between, leader: Member, other: Member) -> None:
        await asyncio.gather(*(put(leader, b"key-%03d" % number, b"") for number in range(KEYS)))
        await level(leader, other)
        other.store._deletions._background = lambda job: None  # it takes for ever
        await ask(leader, DeleteRangeRequest(key=b"key-1", range_end=b"key-8"))
        await level(leader, other)
        assert other.store._deletions.pending
        await fall_behind(between, leader, other)
        await installed(between, leader, other)
        assert not other.backend._holds
        await other.backend.commit()
        await write(leader, 20)
        await same(leader, other)

    with_two(tmp_path, act)


def test_a_range_whose_client_does_not_read_ends(tmp_path: Path) -> None:
    async def act(between: Between, leader: Member, other: Member) -> None:
        await asyncio.gather(*(put(leader, b"key-%03d" % number, bytes(5000)) for number in range(KEYS)))
        await level(leader, other)
        stream = other.store.range_stream(EVERYTHING, 1 << 20)
        while next(stream) is None:
            continue
        await fall_behind(between, leader, other)
        await installed(between, leader, other)
        with pytest.raises(errors.LEADER_CHANGED):
            next(stream)

    with_two(tmp_path, act)


def test_the_old_index_is_not_kept(tmp_path: Path) -> None:
    async def act(between: Between, leader: Member, other: Member) -> None:
        await ask(leader, CompactionRequest(revision=leader.store.revision))
        streams = Streams(other)
        streams.watch(1)
        streams.watch(2, lazy=True)
        await fall_behind(between, leader, other)
        await installed(between, leader, other)
        gc.collect()
        indexes = [each for each in gc.get_objects() if type(each) is KeyIndex]
        assert {id(each) for each in indexes} == {id(leader.store._index), id(other.store._index)}

    gc.collect()
    with_two(tmp_path, act, compaction_batch_limit=1, compaction_sleep_interval_seconds=10.0)
