"""A data directory is opened as it was left, or refused and left as it was found."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from whole_member import UnsyncedFiles, configured, content, opened, put, serving

from pyetcd.cluster.datadir import DataDirError
from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.member.opening import CannotOpen
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import Compare, PutRequest, RequestOp, TxnRequest
from pyetcd.storage.wal import WalCorrupt

Found = dict[str, bytes]


def config(directory: Path, **settings: object) -> ServerConfig:
    return configured(directory, **{"snapshot_count": 20, **settings})


def everything(directory: Path) -> Found:
    """All files, without what is zero at their ends."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes().rstrip(b"\0") for path in files}


def database(directory: Path) -> Path:
    return directory / "member" / "snap" / "db"


def segments(directory: Path) -> list[Path]:
    return sorted((directory / "member" / "wal").glob("*.wal"))


async def write(directory: Path, first: int, count: int, **settings: object) -> None:
    async with serving(config(directory, **settings), UnsyncedFiles()) as member:
        for number in range(first, first + count):
            await put(member, b"key-%03d" % number, b"value")


async def keys(directory: Path) -> list[bytes]:
    async with serving(config(directory), UnsyncedFiles()) as member:
        return [kv.key for kv in content(member)]


def expected(count: int) -> list[bytes]:
    return [b"key-%03d" % number for number in range(count)]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A directory with snapshots, and beside it a database of before the last of them."""
    asyncio.run(write(tmp_path / "data", 0, 30))
    shutil.copy(database(tmp_path / "data"), tmp_path / "older")
    asyncio.run(write(tmp_path / "data", 30, 60))
    return tmp_path


def test_a_database_older_than_the_newest_marker_is_refused_and_all_stays_as_it_was(older: Path) -> None:
    data = older / "data"
    good = database(data).read_bytes()
    shutil.copy(older / "older", database(data))
    torn = segments(data)[-1]
    end = len(torn.read_bytes().rstrip(b"\0"))
    whole = torn.read_bytes()
    torn.write_bytes(whole[: end - 3])  # would be cut in a directory that is accepted
    before = everything(data)
    text = r"failed to find database snapshot file \(snap: snapshot file doesn't exist\): .*/db index \d+"
    for _ in range(2):  # all locks are given back
        with pytest.raises(DataDirError, match=text):
            opened(config(data), UnsyncedFiles())
        assert everything(data) == before
    torn.write_bytes(whole)
    database(data).write_bytes(good)
    assert asyncio.run(keys(data)) == expected(90)


def test_a_missing_database_that_the_log_cannot_replace_is_refused_and_none_is_made(older: Path) -> None:
    data = older / "data"
    database(data).unlink()
    before = everything(data)
    with pytest.raises(DataDirError, match="the log needs it from"):
        opened(config(data), UnsyncedFiles())
    assert everything(data) == before


def test_a_missing_database_is_made_anew_from_a_log_that_reaches_back(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 0, 40, snapshot_count=1000))
    database(tmp_path).unlink()
    assert asyncio.run(keys(tmp_path)) == expected(40)


def test_snapshot_files_do_not_matter_at_a_start(older: Path) -> None:
    data = older / "data"
    files = sorted((data / "member" / "snap").glob("*.snap"))
    assert len(files) >= 3
    files[-1].write_bytes(b"garbage")
    files[-2].write_bytes(b"")
    files[-3].unlink()
    (data / "member" / "snap" / "00000000000000ff-000000000000ffff.snap").write_bytes(b"of the future")
    assert asyncio.run(keys(data)) == expected(90)


def test_what_an_interrupted_snapshot_left_is_removed_by_a_start_that_succeeds(older: Path) -> None:
    data = older / "data"
    left = data / "member" / "snap" / "tmp-0000000000000002-0000000000000018.snap"
    left.write_bytes(b"half")
    good = database(data).read_bytes()
    shutil.copy(older / "older", database(data))
    with pytest.raises(DataDirError):
        opened(config(data), UnsyncedFiles())
    assert left.exists()
    database(data).write_bytes(good)
    assert asyncio.run(keys(data)) == expected(90)
    assert not left.exists()


def test_the_log_may_live_elsewhere_in_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    elsewhere = {"wal_dir": str(tmp_path / "far" / "away" / "log") + "/"}
    asyncio.run(write(tmp_path / "data", 0, 3, **elsewhere))
    asyncio.run(write(tmp_path / "data", 3, 60, **elsewhere))
    assert not (tmp_path / "data" / "member" / "wal").exists()
    assert list((tmp_path / "far" / "away" / "log").glob("*.wal"))
    with pytest.raises(DataDirError, match=r"write-ahead log .*/member/wal is missing"):
        opened(config(tmp_path / "data"), UnsyncedFiles())


def test_damage_in_the_middle_of_the_log_is_refused_with_file_and_offset(tmp_path: Path) -> None:
    asyncio.run(write(tmp_path, 0, 40, snapshot_count=1000))
    first = segments(tmp_path)[0]
    data = bytearray(first.read_bytes())
    data[data.index(b"key-010")] ^= 1
    first.write_bytes(data)
    before = everything(tmp_path)
    with pytest.raises(WalCorrupt, match=rf"wal: {first} is corrupt at offset \d+: crc mismatch"):
        opened(config(tmp_path), UnsyncedFiles())
    assert everything(tmp_path) == before


class Interrupted(BaseException):
    """The process ends here."""


class EndsAt(UnsyncedFiles):
    """The process ends with the first write to a file whose name ends so, behind its first `kept` bytes."""

    def __init__(self, name: str, kept: int, but: int = 0) -> None:
        self._name, self._kept, self._but = name, kept, but
        self._fds: set[int] = set()

    def open(self, path: str, **how: bool) -> int:
        fd = super().open(path, **how)
        if path.endswith(self._name):
            self._fds.add(fd)
        return fd

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        if fd not in self._fds:
            super().pwrite(fd, data, offset)
        elif self._but:
            self._but -= 1
            super().pwrite(fd, data, offset)
        else:
            super().pwrite(fd, data[: self._kept], offset)
            raise Interrupted


def cut_short(place: Path, files: EndsAt) -> Path:
    """What is left of a first start that was cut short, without the locks of this process on it."""

    async def start() -> None:
        async with serving(config(place / "cut"), files):
            pass

    with pytest.raises(Interrupted):
        asyncio.run(start())
    return Path(shutil.copytree(place / "cut", place / "left"))


@pytest.mark.parametrize("kept", [0, 8, 60])
def test_a_first_start_cut_short_in_its_first_append_begins_again(tmp_path: Path, kept: int) -> None:
    """Neither a member without a voter, which waits for ever, nor a refusal: nothing was promised yet."""
    left = cut_short(tmp_path, EndsAt("-0000000000000000.wal", kept, but=1))
    assert len(segments(left)) == 1
    asyncio.run(write(left, 0, 3))
    assert asyncio.run(keys(left)) == expected(3)


def test_a_first_start_cut_short_before_there_is_a_log_begins_anew(tmp_path: Path) -> None:
    left = cut_short(tmp_path, EndsAt("-0000000000000000.wal", 20))
    assert not segments(left)
    asyncio.run(write(left, 0, 3))
    assert asyncio.run(keys(left)) == expected(3)


def test_a_first_start_cut_short_is_not_continued_by_another_cluster(tmp_path: Path) -> None:
    left = cut_short(tmp_path, EndsAt("-0000000000000000.wal", 0, but=1))
    with pytest.raises(CannotOpen, match=r"was begun for member \w+ of cluster \w+ and never got further"):
        opened(config(left, initial_cluster_token="another"), UnsyncedFiles())
    asyncio.run(write(left, 0, 3))


async def stop_amid_a_long_transaction(member: Member) -> None:
    """Its condition walks over all keys, which takes turns."""
    await asyncio.gather(*(put(member, b"key-%04d" % number, b"v") for number in range(4000)))
    every = Compare(target=Compare.VERSION, result=Compare.GREATER, version=0, key=b"k", range_end=b"l")
    then = RequestOp(request_put=PutRequest(key=b"done", value=b"v"))
    request = TxnRequest(compare=[every], success=[then])
    kind = InternalRaftRequest.TXN_FIELD_NUMBER
    asking = asyncio.ensure_future(member.request(kind, request.SerializeToString(), request))
    async with asyncio.timeout(20):
        while member.applied_index == member.committed_index and not asking.done():
            await asyncio.sleep(0)
            if member.consensus._busy:
                break
    assert member.consensus._busy
    assert not asking.done()
    asking.add_done_callback(lambda done: done.exception())


def test_a_stop_amid_a_long_entry_waits_for_nothing_and_the_next_start_applies_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(config(tmp_path), UnsyncedFiles()) as member:
            await stop_amid_a_long_transaction(member)
            revision = member.store.revision
        async with serving(config(tmp_path), UnsyncedFiles()) as member:
            assert member.store.revision == revision + 1
            assert content(member)[0].key == b"done"

    asyncio.run(work())
