"""Database files go back and forth between Go's bbolt and ours: it opens, checks and changes what we wrote,
and we what it wrote.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles

Content = dict[bytes, dict[bytes, bytes]]
FREE_LISTS = ("none", "array", "map")  # how Go writes down what is free; etcd does not


def run(gobolt: Path, *args: object) -> str:
    done = subprocess.run([str(gobolt), *map(str, args)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen_by_go(gobolt: Path, path: Path) -> Content:
    """What bbolt finds in the file, which it must find faultless."""
    assert run(gobolt, "check", path) == ""
    unhex = bytes.fromhex
    return {
        name.encode(): {unhex(key): unhex(value) for key, value in bucket["Items"].items()}
        for name, bucket in json.loads(run(gobolt, "dump", path)).items()
    }


def seen_by_us(path: Path) -> Content:
    backend = Backend.open(OsFiles(), str(path), None)
    pin = backend.pin()
    content = {name: dict(pin.scan(name)) for name in pin.buckets()}
    pin.close()
    backend.discard()
    return content


def change(path: Path, rnd: random.Random, commits: int) -> None:
    """Some commits as etcd makes them: revisions appended and compacted, small buckets rewritten."""
    backend = Backend.open(OsFiles(), str(path), None)
    for name in (b"lease", b"meta", b"empty"):
        backend.create_bucket(name)
    last = backend.scan(b"key", b"")[-1:]
    revision = int.from_bytes(last[0][0][:8], "big") if last else 0
    for _ in range(commits):
        revision += 1
        for sub in range(rnd.choice([1, 5, 60, 300])):
            key = revision.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")
            backend.append(key, rnd.randbytes(rnd.choice([0, 40, 300, 300, 300, 9000])))
        for key, _ in backend.scan(b"key", b"", None, rnd.choice([0, 1, 40, 400])):
            if rnd.random() < 0.7:
                backend.delete(b"key", key)
        for _ in range(rnd.choice([0, 3, 200])):
            key = b"%d" % rnd.randrange(300)
            if rnd.random() < 0.3:
                backend.delete(b"lease", key)
            else:
                backend.put(b"lease", key, key)
        backend.put(b"meta", b"consistent_index", revision.to_bytes(8, "big"))
        backend.commit_now()
    backend.close_now()


@pytest.mark.parametrize("seed", range(3))
def test_bbolt_finds_what_we_wrote_and_no_fault_in_it(gobolt: Path, tmp_path: Path, seed: int) -> None:
    rnd, path = random.Random(seed), tmp_path / "db"
    for _ in range(4):
        change(path, rnd, 6)
        assert seen_by_go(gobolt, path) == seen_by_us(path)


@pytest.mark.parametrize("free_list", FREE_LISTS)
def test_we_find_what_bbolt_wrote_and_go_on_with_it(gobolt: Path, tmp_path: Path, free_list: str) -> None:
    rnd, path = random.Random(free_list), tmp_path / "db"
    for turn in range(4):
        run(gobolt, "change", path, turn, 12, free_list)
        written = seen_by_go(gobolt, path)
        assert sum(map(len, written.values())) > 100
        assert seen_by_us(path) == written
        change(path, rnd, 3)
        assert seen_by_go(gobolt, path) == seen_by_us(path) != written


def test_a_new_database_of_ours_is_one_bbolt_opens(gobolt: Path, tmp_path: Path) -> None:
    path = tmp_path / "db"
    Backend.open(OsFiles(), str(path), None).close_now()
    assert seen_by_go(gobolt, path) == {}
    run(gobolt, "change", path, 1, 5, "none")
    assert seen_by_us(path) == seen_by_go(gobolt, path)


def test_bbolt_sees_damage_where_there_is_some(gobolt: Path, tmp_path: Path) -> None:
    """The check of the tests above is one that can fail."""
    path = tmp_path / "db"
    backend = Backend.open(OsFiles(), str(path), None)
    for number in range(100):
        backend.put(b"lease", b"lease %03d" % number, bytes(20))
    backend.close_now()
    assert run(gobolt, "check", path) == ""
    path.write_bytes(path.read_bytes().replace(b"lease 099", b"abase 099"))  # which is out of order
    with pytest.raises(AssertionError, match=r"needs to be > .found <. than previous element"):
        run(gobolt, "check", path)
