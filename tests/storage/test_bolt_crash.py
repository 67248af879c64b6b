"""Power may fail at any moment of a commit: what is found afterwards is the state before it or after it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from bolt_disk import Content, Image, RecordingFiles, applied, change, content, place, random_changes

from pyetcd.storage.bolt import Database
from pyetcd.storage.files import OsFiles

Changes = dict[bytes, dict[bytes, bytes | None]]
HOW = ("none", "all", "some", "torn", "torn")
GROW = 64 << 10


def read_back(directory: Path, files: dict[str, bytes]) -> tuple[Content, int, bool]:
    database = Database.open(OsFiles(), str(place(directory, files)), grow_bytes=GROW)
    try:
        return content(database), database.state.meta.txid, database.checked_sums
    finally:
        database.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_commit_cut_at_every_write_and_sync_leaves_the_state_before_or_after_it(
    seed: int, tmp_path: Path
) -> None:
    rnd = random.Random(seed)
    files = RecordingFiles()
    database = Database.open(files, str(tmp_path / "db"), grow_bytes=GROW)
    image = Image({})
    for operation in files.operations:
        image.advance(operation)
    files.operations.clear()
    before: Content = {}
    for revision in range(1, 14):
        changes = random_changes(rnd, before, revision)
        after = applied(before, changes)
        change(database, changes, rnd.choice([0.5, 0.9]))
        # An earlier commit makes the checksum file; from then on every state must be checked against its
        # sums.
        sums_exist = "db.sum" in image.named
        for at, operation in enumerate(files.operations):
            for how in HOW:
                found, txid, checked = read_back(tmp_path / "crash", image.lose_power(rnd, how))
                assert found in (before, after), (revision, at, how)
                assert (found == after) == (txid == database.state.meta.txid)
                assert checked or not sums_exist, "a crash must not cost the checksums"
            image.advance(operation)
        found, _, checked = read_back(tmp_path / "crash", image.lose_power(rnd, "none"))
        assert found == after, "the commit is durable when it returns"
        assert checked
        files.operations.clear()
        before = after
    database.close()


@pytest.mark.parametrize("seed", range(4))
def test_crash_after_crash_loses_nothing_that_was_durable(seed: int, tmp_path: Path) -> None:
    """Goes on from what a crash left, so that leftovers of aborted commits are written over."""
    rnd = random.Random(100 + seed)
    left: dict[str, bytes] = {}
    before: Content = {}
    for revision in range(1, 25):
        files = RecordingFiles()
        database = Database.open(files, str(place(tmp_path / "run", left)), grow_bytes=GROW)
        assert content(database) == before
        image = Image(left)
        states = [before]
        for _ in range(rnd.randrange(1, 4)):
            changes = random_changes(rnd, states[-1], revision)
            change(database, changes)
            states.append(applied(states[-1], changes))
        cut = rnd.randrange(len(files.operations) + 1)
        for operation in files.operations[:cut]:
            image.advance(operation)
        database.close()
        left = image.lose_power(rnd, rnd.choice(HOW))
        found, _, _ = read_back(tmp_path / "check", left)
        assert found in states
        before = found
        left = {name: (tmp_path / "check" / name).read_bytes() for name in left}


def without_sums(directory: Path, files: dict[str, bytes], changes: Changes) -> dict[str, bytes]:
    """The files after a commit by somebody who knows nothing of checksums, as Go's bbolt."""
    database = Database.open(OsFiles(), str(place(directory, files)), grow_bytes=GROW, checksums=False)
    change(database, changes)
    database.close()
    return {name: (directory / name).read_bytes() for name in files}


@pytest.mark.parametrize("sidecar", ["missing", "stale", "damaged", "of another database"])
def test_a_crash_of_the_commit_that_ties_new_checksums_costs_nothing(sidecar: str, tmp_path: Path) -> None:
    """All sums are written anew then, over whatever is there; until its end that must do no harm."""
    rnd = random.Random(sidecar)
    database = Database.open(OsFiles(), str(tmp_path / "db"), grow_bytes=GROW)
    before = applied({}, random_changes(rnd, {}, 1))
    before[b"key"] = {b"%03d" % number: rnd.randbytes(200) for number in range(300)}
    change(database, before)
    database.close()
    start = {name: (tmp_path / name).read_bytes() for name in ("db", "db.sum")}
    if sidecar == "missing":
        del start["db.sum"]
    elif sidecar == "stale":
        changes = random_changes(rnd, before, 2)
        start, before = without_sums(tmp_path / "go", start, changes), applied(before, changes)
    elif sidecar == "damaged":
        start["db.sum"] = rnd.randbytes(len(start["db.sum"]))
    else:
        other = Database.open(OsFiles(), str(place(tmp_path / "other", {})), grow_bytes=GROW)
        change(other, {b"key": {b"%03d" % number: rnd.randbytes(200) for number in range(300)}})
        other.close()
        start["db.sum"] = (tmp_path / "other" / "db.sum").read_bytes()
    files = RecordingFiles()
    database = Database.open(files, str(place(tmp_path / "run", start)), grow_bytes=GROW)
    assert content(database) == before
    assert not database.checked_sums
    image = Image(start)
    for turn in (3, 4):  # the next one as well: it writes but a few of the sums
        changes = random_changes(rnd, before, turn)
        after = applied(before, changes)
        change(database, changes)
        for at, operation in enumerate(files.operations):
            for how in HOW:
                found, txid, _ = read_back(tmp_path / "crash", image.lose_power(rnd, how))
                assert found in (before, after), (turn, at, how)
                assert (found == after) == (txid == database.state.meta.txid)
            image.advance(operation)
        files.operations.clear()
        found, _, checked = read_back(tmp_path / "crash", image.lose_power(rnd, "none"))
        assert found == after
        assert checked, "from here on the sums count again"
        before = after
    database.close()


@pytest.mark.parametrize("how", HOW)
def test_the_creation_of_a_database_can_be_cut_anywhere(how: str, tmp_path: Path) -> None:
    rnd = random.Random(7)
    files = RecordingFiles()
    Database.open(files, str(tmp_path / "db"), grow_bytes=GROW).close()
    image = Image({})
    for operation in files.operations:
        found, _, _ = read_back(tmp_path / "crash", image.lose_power(rnd, how))
        assert found == {}
        image.advance(operation)
    assert read_back(tmp_path / "crash", image.lose_power(rnd, "none"))[0] == {}


@pytest.mark.parametrize("how", ["none", "torn"])
def test_what_was_synced_once_is_in_place_even_if_the_first_commit_is_cut(how: str, tmp_path: Path) -> None:
    rnd = random.Random(3)
    files = RecordingFiles()
    database = Database.open(files, str(tmp_path / "db"), grow_bytes=GROW)
    created = len(files.operations)
    change(database, {b"key": {b"a": b"1"}})
    database.close()
    image = Image({})
    for at, operation in enumerate(files.operations):
        if at >= created:
            left = image.lose_power(rnd, how)
            assert "db" in left, "the name of the database is synced into its directory"
            assert read_back(tmp_path / "crash", left)[0] in ({}, {b"key": {b"a": b"1"}})
        image.advance(operation)


def test_a_failing_disk_at_any_operation_leaves_the_old_state_and_says_so(tmp_path: Path) -> None:
    rnd = random.Random(11)
    files = RecordingFiles()
    path = tmp_path / "db"
    database = Database.open(files, str(path), grow_bytes=GROW)
    change(database, {b"key": {b"%d" % n: rnd.randbytes(300) for n in range(300)}})
    before = content(database)
    database.close()
    start = {name: (tmp_path / name).read_bytes() for name in ("db", "db.sum")}
    changes: dict[bytes, dict[bytes, bytes | None]] = {
        b"key": {b"%d" % n: rnd.randbytes(2000) for n in range(400)}
    }
    after = applied(before, changes)
    for failures in range(100):
        files = RecordingFiles()
        again = place(tmp_path / "again", start)
        database = Database.open(files, str(again), grow_bytes=GROW)
        files.fail_at = failures
        try:
            change(database, changes)
            break
        except OSError:
            assert content(database) == before, "reads go on"
        finally:
            database.close()
        meta_written = [each.kind for each in files.operations][-2:] == ["sync", "write"]
        found, _, _ = read_back(tmp_path / "crash", {n: (again.parent / n).read_bytes() for n in start})
        assert found == (after if meta_written else before), "only the meta page commits"
    assert failures >= 6
