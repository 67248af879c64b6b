"""Damaged files: what changed on disk is refused, and no bytes whatever crash, hang or exhaust us."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from bolt_disk import Content, change, content, place

from pyetcd.storage.bolt import Database, DatabaseCorrupt, DatabaseError, DatabaseLocked, NotADatabase
from pyetcd.storage.bolt import page as pages
from pyetcd.storage.files import OsFiles

GROW = 64 << 10
PAGE = 4096


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[Content]]:
    """A database of some 120 pages with branches, overflow pages, inline and larger buckets, and its last
    two states."""
    rnd = random.Random(1)
    path = tmp_path_factory.mktemp("good") / "db"
    database = Database.open(OsFiles(), str(path), grow_bytes=GROW)
    change(
        database, {b"key": {b"%06d_key" % n: rnd.randbytes(rnd.choice([100, 400])) for n in range(900)}}, 0.9
    )
    change(
        database,
        {b"key": {b"000100_key": rnd.randbytes(9000)}, b"lease": {b"%03d" % n: b"x" * 20 for n in range(99)}},
    )
    change(database, {b"meta": {b"term": b"7"}, b"alarm": {}})
    states = [content(database)]
    change(database, {b"key": {b"000200_key": b"changed"}, b"meta": {b"term": b"8"}})
    states.append(content(database))
    database.close()
    return {name: (path.parent / name).read_bytes() for name in ("db", "db.sum")}, states


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_a_flipped_bit_in_any_page_is_never_served(
    good: tuple[dict[str, bytes], list[Content]], tmp_path: Path
) -> None:
    files, states = good
    rnd = random.Random(2)
    refused = 0
    size = len(files["db"]) // PAGE
    for number in range(2, size):
        at = number * PAGE + rnd.randrange(PAGE)
        damaged = {**files, "db": flipped(files["db"], at, rnd.randrange(8))}
        path = place(tmp_path, damaged)
        try:
            database = Database.open(OsFiles(), str(path), grow_bytes=GROW)
        except DatabaseCorrupt as error:
            refused += 1
            named = (error.path, error.page, error.offset)
            text = str(error)
        else:
            assert content(database) == states[-1], "the page was free"
            database.close()
            continue
        assert named == (str(path), number, number * PAGE)
        assert text.startswith(f"{path}: page {number} at offset {number * PAGE}: ")
    assert refused >= 70


def test_a_page_that_changes_while_it_is_pinned_is_not_read_into_an_image(
    good: tuple[dict[str, bytes], list[Content]], tmp_path: Path
) -> None:
    """But for pages that are not in use: what they hold is nobody's business."""
    files, _ = good
    path = place(tmp_path, files)
    database = Database.open(OsFiles(), str(path), grow_bytes=GROW)
    pin = database.pin()
    whole = pin.read(0, pin.size)
    free: list[int] = []
    refused: list[tuple[int, int]] = []
    for number in range(2, pin.size // PAGE):
        with path.open("r+b") as file:
            file.seek(number * PAGE)
            file.write(flipped(whole[number * PAGE :][:PAGE], number % PAGE))
        fresh = database.pin()
        try:
            read = b"".join(fresh.read(at, 8 * PAGE) for at in range(0, fresh.size, 8 * PAGE))
        except DatabaseCorrupt as error:
            refused.append((error.page, number))
        else:
            assert len(read) == pin.size
            free.append(number)
        fresh.close()
        with path.open("r+b") as file:
            file.seek(number * PAGE)
            file.write(whole[number * PAGE :][:PAGE])
    assert len(refused) >= 70
    assert all(told == changed for told, changed in refused)
    assert free
    assert pin.read(0, pin.size) == whole
    pin.close()
    database.close()


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_meta_page_gives_way_to_the_other(
    number: int, good: tuple[dict[str, bytes], list[Content]], tmp_path: Path
) -> None:
    """As bbolt does: the state before is whole, and the log of raft brings back what came after it."""
    files, states = good
    found = []
    for at in range(16, 80):
        path = place(tmp_path, {**files, "db": flipped(files["db"], number * PAGE + at)})
        database = Database.open(OsFiles(), str(path), grow_bytes=GROW)
        assert database.checked_sums, "the state before has its sums too"
        found.append(content(database))
        database.close()
    latest = number == 1  # the last transaction id is odd
    assert all(each == states[0 if latest else 1] for each in found)


def test_without_a_valid_meta_page_it_is_no_database(
    good: tuple[dict[str, bytes], list[Content]], tmp_path: Path
) -> None:
    data = flipped(flipped(good[0]["db"], 20), PAGE + 20)
    with pytest.raises(NotADatabase, match=r"db: not a bbolt database"):
        Database.open(OsFiles(), str(place(tmp_path, {"db": data})))


@pytest.mark.parametrize(
    "data", [b"hello", b"\x7fELF" * 5000, b"\xff" * 100_000, bytes(100_000), b"\0" * 16384 + b"x"]
)
def test_a_foreign_file_is_refused_and_left_as_it_is(data: bytes, tmp_path: Path) -> None:
    path = place(tmp_path, {"db": data})
    with pytest.raises(NotADatabase):
        Database.open(OsFiles(), str(path))
    assert path.read_bytes() == data


def test_a_truncated_database_is_refused_at_every_length(
    good: tuple[dict[str, bytes], list[Content]], tmp_path: Path
) -> None:
    files, _ = good
    rnd = random.Random(5)
    database = Database.open(OsFiles(), str(place(tmp_path, files)), grow_bytes=GROW)
    needed = database.size_bytes
    database.close()
    lengths = [1, 8, 79, 80, 100, PAGE, PAGE + 80, 2 * PAGE, needed - 1]
    for length in [*lengths, *(rnd.randrange(needed) for _ in range(150))]:
        cut = {**files, "db": files["db"][:length]}
        path = place(tmp_path, cut)
        with pytest.raises((DatabaseCorrupt, NotADatabase)) as caught:
            Database.open(OsFiles(), str(path), grow_bytes=GROW)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == cut["db"], "nothing is destroyed"


def test_damage_without_checksums_never_harms_us(
    good: tuple[dict[str, bytes], list[Content]], tmp_path: Path
) -> None:
    """What Go has written has no checksums. Structure is proved at opening; what passes can be read and
    written."""
    files, _ = good
    rnd = random.Random(9)
    opened = 0
    size = len(files["db"]) // PAGE - GROW // PAGE
    for _ in range(600):
        data = bytearray(files["db"])
        for _ in range(rnd.choice([1, 1, 2, 50])):
            number = rnd.randrange(2, size)
            at = number * PAGE + rnd.choice([rnd.randrange(16), rnd.randrange(200), rnd.randrange(PAGE)])
            data[at] = rnd.choice([0, 1, 0xFF, data[at] ^ 1 << rnd.randrange(8)])
        path = place(tmp_path, {"db": bytes(data)})
        try:
            database = Database.open(OsFiles(), str(path), grow_bytes=GROW)
        except DatabaseError:
            continue
        opened += 1
        seen = content(database)
        for name, bucket in database.state.buckets.items():
            keys = sorted(seen[name])
            assert database.pages.get_many(bucket, keys) == [seen[name][key] for key in keys]
        change(database, {b"key": {b"%06d_key" % n: None for n in range(0, 900, 3)}})
        database.close()
    assert opened > 50


def test_a_cycle_of_pages_ends_with_an_error(tmp_path: Path) -> None:
    """A branch that is its own descendant."""
    path = tmp_path / "db"
    database = Database.open(OsFiles(), str(path), grow_bytes=GROW, checksums=False)
    change(database, {b"key": {b"%06d" % n: b"v" * 500 for n in range(100)}})
    root = database.state.buckets[b"key"].root
    database.close()
    data = bytearray(path.read_bytes())
    data[root * PAGE + 16 + 8 : root * PAGE + 16 + 16] = root.to_bytes(8, "little")  # its first child
    path.write_bytes(data)
    with pytest.raises(DatabaseCorrupt, match=r"page \d+ at offset \d+: the page is referred to twice"):
        Database.open(OsFiles(), str(path))


def test_the_checksum_file_may_be_lost_foreign_or_stale(
    good: tuple[dict[str, bytes], list[Content]], tmp_path: Path
) -> None:
    """It is gathered anew, and from the next commit on it protects again."""
    files, states = good
    sums = files["db.sum"]
    for other in (
        None,
        b"",
        b"x",
        bytes(len(sums)),
        sums[:4200],
        flipped(flipped(sums, 9), 521),
        sums[:4096],
    ):
        left = {"db": files["db"]} if other is None else {**files, "db.sum": other}
        path = place(tmp_path, left)
        database = Database.open(OsFiles(), str(path), grow_bytes=GROW)
        assert not database.checked_sums
        assert content(database) == states[-1]
        change(database, {b"meta": {b"term": b"9"}})
        database.close()
        database = Database.open(OsFiles(), str(path), grow_bytes=GROW)
        assert database.checked_sums
        database.close()
        damaged = path.read_bytes()
        place(
            tmp_path,
            {"db": flipped(damaged, damaged.index(b"changed")), "db.sum": (tmp_path / "db.sum").read_bytes()},
        )
        with pytest.raises(DatabaseCorrupt, match="checksum mismatch"):
            Database.open(OsFiles(), str(path))


def test_sums_count_only_for_the_meta_page_they_were_written_for(
    good: tuple[dict[str, bytes], list[Content]], tmp_path: Path
) -> None:
    """Go's bbolt clears the seal when it writes a meta page; then old sums accuse nobody."""
    files, _ = good
    data = bytearray(files["db"])
    for meta in (0, PAGE):
        data[meta + 80 : meta + PAGE] = bytes(PAGE - 80)
    at = data.index(b"changed")
    data[at : at + 7] = b"by Go's"
    database = Database.open(OsFiles(), str(place(tmp_path, {**files, "db": bytes(data)})), grow_bytes=GROW)
    assert not database.checked_sums
    assert content(database)[b"key"][b"000200_key"] == b"by Go's"
    database.close()


def test_a_second_opener_is_turned_away_until_the_first_has_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    first = Database.open(OsFiles(), path)
    with pytest.raises(DatabaseLocked, match="another process holds the file lock"):
        Database.open(OsFiles(), path)
    with pytest.raises(DatabaseLocked):
        Database.open(OsFiles(), path, read_only=True)
    pin = first.pin()
    first.close()
    del pin  # a mapping that is still alive must not keep the lock
    readers = [Database.open(OsFiles(), path, read_only=True) for _ in range(2)]
    with pytest.raises(DatabaseError, match="opened for reading only"):
        readers[0].begin()
    for each in readers:
        each.close()


def test_a_page_of_an_impossible_shape_is_not_decoded_beyond_its_bytes() -> None:
    data = pages.encode_leaf(7, [b"a", b"b"], [b"1", b"2"], None, 0)
    keys, values, flags = pages.decode_leaf(data, 2)
    assert (keys, values, list(flags)) == ([b"a", b"b"], [b"1", b"2"], [0, 0])
    with pytest.raises(Exception, match="requires a buffer"):
        pages.decode_leaf(data[:40], 2)
