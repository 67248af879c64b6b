"""The power fails at any moment of a member's life: what it acknowledged is there when it starts again,
nothing is there that was never written, and it goes on.

Log, database, snapshot files and their removal are looked at together: it is their order that must be right.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from power_loss import Operation, Past, RecordingFiles, place
from whole_member import LaterAppender, UnsyncedFiles, configured, content, delete, put, serving

from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.storage.bolt import database

SETTINGS = {
    "snapshot_count": 8,
    "snapshot_catchup_entries": 5,
    "max_wals": 1,
    "max_snapshots": 2,
    "backend_batch_limit": 30,
}
HOW = ("none", "all", "some", "torn", "torn")


@dataclass(frozen=True)
class Acknowledged:
    """A client has been told of `revision` when so many operations had reached the disk."""

    operations: int
    revision: int
    keys: list[KeyValue]


async def live(root: Path, seed: int) -> tuple[list[Operation], list[Acknowledged]]:
    """A member's life from its first start to a clean stop, with a restart in between. With every other seed
    its log becomes durable at once, else a turn of the loop later."""
    rnd = random.Random(seed)
    files = RecordingFiles(root)
    told = [Acknowledged(0, 1, [])]
    for _ in range(2):
        appender = LaterAppender(files) if seed % 2 else None
        async with serving(configured(root / "data", **SETTINGS), files, appender=appender) as member:
            for number in range(50):
                key = b"key-%d" % rnd.randrange(12)
                if number % 5 < 4:
                    revision = await put(member, key, rnd.randbytes(rnd.choice([0, 300, 900])))
                else:
                    revision = await delete(member, key)
                    await member.retention.purge()
                told.append(Acknowledged(len(files.operations), revision, content(member)))
    return files.operations, told


async def find(directory: Path, goes_on: bool) -> tuple[int, list[KeyValue]]:
    """What a member finds that starts on what is left; and whether it can go on from there."""
    config = configured(directory, **SETTINGS)
    async with serving(config, UnsyncedFiles()) as member:
        revision, keys = member.store.revision, content(member)
        if goes_on:
            assert await put(member, b"again", b"") == revision + 1
    if goes_on:
        async with serving(config, UnsyncedFiles()) as member:
            assert member.store.revision == revision + 1
            assert content(member)[0].key == b"again"
    return revision, keys


@pytest.mark.parametrize("seed", range(2))
def test_what_was_acknowledged_is_there_whenever_the_power_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # 16 MiB as in earnest would have to be copied for each of many crashes.
    monkeypatch.setattr(database, "GROW_BYTES", 64 << 10)
    (tmp_path / "life").mkdir()
    operations, told = asyncio.run(live(tmp_path / "life", seed))
    assert 2 <= len(list((tmp_path / "life").rglob("*.snap"))) <= 4
    first = min((tmp_path / "life" / "data" / "member" / "wal").glob("*.wal"))
    assert not first.name.startswith("0" * 16), "the log was released and purged"
    states = {each.revision: each.keys for each in told}
    rnd, past = random.Random(seed), Past()
    checked = 0
    for at, operation in enumerate([*operations, None]):
        if rnd.random() < 0.25:
            how = rnd.choice(HOW)
            place(tmp_path / "left", past.lose_power(rnd, how))
            revision, keys = asyncio.run(find(tmp_path / "left" / "data", goes_on=checked % 4 == 0))
            due = max(each.revision for each in told if each.operations <= at)
            assert revision >= due, f"after {at} operations ({how}) revision {due} is lost"
            assert keys == states[revision], f"after {at} operations ({how})"
            shutil.rmtree(tmp_path / "left")
            checked += 1
        if operation is not None:
            past.advance(operation)
    assert checked > 70
