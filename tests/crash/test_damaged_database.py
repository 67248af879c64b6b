"""A damaged database: refused where it cannot be read, healed where nothing is lost, never served wrongly."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from crash_member import ROUNDS, Crashable
from crash_seed import Seed, copy_file, keys_of, recut

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    PutRequest,
    PutResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from pyetcd.storage import schema
from pyetcd.storage.bolt import Database, page
from pyetcd.storage.files import OsFiles

PAGE = 4096


@pytest.fixture
def placed(member: Crashable, seed: Seed) -> Crashable:
    seed.place(member.data)
    return member


def database_of(member: Crashable) -> Path:
    return member.data / "member/snap/db"


def flip(path: Path, at: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 1 << bit,)))


def pages_of(path: Path, kind: int) -> list[int]:
    """Pages of the bucket `key` of this kind that the database reaches."""
    database = Database.open(OsFiles(), str(path), read_only=True)
    found = []
    pending = [database.state.buckets[schema.KEY].root]
    while pending:
        number = pending.pop()
        branch = database.pages.branch(number)
        if branch is not None:
            pending += branch[1]
        if (branch is not None) == (kind == page.BRANCH):
            found.append(number)
    database.close()
    return found


@pytest.mark.parametrize("kind", [page.BRANCH, page.LEAF])
def test_a_flipped_bit_in_a_page_is_refused_with_file_page_and_offset(kind: int, placed: Crashable) -> None:
    path = database_of(placed)
    rnd = random.Random(kind)
    for number in rnd.choices(pages_of(path, kind), k=2 * ROUNDS):
        at, bit = number * PAGE + rnd.randrange(PAGE), rnd.randrange(8)
        flip(path, at, bit)
        placed.refuses(f"{path}: page {number} at offset {number * PAGE}: ", "changed on disk")
        flip(path, at, bit)
    placed.start()


def test_a_value_changed_on_disk_is_refused_also_without_a_log_that_could_tell(placed: Crashable) -> None:
    """The very bytes a client would get, as Go's etcd serves them."""
    path = database_of(placed)
    data = path.read_bytes()
    at = data.index(b"01000 01000")
    flip(path, at)
    placed.refuses(str(path), f"offset {at // PAGE * PAGE}", "changed on disk")


def test_a_value_that_changes_while_the_member_runs_is_never_served(placed: Crashable, seed: Seed) -> None:
    path = database_of(placed)
    placed.start()
    data = path.read_bytes()
    victim = b"key-01000"
    at = data.index(b"01000 01000")
    flip(path, at)
    with pytest.raises(grpc.RpcError) as caught:
        placed.range(victim)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert caught.value.details() == "etcdserver: corrupt cluster"
    with pytest.raises(grpc.RpcError) as caught:
        placed.range(b"\0", b"\0")
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    with pytest.raises(grpc.RpcError) as caught:
        placed.hash()
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert placed.range(b"key-00700").kvs[0].value == seed.late_keys[b"key-00700"], "other pages are served"
    flip(path, at)
    assert placed.range(victim).kvs[0].value == seed.late_keys[victim]
    placed.stop()
    assert f"{path}: page {at // PAGE} at offset {at // PAGE * PAGE}: " in placed.printed.text()


def put_over(member: Crashable) -> None:
    member.call("KV/Put", PutRequest(key=b"key-01000", value=b"new", prev_kv=True), PutResponse)


def compare_value(member: Crashable) -> None:
    compare = Compare(key=b"key-01000", target=Compare.VALUE, value=b"x")
    put = RequestOp(request_put=PutRequest(key=b"a", value=b"b"))
    halves = TxnRequest(success=[put], compare=[compare], failure=[put])
    member.call("KV/Txn", halves, TxnResponse)


def half_a_transaction(member: Crashable) -> None:
    """Its first half could be applied."""
    first = RequestOp(request_put=PutRequest(key=b"half", value=b"half"))
    second = RequestOp(request_put=PutRequest(key=b"key-01000", value=b"new", prev_kv=True))
    member.call("KV/Txn", TxnRequest(success=[first, second]), TxnResponse)


def compact(member: Crashable) -> None:
    member.call("KV/Compact", CompactionRequest(revision=1300, physical=True), CompactionResponse)


def watch(member: Crashable) -> None:
    stream = member.channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=WatchRequest.SerializeToString,
        response_deserializer=WatchResponse.FromString,
    )
    create = WatchCreateRequest(key=b"key-01000", start_revision=600)
    for response in stream(iter([WatchRequest(create_request=create)]), timeout=10):
        assert not response.events, "the event is on the damaged page"


@pytest.mark.parametrize("meet", [put_over, compare_value, half_a_transaction, compact, watch])
def test_where_damage_is_met_by_an_entry_or_in_the_background_the_member_ends_and_loses_nothing(
    meet: Callable[[Crashable], None], placed: Crashable, seed: Seed
) -> None:
    """Going on without the entry would make this member differ from others."""
    path = database_of(placed)
    placed.start()
    placed.put(b"acknowledged", b"1")
    at = path.read_bytes().index(b"01000 01000")
    flip(path, at)
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        meet(placed)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    ending = placed.ending(began, 10)
    named = f"{path}: page {at // PAGE} at offset {at // PAGE * PAGE}: "
    assert ending.code == 1
    assert named in ending.fatal
    placed.refuses(named)
    flip(path, at)
    placed.start()
    found = keys_of(placed)
    assert found.pop(b"acknowledged") == b"1"
    assert found.pop(b"half", b"half") == b"half"
    assert found.pop(b"a", b"b") == b"b"
    assert found == {**seed.late_keys, b"key-01000": found[b"key-01000"]}


@pytest.mark.parametrize("number", [0, 1])
def test_one_damaged_meta_page_is_no_loss(number: int, placed: Crashable, seed: Seed) -> None:
    """As in bbolt: the state before is whole, and the log brings back what came after it."""
    flip(database_of(placed), number * PAGE + 40)
    placed.start()
    assert keys_of(placed) == seed.late_keys


def test_two_damaged_meta_pages_are_refused(placed: Crashable) -> None:
    path = database_of(placed)
    flip(path, 40)
    flip(path, PAGE + 40)
    placed.refuses(str(path), "not a bbolt database")


def test_a_truncated_database_is_refused_at_every_length(placed: Crashable) -> None:
    path = database_of(placed)
    whole = path.read_bytes()
    database = Database.open(OsFiles(), str(path), read_only=True)
    needed = database.size_bytes
    database.close()
    rnd = random.Random(5)
    for length in [100, PAGE, 2 * PAGE, needed - 1, *(rnd.randrange(needed) for _ in range(3 * ROUNDS))]:
        path.write_bytes(whole[:length])
        placed.refuses(str(path))
    path.write_bytes(whole[:needed])
    placed.start()


@pytest.mark.parametrize("what", ["zeros", "garbage", "text"])
def test_a_file_that_is_no_database_is_refused(what: str, placed: Crashable) -> None:
    path = database_of(placed)
    size = path.stat().st_size
    contents = {"zeros": bytes(size), "garbage": random.Random(6).randbytes(1 << 20), "text": b"hello\n" * 99}
    path.write_bytes(contents[what])
    placed.refuses(str(path), "not a bbolt database")


@pytest.mark.parametrize("what", ["missing", "empty", "flipped", "cut", "stale", "garbage"])
def test_whatever_happens_to_the_checksums_alone_costs_nothing(
    what: str, placed: Crashable, seed: Seed
) -> None:
    """They are gathered anew, and protect again from the next commit on."""
    path = database_of(placed)
    sums = path.with_name("db.sum")
    data = sums.read_bytes()
    if what == "stale":
        placed.start()
        placed.put(b"a", b"1")
        placed.stop()
        placed.start()
        placed.put(b"a", b"2")
        placed.stop()
    contents = {
        "empty": b"",
        "flipped": data[:4200] + bytes([data[4200] ^ 1]) + data[4201:],
        "cut": data[:5000],
        "stale": data,
        "garbage": random.Random(7).randbytes(len(data)),
    }
    if what == "missing":
        sums.unlink()
    else:
        sums.write_bytes(contents[what])
    placed.start()
    assert placed.range(b"key-", b"key.").count == len(seed.late_keys) - placed.range(b"late", b"latf").count
    placed.put(b"a", b"3")
    placed.stop()
    assert (what == "missing") != ("checksums cannot be used" in placed.printed.text())
    at = path.read_bytes().index(b"01000 01000")
    flip(path, at)
    placed.refuses(str(path), "changed on disk")


def test_a_lost_database_is_made_again_from_a_log_that_reaches_back_to_the_beginning(
    placed: Crashable, seed: Seed
) -> None:
    for name in ("db", "db.sum"):
        (placed.data / "member/snap" / name).unlink()
    placed.start()
    assert keys_of(placed) == seed.late_keys
    assert placed.put(b"a", b"1") == seed.revision + 1


@pytest.mark.parametrize("what", ["missing", "empty", "fresh"])
def test_a_lost_database_is_refused_where_the_log_has_been_released(
    what: str, placed: Crashable, tmp_path: Path
) -> None:
    wal = placed.data / "member/wal"
    path = database_of(placed)
    recut(wal, 64 << 10, marker_at=1000)
    for segment in sorted(wal.glob("*.wal"))[:3]:
        segment.unlink()
    placed.start()
    placed.stop()
    path.unlink()
    path.with_name("db.sum").unlink()
    if what == "empty":
        path.touch(0o600)
    elif what == "fresh":
        Database.open(OsFiles(), str(path)).close()
    placed.refuses(str(path), "failed to find database snapshot file")


def test_a_damaged_snapshot_file_does_not_matter(member: Crashable) -> None:
    """A start goes by the log's markers and the database."""
    member.flags["snapshot-count"] = "10"
    member.start()
    for number in range(50):
        member.put(b"k%d" % number, b"v")
    member.stop()
    found = sorted((member.data / "member/snap").glob("*.snap"))
    assert found
    for path, content in zip(found, (b"", b"garbage", bytes(500), b"\xff" * 9), strict=False):
        path.write_bytes(content)
    member.start()
    assert member.range(b"k", b"l").count == 50


def test_a_database_older_than_the_log_is_brought_up_to_date(placed: Crashable, seed: Seed) -> None:
    """As when a backup of the database was put back, and the log still has what came after it."""
    placed.start()
    for number in range(30):
        placed.put(b"new-%d" % number, b"v")
    placed.stop()
    for name in ("db", "db.sum"):
        copy_file(seed.early / "member/snap" / name, placed.data / "member/snap" / name)
    placed.start()
    assert keys_of(placed) == {**seed.late_keys, **{b"new-%d" % number: b"v" for number in range(30)}}
