"""The log is let go of in time, and only what the database holds; nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from whole_member import UnsyncedFiles, configured, content, put, serving

from pyetcd.cluster.bootstrap import set_version
from pyetcd.cluster.versions import Version
from pyetcd.member import snapshots
from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.raft_pb2 import ConfState
from pyetcd.raft import Entry
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles
from pyetcd.storage.snap import Snapshot, Snapshots
from pyetcd.storage.wal import Replay, read_only

EVENT_SECONDS = 20.0


def config(directory: Path, **settings: object) -> ServerConfig:
    return configured(directory, **{"snapshot_count": 20, "snapshot_catchup_entries": 30, **settings})


def log_of(directory: Path) -> Replay[Entry]:
    return read_only(OsFiles(), str(directory / "member" / "wal"), entry=Entry)


def files_of(directory: Path) -> list[Snapshot]:
    """All snapshot files, oldest first."""
    names = sorted(path.name for path in (directory / "member" / "snap").glob("*.snap"))
    files = Snapshots(OsFiles(), str(directory / "member" / "snap"))
    return [files.load({(int(name[17:33], 16), int(name[:16], 16))}) for name in names]


def in_v2_store(snapshot: Snapshot, name: str) -> dict[str, object]:
    return json.loads(snapshot.data)["Root"]["Children"]["0"]["Children"][name]


async def fill(member: Member, count: int, size: int = 10) -> None:
    await asyncio.gather(*(put(member, b"key-%03d" % number, bytes(size)) for number in range(count)))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(EVENT_SECONDS):
        while not holds():
            await asyncio.sleep(0)


async def write_one_by_one(member: Member, count: int) -> None:
    for number in range(count):
        await put(member, b"key-%03d" % number, b"value")


def test_file_marker_and_database_agree(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(config(tmp_path), UnsyncedFiles()) as member:
            await write_one_by_one(member, 100)
            await until(lambda: member.retention.snapshot_index > member.applied_index - 30)
            assert member.retention.snapshot_index > 60

    asyncio.run(work())
    files, replay = files_of(tmp_path), log_of(tmp_path)
    assert len(files) >= 3
    last = files[-1]
    assert (last.index, last.term, last.conf_state) == (
        replay.marker.index,
        replay.marker.term,
        replay.marker.conf_state,
    )
    [member_id] = ConfState.FromString(last.conf_state).voters
    assert f"{member_id:x}" in in_v2_store(last, "members")["Children"]
    assert replay.entries[0].index == last.index + 1
    backend = Backend.open(OsFiles(), str(tmp_path / "member" / "snap" / "db"), None)
    assert schema.position(backend)[0] >= last.index
    backend.discard()


def test_a_snapshot_is_due_after_more_entries_than_the_count_since_the_last_one(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(config(tmp_path), UnsyncedFiles()) as member:
            while member.applied_index < 20:
                await put(member, b"a", b"1")
            await asyncio.sleep(0)
            assert member.retention.snapshot_index == 0
        async with serving(config(tmp_path), UnsyncedFiles()) as member:  # which adds an entry of its own
            await until(lambda: member.retention.snapshot_index > 0)
            first = member.retention.snapshot_index
            assert first == 21
        async with serving(config(tmp_path), UnsyncedFiles()) as member:
            assert member.retention.snapshot_index == first, "counted from the last, also after a restart"

    asyncio.run(work())


def test_the_log_behind_a_snapshot_is_told_once_the_snapshot_is_on_disk(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(config(tmp_path, snapshot_count=1000), UnsyncedFiles()) as member:
            await put(member, b"a", b"1")
            member.retention.force()
            await put(member, b"a", b"2")  # after which it is taken
            assert await member.retention.entries_since() == []
            [file] = files_of(tmp_path)
            assert file.index == member.retention.snapshot_index == member.applied_index

    asyncio.run(work())


def test_the_cache_keeps_what_a_lagging_member_may_ask_for_and_no_more(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(config(tmp_path, snapshot_count=1000), UnsyncedFiles()) as member:
            await write_one_by_one(member, 350)
            storage = member.consensus._storage
            assert storage.last_index() - 30 - 100 <= storage.first_index() <= storage.last_index() - 30 + 1
            assert storage.snapshot().index >= member.applied_index - 100
            assert member.retention.snapshot_index == 0, "nothing of that is on disk"

    asyncio.run(work())


def test_the_cache_is_bounded_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "CACHE_BYTES_MAX", 20_000)
    monkeypatch.setattr(snapshots, "CACHE_BYTES_KEPT", 15_000)

    async def work() -> None:
        settings = {"snapshot_count": 1000, "snapshot_catchup_entries": 1000}
        async with serving(config(tmp_path, **settings), UnsyncedFiles()) as member:
            storage = member.consensus._storage
            for _ in range(60):
                await put(member, b"a", bytes(1000))
                assert storage.size_bytes < 20_000 + 1_200
            assert storage.size_bytes > 10_000, "no more is forgotten than has to be"
            await put(member, b"huge", bytes(50_000))  # even one that does not fit by itself
            await put(member, b"a", b"")
            assert storage.size_bytes < 20_000
            assert [kv.key for kv in content(member)] == [b"a", b"huge"]

    asyncio.run(work())


def test_a_cluster_version_that_goes_down_asks_for_a_snapshot_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(config(tmp_path, snapshot_count=1000), UnsyncedFiles()) as member:
            await until(lambda: member.cluster.version is not None)
            lower = set_version(Version(3, 6))
            kind = InternalRaftRequest.CLUSTER_VERSION_SET_FIELD_NUMBER
            await member.request(kind, lower.SerializeToString(), lower)
            await until(lambda: member.retention.snapshot_index > 0)

    asyncio.run(work())
    [only] = files_of(tmp_path)
    assert in_v2_store(only, "version")["Value"] == "3.6.0"


class Gated(UnsyncedFiles):
    """Some calls wait, in their thread, until the gate is open."""

    def __init__(self) -> None:
        self.gate, self.waiting = threading.Event(), threading.Event()
        self.gate.set()

    def rename(self, old: str, new: str) -> None:
        if not self.gate.is_set():
            self.waiting.set()
            assert self.gate.wait(EVENT_SECONDS)
        super().rename(old, new)


def test_puts_are_answered_while_a_snapshot_is_being_written(tmp_path: Path) -> None:
    async def work() -> None:
        files = Gated()
        with ThreadPoolExecutor(4) as executor:
            async with serving(config(tmp_path, max_wals=0), files, executor) as member:
                files.gate.clear()
                await write_one_by_one(member, 30)
                await until(files.waiting.is_set)
                await write_one_by_one(member, 5)
                assert member.retention.snapshot_index == 0
                files.gate.set()
                await until(lambda: member.retention.snapshot_index > 0)

    asyncio.run(work())


def test_a_put_that_waits_for_the_name_of_a_new_segment_is_told_at_once(tmp_path: Path) -> None:
    """Not at the next tick, which is a minute away here."""

    async def work() -> None:
        files = Gated()
        with ThreadPoolExecutor(4) as executor:
            async with serving(config(tmp_path), files, executor) as member:
                await put(member, b"a", b"1")
            slow = config(tmp_path, heartbeat_interval_ms=60_000, election_timeout_ms=600_000)
            async with serving(slow, files, executor) as member:
                await until(member._wal._next_is_ready)  # or the segment just grows
                files.gate.clear()
                await put(member, b"fills a segment", bytes(5000))
                waiting = asyncio.ensure_future(put(member, b"is in the next", b""))
                await until(files.waiting.is_set)
                assert not waiting.done()
                files.gate.set()
                async with asyncio.timeout(EVENT_SECONDS):
                    await waiting

    asyncio.run(work())


class FullForSnapshots(UnsyncedFiles):
    def rename(self, old: str, new: str) -> None:
        if new.endswith(".snap"):
            raise OSError(28, "No space left on device", new)
        super().rename(old, new)


def test_a_snapshot_that_cannot_be_saved_ends_the_member_and_the_log_is_kept(tmp_path: Path) -> None:
    async def work() -> None:
        failures: list[BaseException] = []
        async with serving(config(tmp_path), FullForSnapshots(), None, failures) as member:
            await write_one_by_one(member, 25)
            await until(lambda: bool(failures))
            assert [getattr(failure, "errno", None) for failure in failures] == [28]

    asyncio.run(work())
    assert files_of(tmp_path) == []
    assert log_of(tmp_path).marker.index == 0
    assert not list((tmp_path / "member" / "snap").glob("tmp*"))
    asyncio.run(has_all(tmp_path, 25))


async def has_all(directory: Path, count: int) -> None:
    async with serving(config(directory), UnsyncedFiles()) as member:
        assert [kv.key for kv in content(member)] == [b"key-%03d" % number for number in range(count)]


def test_old_files_are_purged_and_a_restart_needs_none_of_them(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(config(tmp_path, max_wals=2, max_snapshots=3), UnsyncedFiles()) as member:
            for _ in range(4):
                await fill(member, 60, 500)
                await until(lambda: member.retention.snapshot_index > member.applied_index - 40)
                await put(member, b"key-000", b"")
            await member.retention.purge()
            segments = sorted(path.name for path in (tmp_path / "member" / "wal").glob("*.wal"))
            assert len(segments) <= 3
            assert int(segments[0][:16], 16) > 1
            assert len(files_of(tmp_path)) == 3

    asyncio.run(work())
    asyncio.run(has_all(tmp_path, 60))
