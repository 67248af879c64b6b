"""A member's storage follows the cluster's version, and the leader ends a downgrade that all have made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest
import virtual_time
from small_cluster import Buckets, member, membership

from pyetcd.cluster.versions import Downgrade, Version
from pyetcd.member.position import Position
from pyetcd.member.version_keeper import DOWNGRADE_INFO_SET, SLICE_ENTRIES, VersionKeeper
from pyetcd.proto.membership_pb2 import DowngradeInfoSetRequest
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.raft import Entry
from pyetcd.storage.schema import META, STORAGE_VERSION
from pyetcd.version import SERVER_VERSION

CHECK_SECONDS = 5.0
NEWER = InternalRaftRequest()
NEWER.downgrade_version_test.ver = "3.7.0"
OLD = InternalRaftRequest()
OLD.cluster_version_set.ver = "3.6.0"


@dataclass
class Versions:
    server: str


class Kept:
    """Member 1 of two, whose cluster is at 3.6 and whose storage at 3.7."""

    is_leader = True

    def __init__(self) -> None:
        self.cluster = membership(member(1), member(2))
        self.cluster.version = Version(3, 6)
        self.buckets = Buckets()
        self.buckets.put(META, b"term", (2).to_bytes(8, "big"))
        self.buckets.put(META, STORAGE_VERSION, b"3.7.0")
        self.entries: Sequence[Entry] | None = []
        self.find_entries: Callable[[], Awaitable[Sequence[Entry] | None]] = self.entries_at_once
        self.other = SERVER_VERSION
        self.asked: list[tuple[int, object]] = []
        self.keeper = VersionKeeper(
            self.cluster,
            self.buckets,
            Position(self.buckets),
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.request,
            lambda: asyncio.sleep(0),
            lambda: self.find_entries(),
            1.0,
            CHECK_SECONDS,
        )

    async def entries_at_once(self) -> Sequence[Entry] | None:
        return self.entries

    async def request(self, kind: int, payload: bytes, request: object) -> None:
        self.asked.append((kind, request))
        if isinstance(request, DowngradeInfoSetRequest):
            self.cluster.set_downgrade(Downgrade(request.enabled, request.ver))

    async def versions_of(self, others: object, timeout_seconds: float) -> dict[int, Versions]:
        return {2: Versions(self.other)}

    @property
    def storage(self) -> bytes | None:
        return self.buckets.get(META, STORAGE_VERSION)


def entries(*requests: InternalRaftRequest) -> list[Entry]:
    return [Entry(2, index, 0, request.SerializeToString()) for index, request in enumerate(requests, 5)]


def seen(change: Callable[[Kept], None], seconds: float) -> Kept:
    """After the keeper has run for so long."""
    kept = Kept()

    async def run() -> None:
        change(kept)
        tasks = [
            asyncio.create_task(work())
            for work in (kept.keeper.follow, kept.keeper.settle, kept.keeper.end_downgrades)
        ]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()

    virtual_time.run(run())
    return kept


def test_the_storage_goes_down_with_the_cluster() -> None:
    assert seen(lambda kept: setattr(kept, "entries", entries(OLD)), 5.5).storage == b"3.6.0"


def test_a_log_that_needs_the_newer_version_keeps_the_storage_at_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert seen(lambda kept: setattr(kept, "entries", entries(OLD, NEWER)), 5.5).storage == b"3.7.0"
    told = capfd.readouterr().err
    assert "failed to update storage version" in told
    assert "cannot downgrade storage, WAL contains newer entries" in told


def test_a_log_that_is_not_at_hand_is_waited_for() -> None:
    assert seen(lambda kept: setattr(kept, "entries", None), 5.5).storage == b"3.7.0"

    def later(kept: Kept) -> None:
        kept.entries = None
        asyncio.get_running_loop().call_later(7, lambda: setattr(kept, "entries", []))

    assert seen(later, 10.5).storage == b"3.6.0"


def test_a_long_log_is_looked_at_to_its_end_in_slices() -> None:
    long = entries(*[OLD] * (SLICE_ENTRIES * 3))
    assert seen(lambda kept: setattr(kept, "entries", long), 5.5).storage == b"3.6.0"
    newest_last = entries(*[OLD] * (SLICE_ENTRIES * 3), NEWER)
    assert seen(lambda kept: setattr(kept, "entries", newest_last), 5.5).storage == b"3.7.0"


def test_a_cluster_that_changes_its_version_meanwhile_is_followed_anew() -> None:
    def change(kept: Kept) -> None:
        async def looked_at() -> Sequence[Entry]:
            asyncio.get_running_loop().call_soon(setattr, kept.cluster, "version", Version(3, 7))
            return entries(*[OLD] * (SLICE_ENTRIES * 3))

        kept.find_entries = looked_at

    assert seen(change, 5.5).storage == b"3.7.0"


def test_a_snapshot_that_is_being_taken_is_waited_for() -> None:
    def after(seconds: float) -> Callable[[Kept], None]:
        def change(kept: Kept) -> None:
            async def once_taken() -> Sequence[Entry]:
                await asyncio.sleep(seconds)
                return []

            kept.find_entries = once_taken

        return change

    assert seen(after(3600.0), 60.0).storage == b"3.7.0"
    assert seen(after(1.0), 7.0).storage == b"3.6.0"


def test_the_leader_ends_a_downgrade_once_all_members_have_made_it() -> None:
    def enabled(target: str, other: str) -> Callable[[Kept], None]:
        def change(kept: Kept) -> None:
            kept.cluster.set_downgrade(Downgrade(True, target))
            kept.other = other

        return change

    made = seen(enabled("3.7.0", "3.7.4"), CHECK_SECONDS + 1)
    assert (DOWNGRADE_INFO_SET, DowngradeInfoSetRequest()) in made.asked
    assert not made.cluster.downgrade.enabled
    half = seen(enabled("3.6.0", "3.6.4"), CHECK_SECONDS + 1)
    assert half.cluster.downgrade.enabled
