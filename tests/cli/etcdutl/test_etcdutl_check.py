"""`check`: what is sound passes, each kind of damage is found and told with advice, nothing is written."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_files import StepFiles
from servers import Etcd, GoEtcd
from utl_runner import Made, Utl, content, make_database

from pyetcd.cli.etcdutl.check import look_at
from pyetcd.cluster.datadir import DataDir
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.storage import schema
from pyetcd.storage.schema import KEY, META, revision_key

PAGE = 4096
WAL = "wal/0000000000000000-0000000000000000.wal"


@pytest.fixture(scope="module")
def fresh(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as `snapshot restore` makes it."""
    from pyetcd.cli.etcdutl import main

    path = tmp_path_factory.mktemp("fresh") / "data"
    assert main(["etcdutl", "snapshot", "restore", str(made.path), f"--data-dir={path}"]) == 0
    return path


@pytest.fixture
def member(fresh: Path, tmp_path: Path) -> Path:
    """A copy of it, to do harm to."""
    subprocess.run(["cp", "-r", str(fresh), str(tmp_path / "data")], check=True)
    return tmp_path / "data/member"


def found(utl: Utl, level: str = "damage") -> list[str]:
    """The findings of this level as `where: problem`."""
    ran = utl("check", "--data-dir=data", "-w", "json")
    report = json.loads(ran.out)
    assert ran.code == (0 if report["sound"] else 1)
    assert report["sound"] == (not any(each["level"] == "damage" for each in report["findings"]))
    return [f"{each['where']}: {each['problem']}" for each in report["findings"] if each["level"] == level]


def change(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_restored_directory_is_sound_and_stays_as_it_is(utl: Utl, member: Path, made: Made) -> None:
    before = {path: path.read_bytes() for path in member.rglob("*") if path.is_file()}
    ran = utl("check", "--data-dir", "data")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("\nsound\n")
    assert f"  revision: {made.revision}\n  compacted revision: {made.compacted}\n" in ran.out
    assert "  proved by: checksums\n" in ran.out
    assert {path: path.read_bytes() for path in member.rglob("*") if path.is_file()} == before


def test_no_file_is_opened_for_writing(member: Path) -> None:
    files = StepFiles(0)  # which raises at the first step that changes anything
    assert look_at(files, DataDir(str(member.parent)), 1).is_sound
    assert files.steps == []


def test_directories_of_servers_are_sound_after_a_kill(
    utl: Utl, goetcd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, whose in enumerate((Etcd, GoEtcd)):
        directory = tmp_path / whose.__name__
        directory.mkdir()
        monkeypatch.chdir(directory)
        server = Etcd(directory) if number == 0 else GoEtcd(goetcd, directory)
        try:
            for key in range(200):
                server.put(b"%d" % key, b"value" * key)
            ran = utl("check", "--data-dir=data", "--timeout=100ms")
            assert (ran.code, ran.out) == (1, "")
            assert "a member runs on it" in ran.err
            assert server.put(b"last", b"") == 202, "the member goes on"
        finally:
            server.close()
        assert found(utl) == []
        told = utl("check", "--data-dir=data").out
        assert f"proved by: {'checksums' if number == 0 else 'structure'}" in told
        server.restart()
        server.close()


def test_a_page_that_changed_is_named_with_its_place_and_advice(utl: Utl, member: Path) -> None:
    database = member / "snap/db"
    at = database.read_bytes().rindex(b"vvvvvvvv")
    change(database, at, b"w")
    (problem,) = found(utl)
    assert problem.startswith(
        f"data/member/snap/db: page {at // PAGE} at offset {at // PAGE * PAGE}: its bytes"
    )
    ran = utl("check", "--data-dir=data")
    assert (ran.code, ran.err) == (1, "Error: data is damaged\n")
    assert "\n  -> Do not start a member on it. " in ran.out
    assert ran.out.endswith("\nDAMAGED\n")


def test_without_checksums_structure_shows_every_page_that_is_broken(utl: Utl, member: Path) -> None:
    (member / "snap/db.sum").unlink()
    database = member / "snap/db"
    data = database.read_bytes()
    leaves = [
        at for at in range(0, len(data), PAGE) if data[at + 8 : at + 10] == b"\2\0" and data[at : at + 8]
    ]
    used = [at for at in leaves if int.from_bytes(data[at : at + 8], "little") == at // PAGE]
    for at in used[-2:]:
        change(database, at + 8, b"\x77")
    # One of them may have been free already; whatever the tree reaches is told of.
    assert any("not a page of type 0x77" in problem for problem in found(utl)), found(utl)


def test_one_meta_page_is_enough_and_the_other_is_told_of(utl: Utl, member: Path) -> None:
    database = member / "snap/db"
    data = database.read_bytes()
    newest = max((0, PAGE), key=lambda at: int.from_bytes(data[at + 16 + 48 : at + 16 + 56], "little"))
    change(database, PAGE - newest + 20, b"?")
    assert found(utl) == []
    (warning,) = found(utl, "warning")
    assert "meta page" in warning
    change(database, newest + 20, b"?")
    (damage,) = found(utl)
    assert "invalid database" in damage


def test_a_truncated_database_is_damaged(utl: Utl, member: Path) -> None:
    os.truncate(member / "snap/db", 5 * PAGE)
    assert any("truncated: it ends at byte 20480" in problem for problem in found(utl))


def rewritten(member: Path, edit: Callable[[dict[bytes, dict[bytes, bytes]]], None]) -> None:
    """Put another database in place, with the same content but for what `edit` changes."""
    path = member / "snap/db"
    rows = content(path)
    edit(rows)
    path.unlink()
    (member / "snap/db.sum").unlink(missing_ok=True)
    make_database(path, rows)


def last_put(rows: dict[bytes, dict[bytes, bytes]]) -> tuple[bytes, KeyValue]:
    stored = max(rows[KEY])
    return stored, KeyValue.FromString(rows[KEY][stored])


def test_a_version_that_does_not_follow_is_found(utl: Utl, member: Path) -> None:
    def edit(rows: dict[bytes, dict[bytes, bytes]]) -> None:
        stored, kv = last_put(rows)
        kv.version += 1
        rows[KEY][stored] = kv.SerializeToString()

    rewritten(member, edit)
    (problem,) = found(utl)
    assert problem.startswith('bucket key: revision 11: "after" is version 2 of what revision 11 created')


def test_a_record_under_another_revision_is_found(utl: Utl, member: Path) -> None:
    def edit(rows: dict[bytes, dict[bytes, bytes]]) -> None:
        stored, _ = last_put(rows)
        rows[KEY][revision_key(99)] = rows[KEY].pop(stored)

    rewritten(member, edit)
    (problem,) = found(utl)
    assert problem == 'bucket key: revision 99: "after" says that it is of revision 11'


@pytest.mark.parametrize(
    ("bucket", "key", "value", "problem"),
    [
        (KEY, b"no revision", b"", "bucket key: b'no revision' is not a revision"),
        (KEY, revision_key(77), b"\xff", "bucket key: revision 77: its record cannot be read"),
        (
            KEY,
            revision_key(77, 0, True),
            KeyValue(key=b"nobody").SerializeToString(),
            'bucket key: revision 77 deletes "nobody", which is not there',
        ),
        (schema.LEASE, bytes(8), b"\xff", "bucket lease: lease 0000000000000000 cannot be read"),
        (schema.MEMBERS, b"77", b"{", "bucket members: couldn't read members from backend: b'77': "),
        (schema.AUTH_USERS, b"root", b"\xff", 'bucket authUsers: "root" cannot be read, or is'),
        (schema.ALARM, b"\xff", b"", 'bucket alarm: "\\xff" is no alarm'),
        (META, schema.CONSISTENT_INDEX, b"short", "bucket meta: consistent_index has 5 bytes, not 8"),
        (META, schema.CONF_STATE, b"{", "bucket meta: confState cannot be read"),
        (META, schema.CONF_STATE, b'{"voters":[7]}', "bucket meta: confState names the members 7, "),
        (META, schema.CONSISTENT_INDEX, (9).to_bytes(8, "big"), "database and log: the database has "),
        (META, schema.TERM, (9).to_bytes(8, "big"), "database and log: the database is of term 9"),
        (META, schema.CONSISTENT_INDEX, bytes(8), "database and log: the log begins behind index 1"),
    ],
)  # fmt: skip
def test_what_a_bucket_cannot_hold_is_found(
    utl: Utl, member: Path, bucket: bytes, key: bytes, value: bytes, problem: str
) -> None:
    rewritten(member, lambda rows: rows.setdefault(bucket, {}).__setitem__(key, value))
    assert any(each.startswith(problem) for each in found(utl)), found(utl)


def test_keys_of_leases_that_are_gone_are_told_of(utl: Utl, member: Path) -> None:
    rewritten(member, lambda rows: rows[schema.LEASE].clear())
    assert found(utl) == []
    assert any("1 keys are attached to 1 leases that do not exist" in each for each in found(utl, "warning"))


def test_the_log_of_another_member_is_found(utl: Utl, member: Path, made: Made) -> None:
    other = "--name=o", "--initial-cluster=o=http://o:1", "--initial-advertise-peer-urls=http://o:1"
    assert utl("snapshot", "restore", str(made.path), "--data-dir=other", *other).code == 0
    (member / WAL).unlink()
    (member.parent.parent / "other/member" / WAL).rename(member / WAL)
    assert any("whom the database does not know" in problem for problem in found(utl))


def test_a_record_of_the_log_that_changed_is_found(utl: Utl, member: Path) -> None:
    at = (member / WAL).read_bytes().index(b"http://localhost")
    change(member / WAL, at, b"H")
    problems = found(utl)
    assert any("crc mismatch" in problem for problem in problems)
    assert len(problems) == 1, "told once"


def test_a_torn_end_is_no_damage(utl: Utl, member: Path) -> None:
    log = member / WAL
    end = len(log.read_bytes().rstrip(b"\0"))
    change(log, -(-end // 8) * 8, (40).to_bytes(8, "little") + b"\x08\x02\x10")
    assert found(utl) == []
    (warning,) = found(utl, "warning")
    assert "its end is torn at offset" in warning


def test_a_missing_log_is_damage_and_a_missing_database_may_be_made_anew(utl: Utl, member: Path) -> None:
    log = (member / WAL).read_bytes()
    (member / WAL).unlink()
    assert found(utl) == ["data/member/wal: there is no log, without which no member starts on the database"]
    (member / WAL).write_bytes(log)
    (member / "snap/db").unlink()
    assert found(utl) == ["data: the log begins behind index 1, and the database is gone"]


def test_what_crashes_leave_is_noted(utl: Utl, member: Path) -> None:
    (member / "snap/db.tmp.1").touch()
    (member / "wal/x.broken").touch()
    (snap,) = member.glob("snap/*.snap")
    change(snap, 9, b"??")
    assert found(utl) == []
    assert len(found(utl, "note")) == 2
    (warning,) = found(utl, "warning")
    assert warning.startswith(f"{snap.relative_to(member.parent.parent)}: cannot be read: snap: ")


def test_a_lock_is_waited_for(utl: Utl, member: Path) -> None:
    with (member / "snap/db").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ran = utl("check", "--data-dir=data", "--timeout=60ms")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: the database is in use")
    assert utl("check", "--data-dir=data").code == 0


def test_what_is_no_data_directory_is_refused(utl: Utl) -> None:
    ran = utl("check", "--data-dir=nowhere")
    assert (ran.code, ran.err) == (1, "Error: stat nowhere/member/snap: no such file or directory\n")
    assert utl("check", "--data-dir=nowhere", "-w", "table").code == 4
