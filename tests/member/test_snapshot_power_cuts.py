"""The power, or the disk, fails at any moment while a leader's snapshot takes the place of what a member has:
it starts again with the old state and its log or with the new one, and goes on.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import two_members
from power_loss import Operation, Past, RecordingFiles, place
from test_received_snapshots import BEHIND, Journal, State, fall_behind, same, write
from two_members import Between, leading, learner_of, level, running, until
from whole_member import LaterAppender, UnsyncedFiles, configured, content

from pyetcd.cluster.bootstrap import Beginning
from pyetcd.member import snapshot_out
from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.storage.bolt import database
from pyetcd.storage.files import Data

HOW = ("none", "all", "torn")
GOES_ON_EVERY = 12


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_out, "HOLD_SECONDS", 0.0)
    # 16 MiB as in earnest would have to be copied for each of many crashes.
    monkeypatch.setattr(database, "GROW_BYTES", 64 << 10)


def config(directory: Path, **settings: object) -> ServerConfig:
    few = {"snapshot_catchup_entries": 5, "snapshot_count": 100, "initial_cluster_state": "existing"}
    return configured(directory, **{**few, **settings})


def leaders(directory: Path) -> ServerConfig:
    return config(directory, initial_cluster_state="new")


@dataclass
class Life:
    """What reached the disk, where the installation begins, and what was applied by then."""

    operations: Sequence[Operation] = ()
    begun: int = 0
    due: list[tuple[int, int]] = field(default_factory=list)  # operations, revision applied
    states: dict[int, State] = field(default_factory=dict)
    beginning: Beginning | None = None


async def live(root: Path, late: bool) -> Life:
    """`late`: the log becomes durable a turn later."""
    life, files, between = Life(), RecordingFiles(root / "life"), Between()

    def note(other: Member) -> None:
        life.due.append((len(files.operations), other.store.revision))

    async with leading(between, leaders(root / "1"), UnsyncedFiles()) as leader:
        journal = Journal(leader)
        life.beginning = await learner_of(leader)
        async with running(
            between,
            config(root / "life" / "data"),
            files,
            beginning=life.beginning,
            appender=LaterAppender(files) if late else None,
        ) as other:
            await write(leader, 30)
            await level(leader, other)
            await fall_behind(between, leader, other)
            life.begun = len(files.operations)
            note(other)
            between.is_open = True
            await until(lambda: between.snapshots == 1)
            await level(leader, other)
            note(other)
            await write(leader, 20)
            await level(leader, other)
            await other.backend.commit()
            note(other)
        life.operations, life.states = files.operations, journal.states
    return life


async def find(root: Path, life: Life, goes_on: bool) -> tuple[int, State]:
    """What a member finds that starts on what is left; and whether it can go on with its leader."""
    settings = config(root / "left" / "data")
    between = Between()
    async with running(between, settings, UnsyncedFiles(), beginning=life.beginning) as other:
        await until(lambda: other.applied_index >= other.committed_index)
        revision, keys = other.store.revision, tuple((kv.key, kv.value) for kv in content(other))
        if goes_on:
            shutil.copytree(root / "1", root / "leader")
            async with leading(between, leaders(root / "leader"), UnsyncedFiles()) as leader:
                await write(leader, 10)
                await same(leader, other)
            shutil.rmtree(root / "leader")
    return revision, keys


@pytest.mark.parametrize("late", [False, True])
def test_whenever_the_power_fails_there_is_the_old_state_or_the_new_one(tmp_path: Path, late: bool) -> None:
    (tmp_path / "life").mkdir()
    life = asyncio.run(live(tmp_path, late))
    rnd, past, found = random.Random(late), Past(), set[int]()
    checked = 0
    for at, operation in enumerate([*life.operations, None]):
        for how in HOW if at >= life.begun else ():
            place(tmp_path / "left", past.lose_power(rnd, how))
            goes_on = checked % GOES_ON_EVERY == 0
            revision, keys = asyncio.run(find(tmp_path, life, goes_on))
            due = max(applied for operations, applied in life.due if operations <= at)
            assert revision >= due, f"after {at} operations ({how}) revision {due} is lost"
            assert keys == life.states[revision], f"after {at} operations ({how})"
            found.add(revision)
            checked += 1
            shutil.rmtree(tmp_path / "left")
        if operation is not None:
            past.advance(operation)
    old, new, last = (revision for _, revision in life.due)
    assert {old, new, last} <= found
    assert not any(old < revision < new for revision in found)
    assert new - old >= BEHIND * 0.9
    assert checked > 100


class FailingFiles(UnsyncedFiles):
    """The disk fails at one operation, which is counted down to."""

    def __init__(self) -> None:
        self.left = -1
        self.failed_at = ""

    def _count(self, what: str) -> None:
        self.left -= 1
        if self.left == 0:
            self.failed_at = what
            raise OSError(5, "Input/output error", what)

    def open(self, path: str, **how: bool) -> int:  # type: ignore[override]
        self._count(f"open {path}")
        return super().open(path, **how)

    def pwrite(self, fd: int, data: Data, offset: int) -> None:
        self._count(f"write {fd}")
        super().pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        self._count(f"sync {fd}")

    fsync = fdatasync

    def rename(self, old: str, new: str) -> None:
        self._count(f"rename {new}")
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._count(f"unlink {path}")
        super().unlink(path)

    def fsync_dir(self, path: str) -> None:
        self._count(f"sync {path}")


def test_whichever_operation_fails_the_member_says_so_and_the_next_start_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_members, "CHUNK_BYTES", 8 << 20)  # all of it at once

    async def work() -> None:
        between = Between()
        async with leading(between, leaders(tmp_path / "1"), UnsyncedFiles()) as leader:
            beginning = await learner_of(leader)
            settings = config(tmp_path / "2")
            for at in range(1, 1000):
                files, failures = FailingFiles(), list[BaseException]()
                between.is_open, between.refused = True, []
                async with running(between, settings, files, beginning=beginning, failures=failures) as other:
                    await level(leader, other)
                    await fall_behind(between, leader, other)
                    files.left = at
                    between.is_open = True
                    await until(
                        lambda other=other, failures=failures: (
                            bool(failures) or other.applied_index == leader.applied_index
                        )
                    )
                    has_failed, files.left = files.failed_at, -1
                    between.is_open = False
                if not has_failed:
                    break
                assert failures or between.refused or "unlink" in has_failed, has_failed
                between.is_open = True
                async with running(between, settings, UnsyncedFiles(), beginning=beginning) as other:
                    await same(leader, other)
        assert at > 15
        assert not list((tmp_path / "2" / "member" / "snap").glob("tmp*"))

    asyncio.run(work())
