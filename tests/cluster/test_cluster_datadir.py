"""What may lie in a data directory, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyetcd.cluster.datadir import DataDir, DataDirError, Found, check_database, prepare
from pyetcd.storage.files import OsFiles

FILES = OsFiles()


def snapshot_of(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_new_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    place = DataDir(str(tmp_path / "a" / "data"))
    assert prepare(FILES, place) == Found(has_log=False, has_database=False)
    for path in (place.path, place.member, place.snap):
        assert os.stat(path).st_mode & 0o777 == 0o700
    assert os.listdir(place.snap) == []
    assert not os.path.exists(place.wal)


def test_what_is_there_is_found(tmp_path: Path) -> None:
    place = DataDir(str(tmp_path / "data"))
    prepare(FILES, place)
    os.mkdir(place.wal, 0o700)
    Path(place.wal, "0000000000000000-0000000000000000.wal").write_bytes(b"x")
    Path(place.database).write_bytes(b"x")
    assert prepare(FILES, place) == Found(has_log=True, has_database=True)


def test_the_log_may_live_elsewhere(tmp_path: Path) -> None:
    place = DataDir(str(tmp_path / "data"), str(tmp_path / "log"))
    os.mkdir(place.wal)
    Path(place.wal, "0000000000000000-0000000000000000.wal").write_bytes(b"x")
    assert prepare(FILES, place).has_log


def test_a_database_without_its_log_is_refused_and_kept(tmp_path: Path) -> None:
    place = DataDir(str(tmp_path / "data"))
    prepare(FILES, place)
    Path(place.database).write_bytes(b"precious")
    before = snapshot_of(tmp_path)
    with pytest.raises(DataDirError, match=r"db is there, but its write-ahead log .*/member/wal is missing"):
        prepare(FILES, place)
    assert snapshot_of(tmp_path) == before


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataDirError, match=r"cannot access data directory: mkdir .*data: not a directory"):
        prepare(FILES, DataDir(str(tmp_path / "data")))
    with pytest.raises(DataDirError, match="cannot access data directory"):
        prepare(FILES, DataDir(str(tmp_path / "data" / "below")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o500)
    with pytest.raises(DataDirError, match="permission denied"):
        prepare(FILES, DataDir(str(tmp_path / "data")))


def test_open_permissions_are_only_warned_about(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.chmod(tmp_path, 0o755)
    prepare(FILES, DataDir(str(tmp_path)))
    assert 'the permission is \\"drwxr-xr-x\\". The recommended permission is' in capfd.readouterr().err


def test_database_and_log_belong_together_if_the_database_is_ahead_of_the_marker(tmp_path: Path) -> None:
    place = DataDir(str(tmp_path))
    for marker, consistent in ((0, 0), (0, 7), (7, 7), (7, 8)):
        assert check_database(FILES, place, Found(True, True), marker, consistent) is None


def test_a_received_database_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    place = DataDir(str(tmp_path))
    os.makedirs(place.snap)
    received = Path(place.snap, "0000000000000010.snap.db")
    received.write_bytes(b"x")
    assert check_database(FILES, place, Found(True, True), 16, 7) == str(received)


def test_a_database_older_than_the_marker_is_refused_with_etcds_text(tmp_path: Path) -> None:
    place = DataDir(str(tmp_path))
    text = r"failed to find database snapshot file \(snap: snapshot file doesn't exist\): .*index 7 does not"
    with pytest.raises(DataDirError, match=text):
        check_database(FILES, place, Found(True, True), 16, 7)


def test_a_missing_database_is_refused_if_the_log_does_not_reach_back(tmp_path: Path) -> None:
    place = DataDir(str(tmp_path))
    with pytest.raises(DataDirError, match="of the backend is missing or empty; the log needs it from 16 on"):
        check_database(FILES, place, Found(True, False), 16, 0)
