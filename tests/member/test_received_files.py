"""What becomes of a database on its way in: damaged, its sender gone, the member stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_received_snapshots import fall_behind, installed, same, with_two, write
from two_members import Between, leading, learner_of, level, running, until
from whole_member import UnsyncedFiles, configured

from pyetcd.cluster.datadir import DataDir
from pyetcd.member import snapshot_out, snapshots
from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.member.snapshot_in import Incoming
from pyetcd.peer.seams import Refused
from pyetcd.raft import ConfState, Message, MessageType, Snapshot, SnapshotMetadata
from pyetcd.storage import schema
from pyetcd.storage.bolt.meta import NO_FREELIST, SIZE, Meta, encode
from pyetcd.storage.files import Data, OsFiles
from pyetcd.storage.received import NotTheSnapshot, ReceivedDatabase

EVENT_SECONDS = 20.0
PAGE = 4096
PAGES = 4
BEGINNING = encode(Meta(PAGE, 3, 0, NO_FREELIST, PAGES, 1), 0)  # of a database of so many pages


@pytest.fixture(autouse=True)
def _no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_out, "HOLD_SECONDS", 0.0)


def config(directory: Path, **settings: object) -> ServerConfig:
    return configured(directory, **{"snapshot_catchup_entries": 5, **settings})


def files_of(member: Member) -> list[str]:
    """What lies in the directory of snapshots, but for the database itself."""
    directory = Path(member.config.data_dir) / "member" / "snap"
    return sorted(path.name for path in directory.iterdir() if path.name not in ("db", "db.sum"))


@pytest.mark.parametrize("kind", ["root", "leaf", "meta"])
def test_a_damaged_database_is_refused_and_the_next_one_taken(tmp_path: Path, kind: str) -> None:
    async def act(between: Between, leader: Member, other: Member) -> None:
        damaged: list[int] = []

        def damage(offset: int, chunk: bytes) -> bytes:
            database = leader.backend._database
            root = database.state.buckets[schema.KEY].root
            pages = {"root": [root], "leaf": [database.pages.branch(root)[1][0]], "meta": [0, 1]}[kind]  # type: ignore[index]
            for page in pages:
                at = page * PAGE - offset
                if len(damaged) < len(pages) and 0 <= at < len(chunk):
                    damaged.append(page)
                    chunk = chunk[:at] + bytes(64) + chunk[at + 64 :]
            return chunk

        await other.backend.commit()
        revision, before = other.store.revision, files_of(other)
        await fall_behind(between, leader, other)
        between.on_chunk = damage
        between.is_open = True
        await until(lambda: bool(between.refused))
        between.is_open = False
        assert damaged
        assert "snap" in str(between.refused[0]), between.refused
        assert other.store.revision == revision
        await until(lambda: files_of(other) == before)
        assert (await other.hash_kv(0)).revision == revision
        await installed(between, leader, other)

    with_two(tmp_path, act)


class Gated(UnsyncedFiles):
    """What `stops` says yes to waits in its thread until the gate is open."""

    def __init__(self) -> None:
        self.stops: Callable[[str], bool] = lambda what: False
        self.gate, self.waiting = threading.Event(), threading.Event()
        self.done: list[str] = []

    def _pass(self, what: str) -> None:
        if self.stops(what):
            self.waiting.set()
            assert self.gate.wait(EVENT_SECONDS)
        self.done.append(what)

    def open(self, path: str, **how: bool) -> int:  # type: ignore[override]
        self._pass(f"open {path}")
        return super().open(path, **how)

    def close(self, fd: int) -> None:
        super().close(fd)
        self.done.append(f"close {fd}")

    def pwrite(self, fd: int, data: Data, offset: int) -> None:
        self._pass(f"write {fd}")
        super().pwrite(fd, data, offset)

    def rename(self, old: str, new: str) -> None:
        self._pass(f"rename {new}")
        super().rename(old, new)


def snapshot(index: int) -> Message:
    metadata = SnapshotMetadata(index, 1, ConfState(voters=(1,)))
    return Message(MessageType.MsgSnap, to=2, from_=1, snapshot=Snapshot(metadata, b""))


def test_a_file_is_not_closed_under_a_write_whose_sender_has_gone(tmp_path: Path) -> None:
    """Its descriptor might be the log's by the time the thread gets to write."""

    async def work() -> None:
        files, place = Gated(), DataDir(str(tmp_path))
        (tmp_path / "member" / "snap").mkdir(parents=True)
        with ThreadPoolExecutor(4) as executor:
            incoming = Incoming(config(tmp_path), files, place, executor)
            files.stops = lambda what: what.startswith("write")
            sink = incoming.receive(snapshot(7))
            writing = asyncio.ensure_future(sink.write(b"x"))
            await until(files.waiting.is_set)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            sink.abort()
            again = incoming.receive(snapshot(7))  # the same one, at once
            await asyncio.sleep(0.05)
            assert not [what for what in files.done if what.startswith("close")]
            files.stops = lambda what: False
            files.gate.set()
            await again.write(BEGINNING)
            await until(lambda: len(list((tmp_path / "member" / "snap").iterdir())) == 1)
            [left] = (tmp_path / "member" / "snap").iterdir()
            assert left.read_bytes() == BEGINNING
            kinds = [what.split()[0] for what in files.done]
            assert kinds.index("close") > kinds.index("write")
            with pytest.raises(Refused):
                await again.finish()
            again.abort()
        assert not list((tmp_path / "member" / "snap").iterdir())

    asyncio.run(work())


@pytest.mark.parametrize("piece", [1, 7, SIZE, PAGE])
def test_what_is_no_database_is_refused_at_its_beginning(tmp_path: Path, piece: int) -> None:
    received = ReceivedDatabase(OsFiles(), str(tmp_path), 7, 1)
    for _ in range((SIZE - 1) // piece):
        received.write(b"y" * piece)
    with pytest.raises(NotTheSnapshot, match="begins"):
        received.write(b"y" * piece)
    assert received.size < SIZE
    received.drop()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("piece", [1, 7, SIZE, PAGE])
def test_a_database_without_an_end_is_refused_at_the_end_it_should_have(tmp_path: Path, piece: int) -> None:
    """Nothing of what is beyond gets to the disk."""
    received = ReceivedDatabase(OsFiles(), str(tmp_path), 7, 1)
    whole = BEGINNING + bytes((PAGES - 1) * PAGE)
    for at in range(0, len(whole), piece):
        received.write(whole[at : at + piece])
    with pytest.raises(NotTheSnapshot, match=f"more than the {len(whole)} bytes"):
        received.write(b"x")
    assert received.size == len(whole)
    received.drop()


def two(
    tmp_path: Path, files: Gated, act: Callable[[Between, Member, Member], object], **settings: object
) -> None:
    """Run `act` on two members that are level; the learner, on `files`, is then stopped and started again,
    and has to get level once more."""

    async def work() -> None:
        between = Between()
        async with leading(between, config(tmp_path / "1"), UnsyncedFiles()) as leader:
            beginning = await learner_of(leader)
            places = config(tmp_path / "2", **settings)
            with ThreadPoolExecutor(4) as executor:
                async with running(between, places, files, beginning=beginning, executor=executor) as other:
                    await level(leader, other)
                    await act(between, leader, other)  # type: ignore[misc]
                between.is_open = True
                async with running(
                    between, places, UnsyncedFiles(), beginning=beginning, executor=executor
                ) as other:
                    await write(leader, 10)
                    await same(leader, other)

    asyncio.run(work())


@pytest.mark.parametrize("moment", ["tmp-", "rename db", "open db", "restore"])
def test_a_member_that_stops_meanwhile_leaves_nothing_open(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Gated()

    def stops(what: str) -> bool:
        kind, _, path = what.partition(" ")
        name = path.rpartition("/")[2]
        return {
            "tmp-": name.startswith("tmp-"),
            "rename db": what.startswith("rename") and name == "db",
            "open db": kind == "open" and name == "db",
        }.get(moment, False)

    async def act(between: Between, leader: Member, other: Member) -> None:
        await fall_behind(between, leader, other)
        files.stops = stops
        if moment == "restore":
            monkeypatch.setattr(other.jobs, "_turn", files.waiting.set)  # no job gets on any more
        between.is_open = True
        await until(files.waiting.is_set)
        threading.Timer(0.05, files.gate.set).start()  # the loop may be waiting for the thread by then

    two(tmp_path, files, act)


def test_a_snapshot_of_our_own_that_is_late_leaves_no_marker_behind_the_leaders(tmp_path: Path) -> None:
    files = Gated()

    async def act(between: Between, leader: Member, other: Member) -> None:
        files.stops = lambda what: what.startswith("rename") and what.endswith(".snap")
        other.retention.force()
        await write(leader, 10)
        await until(files.waiting.is_set)
        files.stops = lambda what: False
        await fall_behind(between, leader, other)
        between.is_open = True
        await until(lambda: between.snapshots == 1)
        await level(leader, other)
        newest = other.retention.snapshot_index
        files.gate.set()
        await until(lambda: not other.retention._saving)
        assert other.retention.snapshot_index == newest
        assert newest > leader.applied_index - 20

    two(tmp_path, files, act)


def test_entries_that_are_applied_late_before_a_snapshot_are_not_noted_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "COMPACT_EVERY_ENTRIES", 2)

    async def act(between: Between, leader: Member, other: Member) -> None:
        other.consensus._busy = True  # as an entry does that takes turns
        await write(leader, 20)
        await until(lambda: other.committed_index == leader.committed_index)
        await fall_behind(between, leader, other)
        between.is_open = True
        await until(lambda: other.consensus.begun_anew_at > 0 and between.snapshots == 1)
        await until(lambda: not other.consensus._markers)
        other.consensus.resume()
        await installed(between, leader, other)

    with_two(tmp_path, act)


def test_another_snapshot_that_comes_meanwhile_is_installed_next(tmp_path: Path) -> None:
    files = Gated()

    async def act(between: Between, leader: Member, other: Member) -> None:
        await fall_behind(between, leader, other)
        files.stops = lambda what: what.startswith("rename") and what.endswith("/db")
        between.is_open = True
        await until(files.waiting.is_set)
        await fall_behind(between, leader, other)
        between.is_open = True
        await until(lambda: between.snapshots == 1)
        await until(lambda: other.committed_index == leader.committed_index)
        assert other.installer.in_progress == 1
        files.stops = lambda what: False
        files.gate.set()
        await same(leader, other)
        assert other.installer.in_progress == 0

    two(tmp_path, files, act)
