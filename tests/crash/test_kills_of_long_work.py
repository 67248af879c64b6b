"""kill -9 in the midst of work that takes many turns: a deletion of 200,000 keys, a compaction."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from crash_member import ROUNDS, SEED, Crashable
from crash_seed import MANY_KEYS as KEYS
from crash_seed import REVISED_KEYS, REVISIONS, copy

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVRequest,
    HashKVResponse,
    RangeRequest,
    RangeResponse,
)
from pyetcd.storage import schema
from pyetcd.storage.bolt import Database
from pyetcd.storage.files import OsFiles


def kill_amid(member: Crashable, seconds: float, work: Callable[[], None]) -> bool:
    """Kill the member so long after `work` has been begun in another thread. Whether it was answered."""
    answered: list[bool] = []

    def run() -> None:
        try:
            work()
            answered.append(True)
        except grpc.RpcError:
            answered.append(False)

    thread = threading.Thread(target=run)
    thread.start()
    threading.Event().wait(seconds)
    member.process.send_signal(signal.SIGKILL)
    thread.join(30)
    member.stop(signal.SIGKILL)
    return answered == [True]


def count(member: Crashable) -> tuple[int, int]:
    """How many keys there are, and the revision."""
    request = RangeRequest(key=b"many/", range_end=b"many0", count_only=True)
    found = member.call("KV/Range", request, RangeResponse)
    assert isinstance(found, RangeResponse)
    return found.count, found.header.revision


def test_a_large_deletion_that_is_killed_has_happened_or_not(many_keys: Path, tmp_path: Path) -> None:
    rnd = random.Random(SEED)
    for number in range(2 * ROUNDS):
        member = Crashable(tmp_path / str(number))
        copy(many_keys, member.data)
        member.start()
        _, before = count(member)
        beside: list[int] = []

        def work(member: Crashable = member, beside: list[int] = beside) -> None:
            gone = DeleteRangeRequest(key=b"many/", range_end=b"many0")
            member.call("KV/DeleteRange", gone, DeleteRangeResponse)
            while True:  # what is written while the rest of the deletion is done in the background
                beside.append(member.put(b"beside/%d" % len(beside), b"v"))

        kill_amid(member, rnd.choice([0.01, 0.05, 0.2, 0.4]) * rnd.random() * 2, work)
        member.start()
        left, revision = count(member)
        assert left in (0, KEYS)
        assert not (beside and left), "acknowledged"
        if left == 0:
            assert before + 1 + len(beside) <= revision <= before + 2 + len(beside)
            found = {kv.key: kv.mod_revision for kv in member.range(b"beside/", b"beside0").kvs}
            assert all(found[b"beside/%d" % each] == told for each, told in enumerate(beside))
        else:
            assert revision == before
        if number % 2 == 0:
            hash = member.hash()
            member.stop(signal.SIGKILL)
            member.start()
            assert (count(member), member.hash()) == ((left, revision), hash)
        member.close()


def compact(member: Crashable, revision: int, physical: bool) -> None:
    request = CompactionRequest(revision=revision, physical=physical)
    member.call("KV/Compact", request, CompactionResponse)


def stored(data: Path) -> list[tuple[bytes, bytes]]:
    """The bucket `key` of a stopped member."""
    database = Database.open(OsFiles(), str(data / "member/snap/db"), read_only=True)
    pin = database.pin()
    try:
        return pin.scan(schema.KEY)
    finally:
        pin.close()
        database.close()


def hash_at(member: Crashable, revision: int) -> tuple[int, int]:
    answer = member.call("Maintenance/HashKV", HashKVRequest(revision=revision), HashKVResponse)
    assert isinstance(answer, HashKVResponse)
    return answer.hash, answer.compact_revision


def test_a_compaction_that_is_killed_again_and_again_ends_as_if_it_never_was(
    many_revisions: Path, tmp_path: Path
) -> None:
    at, last = REVISIONS - 500, REVISIONS + 1
    undisturbed = Crashable(tmp_path / "undisturbed")
    copy(many_revisions, undisturbed.data)
    undisturbed.start()
    compact(undisturbed, at, physical=True)
    wanted = hash_at(undisturbed, last)
    undisturbed.stop()
    left = stored(undisturbed.data)
    assert len(left) < REVISED_KEYS + 600

    rnd = random.Random(SEED)
    member = Crashable(tmp_path / "killed", compaction_batch_limit=500)
    copy(many_revisions, member.data)
    begun = False
    for _ in range(4 * ROUNDS):
        member.start()
        hash, compacted = hash_at(member, last)
        assert compacted in ((at,) if begun else (at, -1)), "once it is accepted, every start goes on with it"
        assert not begun or (hash, compacted) == wanted
        begun = compacted == at
        begun |= kill_amid(member, rnd.uniform(0, 0.4), lambda: compact(member, at, physical=False))
    undisturbed.start()
    member.start()
    if not begun:
        compact(member, at, physical=False)
    assert hash_at(member, last) == wanted
    for each in (member, undisturbed):
        compact(each, at + 1, physical=True)  # answered when this one and the one before are done
    assert hash_at(member, last) == hash_at(undisturbed, last)
    for each in (member, undisturbed):
        each.stop()
    assert stored(member.data) == stored(undisturbed.data)
