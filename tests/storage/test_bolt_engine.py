"""The engine against a plain dict: whatever is put and deleted, in whatever portions, is what is read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from bolt_disk import Content, applied, change, content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyetcd.storage.bolt import Database
from pyetcd.storage.bolt import database as database_module
from pyetcd.storage.bolt import page as pages
from pyetcd.storage.bolt.free_pages import FreePages
from pyetcd.storage.files import OsFiles

GROW = 64 << 10

KEYS = st.one_of(
    st.integers(0, 400).map(lambda n: b"%04d" % n),
    st.integers(0, 60).map(lambda n: b"long" * 400 + b"%02d" % n),
    st.binary(min_size=1, max_size=5),
)
VALUES = st.one_of(
    st.none(), st.binary(max_size=20), st.integers(0, 3).map(lambda n: b"v" * (700 * n)), st.just(b"w" * 9000)
)
BATCHES = st.lists(st.dictionaries(KEYS, VALUES, max_size=80), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, fill=st.sampled_from([0.5, 0.9]), portion=st.sampled_from([1, 7, 4096]))
def test_what_was_put_and_deleted_is_what_is_read(
    batches: list[dict[bytes, bytes | None]],
    fill: float,
    portion: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = str(tmp_path_factory.mktemp("model") / "db")
    model: Content = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_module, "_PORTION", portion)
        database = Database.open(OsFiles(), path, grow_bytes=GROW, sync=False)
        for batch in batches:
            change(database, {b"b": batch}, fill)
            model = applied(model, {b"b": batch})
            assert content(database) == model
            in_use, size = database.size_in_use_bytes, database.size_bytes
        database.close()
    database = Database.open(OsFiles(), path, grow_bytes=GROW)
    assert database.checked_sums
    assert content(database) == model
    assert (database.size_in_use_bytes, database.size_bytes) == (in_use, size), "no page is lost"
    bucket = database.state.buckets[b"b"]
    probes = sorted({*model[b"b"], *(key for batch in batches for key in batch), b"\xff" * 40, b"0"})
    assert database.pages.get_many(bucket, probes) == [model[b"b"].get(key) for key in probes]
    probes.reverse()
    assert database.pages.get_many(bucket, probes) == [model[b"b"].get(key) for key in probes]
    for start, end, limit in [(b"0100", b"0300", 0), (b"0100", b"0300", 5), (b"", None, 3), (b"m", b"a", 0)]:
        wanted = sorted(
            (key, value) for key, value in model[b"b"].items() if key >= start and (end is None or key < end)
        )
        assert database.pages.scan(bucket, start, end, limit) == wanted[: limit or None]
    assert database.pages.last_key(bucket) == max(model[b"b"], default=None)
    database.close()


def filled(path: Path, count: int, fill: float = 0.9) -> Database:
    database = Database.open(OsFiles(), str(path), grow_bytes=GROW, sync=False)
    change(database, {b"key": {b"%08d" % n: b"v" * 100 for n in range(count)}}, fill)
    return database


def test_branches_keep_two_children_as_bbolt_demands_when_all_but_a_few_keys_go(tmp_path: Path) -> None:
    """bbolt asserts it when it rebalances; a branch of one child that we left would stop a Go etcd."""
    database = filled(tmp_path / "db", 20_000)
    rnd = random.Random(4)
    left = set(range(20_000))
    while left:
        gone = rnd.sample(sorted(left), max(1, len(left) * 3 // 4))
        left -= set(gone)
        change(database, {b"key": {b"%08d" % n: None for n in gone}})
        assert set(database.pages.scan(database.state.buckets[b"key"], b"", None, 0)) == {
            (b"%08d" % n, b"v" * 100) for n in left
        }
        counts = branch_counts(database)
        assert all(count >= 2 for count in counts)
    assert database.state.buckets[b"key"].root == 0, "an empty bucket lies inline"
    database.close()


def branch_counts(database: Database) -> list[int]:
    counts = []
    todo = [bucket.root for bucket in database.state.buckets.values() if bucket.root]
    while todo:
        kind, count, data, _ = database.pages.read(todo.pop())
        if kind == pages.BRANCH:
            counts.append(count)
            todo += pages.decode_branch(data, count)[1]
    return counts


def test_a_database_that_shrank_gives_its_pages_to_what_comes_next(tmp_path: Path) -> None:
    database = filled(tmp_path / "db", 20_000)
    full = database.size_bytes
    change(database, {b"key": {b"%08d" % n: None for n in range(19_990)}})
    assert database.size_in_use_bytes < full / 20
    change(database, {b"key": {b"1%08d" % n: b"w" * 100 for n in range(18_000)}}, 0.9)
    assert database.size_bytes < full * 1.02
    database.close()


def test_appended_pages_are_filled_to_nine_tenths_and_others_to_the_half(tmp_path: Path) -> None:
    for fill, low, high in [(0.9, 0.85, 0.95), (0.5, 0.45, 0.55)]:
        database = filled(tmp_path / f"db{fill}", 10_000, fill)
        used = 10_000 * (16 + 8 + 100) / database.size_in_use_bytes
        assert low - 0.05 < used < high
        database.close()


def test_buckets_keep_their_sequence_and_small_ones_lie_inline(tmp_path: Path) -> None:
    database = Database.open(OsFiles(), str(tmp_path / "db"), grow_bytes=GROW)
    change(database, {b"small": {b"k": b"v" * 900}, b"big": {b"k": b"v" * 1000}, b"empty": {}})
    buckets = database.state.buckets
    assert buckets[b"small"].inline is not None
    assert buckets[b"empty"].inline is not None
    assert buckets[b"big"].inline is None
    change(database, {b"small": {b"k": b"v" * 1000}, b"big": {b"k": b"v"}})
    assert database.state.buckets[b"small"].inline is None
    assert database.state.buckets[b"big"].inline is not None
    database.close()


def test_a_pin_reads_its_state_whatever_follows_and_its_pages_come_back(tmp_path: Path) -> None:
    database = filled(tmp_path / "db", 3000)
    wanted = content(database)[b"key"]
    pin = database.pin()
    for n in range(20):
        change(database, {b"key": {b"%08d" % k: b"%d" % n for k in range(0, 3000, 7)}})
    assert dict(pin.scan(b"key")) == wanted
    assert pin.get(b"key", b"00000000") == b"v" * 100
    assert pin.get(b"other", b"k") is None
    assert pin.buckets() == [b"key"]
    assert database.pinned_pages > 50
    # 20 rewrites of nearly all pages cost about two copies, not 20: what was born after the pin is used
    # again.
    assert database.size_bytes < 4 * pin.size
    before = database.size_in_use_bytes
    pin.close()
    pin.close()
    assert database.pinned_pages == 0
    assert database.size_in_use_bytes < before
    database.close()


def test_the_image_of_a_pin_is_a_database_of_just_that_state(tmp_path: Path) -> None:
    database = filled(tmp_path / "db", 3000)
    change(database, {b"meta": {b"term": b"1"}})
    wanted = content(database)
    pin = database.pin()
    change(database, {b"key": {b"%08d" % k: None for k in range(3000)}})
    change(database, {b"key": {b"9%08d" % k: b"x" * 50 for k in range(3000)}})
    parts = []
    while sum(map(len, parts)) < pin.size:
        parts.append(pin.read(sum(map(len, parts)), 3 * 4096))
    assert pin.read(pin.size, 10) == b""
    (tmp_path / "copy").write_bytes(b"".join(parts))
    copy = Database.open(OsFiles(), str(tmp_path / "copy"))
    assert not copy.checked_sums
    assert copy.state.meta.txid == pin.txid
    assert content(copy) == wanted
    change(copy, {b"meta": {b"term": b"2"}})
    copy.close()
    pin.close()
    database.close()


@pytest.mark.parametrize("page_size", [1024, 16384, 65536])
def test_the_page_size_is_that_of_the_file(page_size: int, tmp_path: Path) -> None:
    path = tmp_path / "db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_module, "PAGE_SIZE", page_size)
        Database.open(OsFiles(), str(path), grow_bytes=GROW).close()
    assert path.stat().st_size == 4 * page_size
    database = filled(path, 3000)
    wanted = content(database)
    database.close()
    data = bytearray(path.read_bytes())
    data[20] ^= 1  # without the first meta page its size has to be guessed
    path.write_bytes(data)
    database = Database.open(OsFiles(), str(path))
    assert database.pages.page_size == page_size
    assert content(database) in (wanted, {})
    database.close()


def test_a_new_database_takes_four_pages_and_etcds_buckets_one_more(tmp_path: Path) -> None:
    database = Database.open(OsFiles(), str(tmp_path / "db"))
    assert database.size_bytes == 4 * 4096
    names = b"key meta lease alarm cluster members members_removed auth authUsers authRoles".split()
    change(database, {name: {} for name in names})
    assert sorted(database.state.buckets) == sorted(names)
    assert database.size_bytes <= 5 * 4096
    for n in range(30):
        change(database, {b"meta": {b"consistent_index": b"%08d" % n}})
    assert database.size_bytes <= 6 * 4096
    database.close()


def test_runs_of_free_pages_are_found_and_reader_keep_theirs() -> None:
    free = FreePages(bytes([1, 1, 0, 1, 0, 0, 1, 0, 0, 0]))
    assert free.count == 6
    assert free.allocate(3, 1) == 7
    assert free.allocate(3, 1) == 0
    assert free.allocate(2, 1) == 4
    assert free.allocate(1, 1) == 2
    assert free.allocate(1, 1) == 0
    assert free.grow(2, 1) == 10
    free.free(4, 2)
    assert free.allocate(1, 1) == 0, "not before the transaction is durable"
    free.add_reader(0)  # of a state that used page 4
    free.committed(1)
    assert (free.count, free.pending_count) == (0, 2)
    born = free.grow(1, 2)
    free.committed(2)
    free.free(born, 1)
    free.committed(3)
    assert free.count == 1, "the reader has never seen this page"
    free.remove_reader(0)
    assert (free.count, free.pending_count, free.readers) == (3, 0, 0)
