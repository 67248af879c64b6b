"""A damaged log: a torn end is cut, everything else is refused in one clear line and left as it was."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crash_member import ROUNDS, Crashable
from crash_seed import LATE_KEYS, Seed, copy, copy_file, keys_of

from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles
from pyetcd.storage.wal import LogEntry, Replay, read_only
from pyetcd.storage.wal.tail import SECTOR_BYTES


@pytest.fixture
def placed(member: Crashable, seed: Seed) -> Crashable:
    seed.place(member.data)
    return member


def segments(member: Crashable) -> list[Path]:
    return sorted((member.data / "member/wal").glob("*.wal"))


def log_of(member: Crashable) -> Replay[LogEntry]:
    return read_only(OsFiles(), str(member.data / "member/wal"), entry=LogEntry)


def entry_at(member: Crashable, index: int) -> tuple[Path, int]:
    """File and offset of an entry."""
    path, offset = log_of(member).locate(index)
    return Path(path), offset


@contextmanager
def changed(path: Path, data: bytes) -> Iterator[None]:
    """Have a file hold something else for a while."""
    before = path.read_bytes()
    path.write_bytes(data)
    yield
    path.write_bytes(before)


@contextmanager
def flipped(path: Path, at: int, bit: int = 0) -> Iterator[None]:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 1 << bit,)))
    yield
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes((byte,)))


def torn_lengths(start: int, length: int, how: str) -> list[int]:
    """Where to cut the last records, an entry and the hard state that came with it: a crash leaves zeros from
    the beginning of a sector on, a hand can end the file anywhere.
    """
    if how == "zeros":
        return [0, *range(-start % SECTOR_BYTES, length, SECTOR_BYTES), length]
    rnd = random.Random(4)
    lengths = {0, 1, 7, 8, 9, 20, length - 1, length}
    lengths.update(rnd.randrange(length) for _ in range(2 * ROUNDS))
    return sorted(lengths)


@pytest.mark.parametrize("how", ["zeros", "end of file"])
def test_a_torn_last_record_is_cut_and_all_before_it_is_there(
    how: str, placed: Crashable, seed: Seed
) -> None:
    path, start = entry_at(placed, log_of(placed).last_index)
    whole = path.read_bytes()
    database = placed.data / "member/snap"
    without_last = dict(seed.late_keys)
    del without_last[b"late-%05d" % (LATE_KEYS - 1)]
    seen = set()
    for length in torn_lengths(start, len(whole[start:].rstrip(b"\0")), how):
        path.write_bytes(whole[: start + length])
        if how == "zeros":
            os.truncate(path, len(whole))
        for name in ("db", "db.sum"):
            copy_file(seed.early / "member/snap" / name, database / name)
        placed.start()
        found = keys_of(placed)
        placed.put(b"another", b"1")
        placed.stop(signal.SIGKILL)
        assert found in (without_last, seed.late_keys), length
        seen.add(found == seed.late_keys)
        cut = placed.printed.text().count('"msg":"repairing"')
        broken = sorted(placed.data.rglob("*.broken"))
        assert len(broken) == cut, "what is cut off is kept"
        for each in broken:
            assert each.read_bytes() == whole[: start + length].rstrip(b"\0")
            each.unlink()
    assert seen == {False, True}
    placed.start()
    assert keys_of(placed) == {**found, b"another": b"1"}


def test_a_few_bytes_changed_to_zeros_in_the_last_record_are_no_torn_end(placed: Crashable) -> None:
    path, start = entry_at(placed, log_of(placed).last_index)
    with path.open("r+b") as file:
        file.seek(start + 40)
        file.write(bytes(3))
    placed.refuses(str(path), f"offset {start}:")


def test_a_flipped_bit_anywhere_in_the_log_is_refused_with_file_and_offset(placed: Crashable) -> None:
    rnd = random.Random(1)
    last = log_of(placed).last_index
    for index in [1, last - 1, *(rnd.randrange(2, last) for _ in range(6))]:
        path, offset = entry_at(placed, index)
        at = offset + rnd.choice([0, 8, 10, 14, 18, 26, 30])  # word, kind, checksum, body
        with flipped(path, at, rnd.randrange(8)):
            refusal = placed.refuses(str(path), "offset ")
        named = int(refusal.fatal.split("offset ")[1].split(":")[0])
        assert named <= at, "what was read before it was right"
    placed.start()


@pytest.mark.parametrize("which", [0, 3, -1])
@pytest.mark.parametrize("what", ["zeros", "garbage", "empty", "another file"])
def test_a_segment_that_is_none_is_refused(which: int, what: str, placed: Crashable) -> None:
    path = segments(placed)[which]
    size = path.stat().st_size
    garbage = random.Random(2).randbytes(size)
    contents = {"zeros": bytes(size), "garbage": garbage, "empty": b"", "another file": b"hello\n" * 50}
    with changed(path, contents[what]):
        placed.refuses(str(path), "offset 0")


def test_the_executable_says_the_same(seed: Seed, tmp_path: Path) -> None:
    """All other tests here fork what it runs."""
    executable = Crashable(tmp_path, forked=False)
    seed.place(executable.data)
    path = segments(executable)[0]
    path.write_bytes(bytes(path.stat().st_size))
    refusal = executable.refuses(str(path), "offset 0")
    assert refusal.text.splitlines()[-1].startswith('{"level":"fatal",')


def test_a_log_that_is_all_zeros_or_garbage_is_refused(placed: Crashable) -> None:
    rnd = random.Random(3)
    for make in (bytes, rnd.randbytes):
        for path in segments(placed):
            path.write_bytes(make(path.stat().st_size))
        placed.refuses(str(segments(placed)[-1]), "offset 0")


@pytest.mark.parametrize("with_directory", [True, False])
def test_a_database_without_its_log_is_refused(with_directory: bool, placed: Crashable) -> None:
    wal = placed.data / "member/wal"
    shutil.rmtree(wal)
    if with_directory:
        wal.mkdir(0o700)
    placed.refuses(str(wal), str(placed.data / "member/snap/db"), "missing")


@pytest.mark.parametrize("which", [0, 1, 4, -2])
def test_a_missing_segment_is_refused(which: int, placed: Crashable) -> None:
    """Any but the last: what stood only there, nobody else knows of."""
    segments(placed)[which].unlink()
    placed.refuses(str(placed.data / "member/wal"))


def test_a_log_that_ends_before_what_the_database_holds_is_refused(placed: Crashable) -> None:
    """The last segments are missing, from the one on in which the database's own position lies."""
    database = Backend.open(OsFiles(), str(placed.data / "member/snap/db"), None)
    applied, _ = schema.position(database)
    database.close_now()
    first_missing, _ = entry_at(placed, applied)
    for path in segments(placed):
        if path >= first_missing:
            path.unlink()
    placed.refuses(str(placed.data / "member/wal"))


def test_segments_in_another_order_are_refused(placed: Crashable) -> None:
    first, second = segments(placed)[2:4]
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    placed.refuses(".wal", "is corrupt")


@pytest.mark.parametrize("length", [5, 100, 4096, 20_000])
def test_a_truncated_segment_in_the_middle_is_refused(length: int, placed: Crashable) -> None:
    path = segments(placed)[3]
    os.truncate(path, length)
    placed.refuses(".wal", "is corrupt")


def test_a_log_older_than_its_database_is_refused(placed: Crashable, seed: Seed) -> None:
    """As when a backup of the log was put back."""
    placed.start()
    for number in range(20):
        placed.put(b"k%d" % number, b"v")
    placed.stop()
    shutil.rmtree(placed.data / "member/wal")
    copy(seed.late / "member/wal", placed.data / "member/wal")
    placed.refuses(str(segments(placed)[-1]), "the log ends with entry", "the database has applied entry")
