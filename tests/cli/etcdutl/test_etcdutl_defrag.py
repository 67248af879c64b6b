"""`defrag`: smaller, with all that was there, whatever happens on the way."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest
from crash_files import Killed, StepFiles, steps_of
from utl_runner import Utl, content, make_database

from pyetcd.storage.backend import Backend
from pyetcd.storage.defrag import PREFIX, defragment_now
from pyetcd.storage.files import OsFiles
from pyetcd.storage.schema import KEY, META, revision_key


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database of which most was deleted again, with its checksums beside it."""
    path = tmp_path / "data/member/snap/db"
    rows = {revision_key(number): b"%d" % number * 200 for number in range(2, 1200)}
    make_database(path, {KEY: rows, META: {b"consistent_index": bytes(8)}, b"empty": {}})
    backend = Backend.open(OsFiles(), str(path), None)
    for key in list(rows)[:900]:
        backend.delete(KEY, key)
    backend.commit_now()
    backend.put(META, b"term", bytes(8))
    backend.close_now()
    return path


def defragment_at(database: Path, files: OsFiles) -> None:
    backend = Backend.open(files, str(database), None)
    try:
        defragment_now(files, backend)
    finally:
        backend.discard()


def test_all_is_there_in_less_space(utl: Utl, database: Path) -> None:
    before, size = content(database), database.stat().st_size
    ran = utl("defrag", "--data-dir", "data")
    assert (ran.code, ran.out) == (0, "")
    assert content(database) == before
    assert database.stat().st_size < size // 2
    assert sorted(each.name for each in database.parent.iterdir()) == ["db", "db.sum"]
    first, last = ran.told
    assert first.startswith('info defragmenting {"path": "data/member/snap/db", "current-db-size-bytes": ')
    assert last.startswith('info finished defragmenting directory {"path": "data/member/snap/db", ')
    assert '"took": "' in last


def test_buckets_stay_even_the_empty_ones(utl: Utl, database: Path) -> None:
    assert b"empty" not in content(database), "nothing was put there"
    backend = Backend.open(OsFiles(), str(database), None)
    backend.create_bucket(b"empty")
    backend.close_now()
    assert utl("defrag", "--data-dir", "data").code == 0
    assert content(database)[b"empty"] == {}


def test_the_old_checksums_accuse_nobody_and_new_ones_follow(database: Path) -> None:
    defragment_at(database, OsFiles())
    backend = Backend.open(OsFiles(), str(database), None)
    backend.put(META, b"term", bytes(7) + b"\1")
    backend.close_now()
    assert content(database)[META][b"term"] == bytes(7) + b"\1"


def test_killed_at_any_step_it_leaves_the_database_or_its_copy(database: Path) -> None:
    before = content(database)
    original = database.read_bytes()
    steps = steps_of(lambda files: defragment_at(database, files))
    assert len(steps) > 10
    for last in range(len(steps)):
        database.write_bytes(original)
        with pytest.raises(Killed):
            defragment_at(database, StepFiles(last))
        assert content(database) == before, steps[last]
    defragment_at(database, OsFiles())
    assert not (database.parent / (PREFIX + "defrag")).exists(), "what was left behind is cleared away"


def test_the_copy_is_on_disk_before_it_takes_the_name(database: Path) -> None:
    steps = steps_of(lambda files: defragment_at(database, files))
    copy = str(database.parent / (PREFIX + "defrag"))
    renamed = steps.index(("rename", str(database)))
    assert [kind for kind, name in steps[:renamed] if name == copy][-1] == "sync"
    assert ("sync names", str(database.parent)) in steps[renamed:]


def test_a_full_disk_leaves_the_database_as_it_was(database: Path) -> None:
    original = database.read_bytes()
    full = OSError(errno.ENOSPC, "No space left on device")
    steps = steps_of(lambda files: defragment_at(database, files))
    database.write_bytes(original)
    for last, (kind, name) in enumerate(steps):
        if kind in ("write", "truncate", "create") and name.endswith(PREFIX + "defrag"):
            with pytest.raises(OSError, match="No space"):
                defragment_at(database, StepFiles(last, full))
            assert database.read_bytes() == original
            assert not (database.parent / (PREFIX + "defrag")).exists()


def test_a_member_that_runs_is_left_alone(utl: Utl, database: Path) -> None:
    with database.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ran = utl("defrag", "--data-dir=data", "--timeout=120ms")
    assert ran.code == 2, "where Go panics"
    assert ran.told == ['fatal failed to open database {"path": "data/member/snap/db", "error": "timeout"}']


def test_a_damaged_database_is_not_copied(utl: Utl, database: Path) -> None:
    data = database.read_bytes().replace(b"1111" * 50, b"1112" * 50)
    database.write_bytes(data)
    ran = utl("defrag", "--data-dir=data")
    assert ran.code == 2
    assert "its bytes are not those that were written (checksum mismatch)" in ran.told[0]
    assert database.read_bytes() == data
