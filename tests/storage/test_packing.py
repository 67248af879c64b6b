"""Packed copies: trees of every height, read back by the engine, which proves each page."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pyetcd.storage.bolt import Database, page
from pyetcd.storage.bolt.meta import Meta, encode
from pyetcd.storage.files import OsFiles
from pyetcd.storage.inspection import Inspection
from pyetcd.storage.packing import NESTED_MAX, TooDeep, pack

FILES = OsFiles()
PAGE = 4096


def made(path: Path, rows: dict[bytes, dict[bytes, bytes | None]]) -> None:
    database = Database.open(FILES, str(path), sync=False, checksums=False)
    for bucket, values in rows.items():
        commit = database.begin()
        for _ in commit.apply(bucket, sorted(values), values):
            pass
        database.commit(commit)
    database.close()


def packed(path: Path, target: Path) -> int:
    source = Inspection.open(FILES, str(path))
    try:
        return pack(FILES, source, str(target), sync=False)
    finally:
        source.close()


@pytest.mark.parametrize("key_bytes", [8, 300, 1000, 5000])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9, 10, 28, 200])
def test_all_is_there_and_nothing_is_free(tmp_path: Path, count: int, key_bytes: int) -> None:
    chance = random.Random(f"{count} {key_bytes}")
    values: dict[bytes, bytes | None] = {
        str(number).encode().rjust(key_bytes, b"k"): chance.randbytes(chance.choice((0, 9, 900, 9000)))
        for number in range(count)
    }
    rows = {b"bucket": values, b"other": {b"key": b"value"}}
    made(tmp_path / "x.db", rows)
    size = packed(tmp_path / "x.db", tmp_path / "y.db")
    assert (tmp_path / "y.db").stat().st_size == size
    database = Database.open(FILES, str(tmp_path / "y.db"), read_only=True)
    pin = database.pin()
    try:
        assert {name: dict(pin.scan(name)) for name in pin.buckets()} == rows
        assert database.size_bytes == size
        assert database.free.count == 0
    finally:
        pin.close()
        database.close()


def test_buckets_that_are_nested_beyond_all_measure_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    """Each page from 3 on is the root of a bucket that has the next one in it."""
    depth = NESTED_MAX + 2
    pages = [
        page.encode_leaf(number, [b"b"], [page.bucket_header.pack(number + 1, 0)], [page.BUCKET], 0)
        for number in range(3, 3 + depth)
    ]
    pages.append(page.encode_leaf(3 + depth, [b"k"], [b"v"], None, 0))
    metas = [encode(Meta(PAGE, 3, 0, 2, 4 + depth, txid)) for txid in (0, 1)]
    pages.insert(0, page.header.pack(2, page.FREELIST, 0, 0))
    (tmp_path / "x.db").write_bytes(b"".join(each.ljust(PAGE, b"\0") for each in [*metas, *pages]))
    with pytest.raises(TooDeep):
        packed(tmp_path / "x.db", tmp_path / "y.db")
    assert not (tmp_path / "y.db").exists()
