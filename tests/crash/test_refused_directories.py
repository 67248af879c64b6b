"""Directories that are not this member's to use: refused in one clear line at once, and left as they were."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_member import Crashable, contents
from crash_seed import Seed, copy, edit, keys_of

NOBODY = 65534


@pytest.fixture
def placed(member: Crashable, seed: Seed) -> Crashable:
    seed.place(member.data)
    return member


def as_nobody() -> None:
    """Nobody special: for root no permission is ever missing."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@pytest.fixture
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose parents everybody may pass."""
    made = tmp_path_factory.mktemp("open")
    parents = [made, *(parent for parent in made.parents if parent.stat().st_uid == os.geteuid())]
    modes = [(parent, stat.S_IMODE(parent.stat().st_mode)) for parent in parents]
    for parent, mode in modes:
        parent.chmod(mode | 0o011)
    made.chmod(0o777)
    yield made
    for parent, mode in modes:
        parent.chmod(mode)


def give_away(data: Path) -> None:
    """To the one who will run the member."""
    if os.geteuid() == 0:
        for path in [data, *data.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("3.8.0", 'version "3.8.0" is not supported'),
        ("3.9.0", 'version "3.9.0" is not supported'),
        ("4.0.0", "changing major storage version is not supported"),
    ],
)
def test_a_newer_storage_is_refused_in_etcds_words(version: str, text: str, placed: Crashable) -> None:
    edit(placed.data, b"meta", b"storageVersion", version.encode())
    placed.refuses(str(placed.data / "member/snap/db"), text)


def test_a_newer_cluster_is_refused_in_etcds_words(placed: Crashable) -> None:
    edit(placed.data, b"cluster", b"clusterVersion", b"3.9.0")
    placed.refuses("invalid downgrade; server version is lower than determined cluster version", "3.9")


@pytest.mark.parametrize(
    ("bucket", "key", "value"),
    [
        (b"cluster", b"clusterVersion", b"junk"),
        (b"cluster", b"downgrade", b"junk"),
        (b"members", b"junk", b"{}"),
        (b"members", b"1234", b"junk"),
        (b"lease", b"\0\0\0\0\0\0\0\1", b"junk\xff"),
        (b"alarm", b"junk\xff", b""),
        (b"key", b"junk", b"junk"),
        (b"key", b"\0" * 7 + b"\1_" + b"\0" * 8, b"junk\xff"),
        (b"meta", b"scheduledCompactRev", b"junk"),
    ],
)
def test_contents_that_make_no_sense_are_refused(
    bucket: bytes, key: bytes, value: bytes, placed: Crashable
) -> None:
    """Another program wrote them, with good checksums."""
    edit(placed.data, bucket, key, value)
    placed.refuses(str(placed.data / "member/snap/db"))


def test_the_database_of_another_member_is_refused(member: Crashable, seed: Seed, tmp_path: Path) -> None:
    other = Crashable(tmp_path / "other", initial_cluster_token="another")
    other.start()
    for number in range(5):
        other.put(b"k%d" % number, b"v")
    other.stop()
    shutil.copytree(other.data, member.data)
    wal = member.data / "member/wal"
    shutil.rmtree(wal)
    copy(seed.late / "member/wal", wal)
    member.refuses(str(member.data / "member/snap/db"), str(wal), "does not belong")


def test_on_a_restart_the_flags_that_made_the_cluster_do_not_matter(placed: Crashable, seed: Seed) -> None:
    placed.flags |= {"name": "other", "initial-cluster-token": "other", "initial-cluster-state": "existing"}
    placed.flags["initial-cluster"] = f"other={placed.peer_url}"
    placed.start()
    assert keys_of(placed) == seed.late_keys


def test_a_second_process_on_the_same_directory_is_refused_and_the_first_goes_on(
    placed: Crashable, seed: Seed, tmp_path: Path
) -> None:
    placed.start()
    second = Crashable(tmp_path, data=placed.data)
    refusal = second.refused()
    assert refusal.code == 1
    assert str(placed.data / "member/snap/db") in refusal.fatal
    assert "another process" in refusal.fatal
    assert refusal.seconds < 5
    assert placed.put(b"a", b"1") == seed.revision + 1
    placed.stop(signal.SIGKILL)
    placed.start()
    assert keys_of(placed) == {**seed.late_keys, b"a": b"1"}


def test_a_second_process_is_refused_also_where_only_the_log_is_shared(seed: Seed, tmp_path: Path) -> None:
    """Two data directories, one --wal-dir."""
    wal = tmp_path / "wal"
    members = []
    for name in ("one", "two"):
        member = Crashable(tmp_path / name, wal_dir=wal)
        seed.place(member.data)
        if not wal.exists():
            shutil.move(member.data / "member/wal", wal)
        shutil.rmtree(member.data / "member/wal", ignore_errors=True)
        members.append(member)
    members[0].start()
    refusal = members[1].refused()
    members[0].put(b"a", b"1")
    members[0].stop()
    assert refusal.code == 1
    assert str(wal) in refusal.fatal
    assert "file already locked" in refusal.fatal


@pytest.mark.parametrize("name", ["", "member", "member/snap", "member/wal"])
def test_a_file_where_a_directory_should_be_is_refused(name: str, placed: Crashable) -> None:
    path = placed.data / name
    shutil.rmtree(path)
    path.write_bytes(b"a file")
    refusal = placed.refused()
    assert refusal.code == 1
    assert refusal.fatal.endswith("not a directory")
    assert str(path) in refusal.fatal
    assert path.read_bytes() == b"a file"


def test_a_directory_where_the_database_should_be_is_refused(placed: Crashable) -> None:
    path = placed.data / "member/snap/db"
    path.unlink()
    path.mkdir()
    placed.refuses(str(path))


@pytest.mark.parametrize("name", ["README", "0.wal", "base/1/pg_filenode.map"])
def test_files_of_another_program_where_the_log_should_be_are_not_touched(
    name: str, member: Crashable
) -> None:
    foreign = member.data / "member/wal" / name
    foreign.parent.mkdir(parents=True)
    for path in (member.data, member.data / "member", member.data / "member/wal"):
        path.chmod(0o700)
    (member.data / "member/snap").mkdir(0o700)
    foreign.write_text("somebody's")
    member.refuses(str(member.data / "member/wal"), "not overwritten")


def test_foreign_files_beside_the_member_are_left_alone(member: Crashable) -> None:
    """As in etcd: a mount point has its lost+found."""
    (member.data / "lost+found").mkdir(parents=True)
    (member.data / "notes.txt").write_text("mine")
    member.start()
    member.put(b"a", b"1")
    member.stop()
    assert (member.data / "notes.txt").read_text() == "mine"
    assert "found invalid file under data directory" in member.printed.text()


def test_a_directory_of_the_old_proxy_is_refused_in_etcds_words(member: Crashable) -> None:
    (member.data / "proxy").mkdir(parents=True)
    refusal = member.refuses()
    assert refusal.fatal == "v2 http proxy has already been deprecated in 3.6"
    (member.data / "member").mkdir()
    member.refuses("invalid datadir; both member and proxy directories exist")


@pytest.mark.parametrize("name", ["member/snap/db", "member/wal"])
def test_what_must_not_be_read_is_refused(name: str, open_to_all: Path, seed: Seed) -> None:
    member = Crashable(open_to_all)
    seed.place(member.data)
    give_away(member.data)
    path = member.data / name
    os.chown(path, 0, 0) if os.geteuid() == 0 else None
    path.chmod(0)
    before = contents(member.data)
    refusal = member.refused(as_nobody)
    assert refusal.code == 1
    assert str(path) in refusal.fatal
    assert "ermission denied" in refusal.fatal
    assert contents(member.data) == before


@pytest.mark.parametrize("name", ["", "member", "member/snap", "member/wal"])
def test_a_read_only_directory_is_refused(name: str, open_to_all: Path, seed: Seed) -> None:
    member = Crashable(open_to_all)
    seed.place(member.data)
    give_away(member.data)
    path = member.data / name
    path.chmod(0o500)
    before = contents(member.data)
    refusal = member.refused(as_nobody)
    path.chmod(0o700)
    assert refusal.code == 1
    assert str(path) in refusal.fatal
    assert "permission denied" in refusal.fatal
    path.chmod(0o500)
    assert contents(member.data) == before
    path.chmod(0o700)


def test_a_read_only_file_system_is_refused(placed: Crashable, tmp_path: Path) -> None:
    target = tmp_path / "mounted"
    target.mkdir()
    mounted = subprocess.run(["mount", "--bind", placed.data, target], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", target], check=True)
        member = Crashable(tmp_path, data=target)
        member.refuses(str(target), "read-only file system")
    finally:
        subprocess.run(["umount", target], check=True)
    placed.start()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    member = Crashable(tmp_path, data=tmp_path / "file/data")
    refusal = member.refused()
    assert refusal.code == 1
    assert str(tmp_path / "file/data") in refusal.fatal
