"""The log as its user sees it: what was saved is read back, across segments, restarts and other hands."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from wal_disk import DirectAppender, HeldAppender, MemoryFiles

from pyetcd.proto import raft_pb2, wal_pb2
from pyetcd.storage import wal as walroom
from pyetcd.storage.files import Files, OsFiles
from pyetcd.storage.wal import (
    HardState,
    LogEntry,
    Marker,
    Replay,
    Wal,
    WalCorrupt,
    WalError,
    WalLocked,
    WalMissing,
    read_only,
)
from pyetcd.storage.wal.frames import Encoder

METADATA = b"\x08\x01\x10\x02"
CONF_STATE = b"\x08\x01"
SMALL = 8192


def entry(term: int, index: int, data: bytes = b"", type: int = 0) -> LogEntry:
    return LogEntry(term, index, type, data)


def plain(entries: list[LogEntry]) -> list[tuple[int, int, int, bytes]]:
    return [(e.term, e.index, e.type, e.data) for e in entries]


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "wal")


def create(directory: str, segment_bytes: int = SMALL) -> Wal:
    files = OsFiles()
    return Wal.create(files, directory, METADATA, DirectAppender(files), segment_bytes=segment_bytes)


def reopen(directory: str, marker: Marker | None = None, **more: int) -> tuple[Wal, Replay[LogEntry]]:
    files = OsFiles()
    return Wal.open(
        files, directory, DirectAppender(files), marker, entry=LogEntry, segment_bytes=SMALL, **more
    )


def test_a_new_log_holds_its_metadata_and_the_empty_marker(directory: str) -> None:
    create(directory).close()
    wal, replay = reopen(directory)
    wal.close()
    assert (replay.metadata, replay.hard_state, replay.entries) == (METADATA, None, [])
    assert replay.marker == Marker(0, 0, b"")
    assert [path.name for path in Path(directory).iterdir()] == ["0000000000000000-0000000000000000.wal"]


def test_entries_and_state_come_back_as_saved(directory: str) -> None:
    sizes = (0, 1, 127, 128, 300, 16383, 16384, 70_000)
    saved = [entry(1, 1, b"conf", 1), *(entry(2, 2 + i, bytes([i + 1]) * n) for i, n in enumerate(sizes))]
    wal = create(directory, 1 << 20)
    wal.save(HardState(2, 7, 3), saved, True)
    wal.save(HardState(2, 7, 9), [], False)
    wal.close()
    wal, replay = reopen(directory)
    wal.close()
    assert plain(replay.entries) == plain(saved)
    assert replay.hard_state == HardState(2, 7, 9)
    assert replay.last_index == 9


def states_in(directory: str) -> list[HardState]:
    """Every hard state written to the first segment, in order."""
    (path,) = sorted(Path(directory).glob("*-*.wal"))[:1]
    data, at, states = path.read_bytes(), 0, []
    while word := int.from_bytes(data[at : at + 8], "little"):
        length = word & (1 << 56) - 1
        record = wal_pb2.Record.FromString(data[at + 8 : at + 8 + length])
        if record.type == 3:
            state = raft_pb2.HardState.FromString(record.data)
            states.append(HardState(state.term, state.vote, state.commit))
        at += 8 + length + -length % 8
    return states


def test_a_commit_index_alone_waits_for_the_entries_that_follow(directory: str) -> None:
    wal = create(directory)
    first = wal.save(HardState(1, 1, 0), [entry(1, 1)], True)
    assert wal.save(HardState(1, 1, 1), [], False) == first
    assert wal.save(HardState(1, 1, 2), [], False) == first
    assert states_in(directory) == [HardState(1, 1, 0)]
    wal.save(None, [entry(1, 2)], True)
    assert states_in(directory) == [HardState(1, 1, 0), HardState(1, 1, 2)]
    wal.save(None, [entry(1, 3)], True)
    assert len(states_in(directory)) == 2
    wal.close()


def test_a_commit_index_that_nothing_follows_is_written_when_asked_for_and_at_the_end(directory: str) -> None:
    wal = create(directory)
    wal.save(HardState(1, 1, 0), [entry(1, 1), entry(1, 2)], True)
    wal.save(HardState(1, 1, 1), [], False)
    wal.write_held()
    wal.write_held()
    assert states_in(directory) == [HardState(1, 1, 0), HardState(1, 1, 1)]
    wal.save(HardState(1, 1, 2), [], False)
    wal.close()
    wal, replay = reopen(directory)
    wal.close()
    assert replay.hard_state == HardState(1, 1, 2)


def test_a_vote_is_written_at_once(directory: str) -> None:
    wal = create(directory)
    wal.save(HardState(3, 1, 0), [], True)
    assert states_in(directory) == [HardState(3, 1, 0)]
    wal.close()


def test_a_marker_comes_behind_the_commit_index_it_needs(directory: str) -> None:
    wal = create(directory)
    wal.save(HardState(1, 1, 0), [entry(1, 1), entry(1, 2)], True)
    wal.save(HardState(1, 1, 2), [], False)
    wal.save_snapshot(2, 1, CONF_STATE)
    assert states_in(directory) == [HardState(1, 1, 0), HardState(1, 1, 2)]
    wal.close()
    wal, replay = reopen(directory)
    wal.close()
    assert replay.marker == Marker(2, 1, CONF_STATE)


def test_nothing_follows_a_write_that_failed(directory: str) -> None:
    files = OsFiles()
    appender = HeldAppender(files)
    wal = Wal.create(files, directory, METADATA, appender, segment_bytes=SMALL)
    wal.save(HardState(1, 1, 0), [entry(1, 1)], True)
    wal.save(HardState(1, 1, 1), [], False)
    wal.close()  # the appender has not got as far as the entry
    assert states_in(directory) == []


def test_frames_are_those_protobuf_makes() -> None:
    for crc in (0, 5, 0x0FFFFFFF, 0xFFFFFFFF):
        for index, term, kind, data in (
            (1, 1, 1, b"x" * 96),
            (16383, 3, 0, b""),
            (16384, 3, 0, b"y"),
            (2**40, 2**33, 2, b"z" * 20_000),
        ):
            ours = Encoder(crc)
            parts: list[bytes] = []
            size = ours.entries([entry(term, index, data, kind)], parts)
            frame = b"".join(parts)
            length = int.from_bytes(frame[:7], "little")
            record = wal_pb2.Record.FromString(frame[8 : 8 + length])
            assert size == len(frame) == 8 + length + -length % 8
            assert frame[7] == (0x80 | -length % 8 if length % 8 else 0)
            assert not frame[8 + length :].strip(b"\0")
            expected = raft_pb2.Entry(Term=term, Index=index)
            if kind:
                expected.Type = raft_pb2.EntryType.ValueType(kind)
            if data:
                expected.Data = data
            assert record.data == expected.SerializeToString()
            assert (record.type, record.crc) == (2, ours.crc)
            assert record.SerializeToString() == frame[8 : 8 + length]


def test_the_place_of_an_entry_is_known(directory: str) -> None:
    wal = create(directory)
    wal.save(None, [entry(1, i, b"x" * 3000) for i in range(1, 4)], True)
    wal.save(None, [entry(1, i, b"x" * 3000) for i in range(4, 6)], True)
    wal.close()
    wal, replay = reopen(directory)
    wal.close()
    for index in range(1, 6):
        path, offset = replay.locate(index)
        with open(path, "rb") as file:
            file.seek(offset)
            assert b"\x18" + bytes([index]) in file.read(40)


def test_a_later_entry_of_the_same_index_replaces_what_was_there_and_behind(directory: str) -> None:
    wal = create(directory)
    wal.save(None, [entry(1, i, b"old") for i in range(1, 6)], True)
    wal.save(HardState(2, 0, 0), [entry(2, 3, b"new")], True)
    wal.close()
    wal, replay = reopen(directory)
    assert plain(replay.entries) == [(1, 1, 0, b"old"), (1, 2, 0, b"old"), (2, 3, 0, b"new")]
    assert replay.locate(3)[1] > replay.locate(2)[1] + 100
    wal.save(None, [entry(2, 4, b"more")], True)
    wal.close()
    wal, replay = reopen(directory)
    wal.close()
    assert [e.index for e in replay.entries] == [1, 2, 3, 4]


def test_a_gap_between_entries_is_refused(directory: str) -> None:
    wal = create(directory)
    wal.save(None, [entry(1, 1), entry(1, 3)], True)
    wal.close()
    with pytest.raises(WalCorrupt, match=r"-0000000000000000\.wal .*entry 3 where 2 should be"):
        reopen(directory)


def test_segments_follow_each_other_and_are_read_as_one_log(directory: str) -> None:
    wal = create(directory)
    saved = [entry(1, i, bytes([i % 251]) * (i * 37 % 900)) for i in range(1, 200)]
    for each in saved:
        wal.save(HardState(1, 5, each.index - 1), [each], True)
        wal.completed()
    wal.close()
    names = sorted(path.name for path in Path(directory).iterdir())
    assert len(names) > 5
    assert [int(name[:16], 16) for name in names] == list(range(len(names)))
    wal, replay = reopen(directory)
    wal.close()
    assert plain(replay.entries) == plain(saved)
    assert replay.hard_state == HardState(1, 5, 198)


def test_a_full_segment_gives_back_what_it_reserved_in_vain(directory: str) -> None:
    wal = create(directory)
    wal.save(None, [entry(1, 1, b"x" * 9000)], True)
    wal.completed()
    wal.close()
    first, second = sorted(Path(directory).iterdir())
    assert first.stat().st_size % 8 == 0
    assert first.read_bytes().rstrip(b"\0")[-1:] == b"x"
    assert (second.name, second.stat().st_size) == ("0000000000000001-0000000000000002.wal", SMALL)


def test_only_the_segments_behind_the_newest_committed_marker_are_read(directory: str) -> None:
    wal = create(directory)
    for i in range(1, 101):
        wal.save(HardState(1, 5, i - 1), [entry(1, i, b"v" * 500)], True)
        wal.completed()
        if i == 60:
            wal.save_snapshot(50, 1, CONF_STATE)
    wal.save_snapshot(100, 1, CONF_STATE)  # not committed as far as the log knows: not valid
    wal.close()
    first = sorted(Path(directory).iterdir())[0]
    first.write_bytes(b"garbage nobody needs")
    wal, replay = reopen(directory)
    wal.close()
    assert replay.marker == Marker(50, 1, CONF_STATE)
    assert [e.index for e in replay.entries] == list(range(51, 101))


def test_a_marker_can_be_asked_for(directory: str) -> None:
    wal = create(directory)
    wal.save(HardState(1, 5, 4), [entry(1, i) for i in range(1, 6)], True)
    wal.save_snapshot(2, 1, CONF_STATE)
    wal.save_snapshot(4, 1, CONF_STATE)
    wal.close()
    wal, replay = reopen(directory, Marker(2, 1))
    wal.close()
    assert (replay.marker.index, [e.index for e in replay.entries]) == (2, [3, 4, 5])
    with pytest.raises(WalCorrupt, match="snapshot mismatch"):
        reopen(directory, Marker(2, 9))
    with pytest.raises(WalError, match="snapshot not found"):
        reopen(directory, Marker(3, 1))


def test_release_and_purge_keep_what_a_start_needs(directory: str) -> None:
    wal = create(directory)
    for i in range(1, 101):
        wal.save(HardState(1, 5, i), [entry(1, i, b"v" * 500)], True)
        wal.completed()
    count = len(list(Path(directory).glob("*.wal")))
    assert wal.purge(1) == []  # all are locked
    wal.save_snapshot(50, 1, CONF_STATE)
    wal.release(50)
    gone = wal.purge(5)
    kept = sorted(path.name for path in Path(directory).glob("*.wal"))
    assert len(gone) + len(kept) == count
    assert int(kept[0].split("-")[1][:16], 16) <= 50
    assert int(kept[1].split("-")[1][:16], 16) >= 50 or len(kept) == 5
    wal.close()
    wal, replay = reopen(directory)
    wal.close()
    assert [e.index for e in replay.entries] == list(range(51, 101))


def test_a_second_process_is_told_that_the_log_is_taken(directory: str) -> None:
    wal = create(directory)
    wal.save(None, [entry(1, 1)], True)
    with pytest.raises(WalLocked, match=r"0000000000000000\.wal: fileutil: file already locked"):
        reopen(directory)
    assert len(read_only(OsFiles(), directory, entry=LogEntry).entries) == 1
    wal.close()
    reopen(directory)[0].close()


def test_creating_over_a_log_is_refused(directory: str) -> None:
    create(directory).close()
    with pytest.raises(FileExistsError):
        create(directory)


def test_creating_over_files_that_are_no_log_is_refused(directory: str) -> None:
    Path(directory).mkdir()
    (Path(directory) / "notes.txt").write_text("mine")
    with pytest.raises(WalError, match=r"notes\.txt"):
        create(directory)
    assert (Path(directory) / "notes.txt").read_text() == "mine"


def test_a_creation_that_did_not_finish_is_started_again(directory: str) -> None:
    leftover = Path(directory + ".tmp")
    leftover.mkdir()
    (leftover / "0000000000000000-0000000000000000.wal").write_bytes(b"half")
    create(directory).close()
    assert not leftover.exists()
    reopen(directory)[0].close()


def test_files_made_ready_in_vain_are_removed_at_start(directory: str) -> None:
    create(directory).close()
    for name in ("0.tmp", "ready-1.tmp"):
        (Path(directory) / name).write_bytes(b"records of a cut that was not finished")
    wal, _ = reopen(directory)
    assert sorted(os.listdir(directory)) == ["0000000000000000-0000000000000000.wal", "ready-0.tmp"]
    assert not (Path(directory) / "ready-0.tmp").read_bytes().strip(b"\0")
    wal.close()


def test_a_missing_log_is_named(directory: str) -> None:
    assert not walroom.exists(OsFiles(), directory)
    with pytest.raises(WalMissing, match="does not exist"):
        reopen(directory)
    Path(directory).mkdir()
    with pytest.raises(WalMissing, match="file not found"):
        reopen(directory)


def test_a_missing_segment_is_named(directory: str) -> None:
    wal = create(directory)
    for i in range(1, 60):
        wal.save(HardState(1, 5, i), [entry(1, i, b"v" * 500)], True)
        wal.completed()
    wal.close()
    segments = sorted(Path(directory).iterdir())
    hole = segments[1].read_bytes()
    segments[1].unlink()
    with pytest.raises(WalCorrupt, match="do not increase continuously: 0000000000000001 is missing"):
        reopen(directory)
    segments[1].write_bytes(hole)
    segments[0].unlink()
    with pytest.raises(WalError, match="snapshot not found"):
        reopen(directory)


def test_a_purge_cut_short_may_leave_any_of_the_segments_a_start_does_not_need(directory: str) -> None:
    wal = create(directory)
    for i in range(1, 101):
        wal.save(HardState(1, 5, i), [entry(1, i, b"v" * 500)], True)
        wal.completed()
    wal.save_snapshot(100, 1, CONF_STATE)
    wal.close()
    segments = sorted(Path(directory).iterdir())
    segments[1].unlink()
    segments[3].unlink()
    wal, replay = reopen(directory)
    assert replay.marker.index == 100
    assert wal.purge(1) == [str(path) for path in (segments[0], segments[2], *segments[4:-1])]
    wal.close()


def test_what_the_opener_does_not_accept_is_left_as_it_is(directory: str) -> None:
    wal = create(directory)
    wal.save(HardState(1, 5, 2), [entry(1, 1), entry(1, 2), entry(1, 3, b"v" * 900)], True)
    wal.close()
    [segment] = Path(directory).iterdir()
    image = segment.read_bytes()
    end = len(image.rstrip(b"\0"))
    segment.write_bytes(image[: end - 20])  # torn: would be cut
    files = OsFiles()
    shown = []

    def refuse(replay: Replay[LogEntry]) -> None:
        shown.append([e.index for e in replay.entries])
        raise ValueError("not mine")

    for _ in range(2):  # the lock is given back
        with pytest.raises(ValueError, match="not mine"):
            Wal.open(files, directory, DirectAppender(files), entry=LogEntry, accept=refuse)
        assert [path.read_bytes() for path in Path(directory).iterdir()] == [image[: end - 20]]
    reopen(directory)[0].close()
    assert shown == [[1, 2, 3], [1, 2, 3]]
    assert segment.read_bytes() != image[: end - 20]


def test_a_log_that_ends_before_what_the_database_has_applied_is_refused(directory: str) -> None:
    wal = create(directory)
    wal.save(HardState(1, 5, 1), [entry(1, 1), entry(1, 2)], True)
    wal.close()
    reopen(directory, durable=2)[0].close()
    with pytest.raises(WalCorrupt, match="ends with entry 2, yet the database has applied entry 3"):
        reopen(directory, durable=3)


def test_a_commit_beyond_the_last_entry_is_refused(directory: str) -> None:
    wal = create(directory)
    wal.save(HardState(1, 5, 3), [entry(1, 1), entry(1, 2)], True)
    wal.close()
    with pytest.raises(WalCorrupt, match="ends with entry 2, yet 3 is called committed"):
        reopen(directory)


def test_saving_nothing_writes_nothing(directory: str) -> None:
    wal = create(directory)
    sequence = wal.save(HardState(1, 2, 0), [entry(1, 1)], True)
    before = wal.bytes_written
    assert wal.save(None, [], True) == sequence
    assert wal.save(HardState(), [], True) == sequence
    assert wal.bytes_written == before
    wal.close()


def test_nothing_behind_a_cut_is_complete_before_the_segment_has_its_name() -> None:
    files = MemoryFiles()
    appender = HeldAppender(files)
    pool = ThreadPoolExecutor(1)
    gate = threading.Event()
    named: list[int] = []
    on_named = lambda: named.append(1)  # noqa: E731
    wal = Wal.create(files, "/wal", METADATA, appender, executor=pool, on_named=on_named, segment_bytes=SMALL)
    pool.submit(int).result()  # the next segment is ready now
    pool.submit(gate.wait)
    first = wal.save(None, [entry(1, 1, b"x" * 9000)], True)
    behind = wal.save(None, [entry(1, 2, b"y")], True)
    appender.finish(1)
    assert wal.completed() == first
    appender.finish()
    assert first <= wal.completed() < behind
    assert "/wal/0000000000000001-0000000000000002.wal" not in files.names
    named.clear()
    gate.set()
    pool.submit(int).result()
    assert wal.completed() == behind
    assert named
    assert "/wal/0000000000000001-0000000000000002.wal" in files.durable_names
    pool.shutdown()
    wal.close()


def test_while_no_segment_is_ready_the_old_one_grows() -> None:
    files = MemoryFiles()
    pool = ThreadPoolExecutor(1)
    gate = threading.Event()
    pool.submit(gate.wait)
    wal = Wal.create(files, "/wal", METADATA, DirectAppender(files), executor=pool, segment_bytes=SMALL)
    for i in range(1, 5):
        wal.save(None, [entry(1, i, b"x" * 5000)], True)
    assert files.listdir("/wal") == ["0000000000000000-0000000000000000.wal"]
    gate.set()
    pool.shutdown()
    wal.close()
    wal, replay = Wal.open(files, "/wal", DirectAppender(files), entry=LogEntry, segment_bytes=SMALL)
    wal.close()
    assert len(replay.entries) == 4


class FullDisk(MemoryFiles):
    full = False

    def preallocate(self, fd: int, length: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().preallocate(fd, length)


def test_a_full_disk_is_said_and_final() -> None:
    files = FullDisk()
    wal = Wal.create(files, "/wal", METADATA, DirectAppender(files), segment_bytes=SMALL)
    files.full = True
    wal.save(None, [entry(1, 1, b"x" * 9000)], True)  # the segment made ready before is still there
    wal.completed()
    wal.save(None, [entry(1, 2, b"x")], True)
    for index in (3, 4):
        with pytest.raises(OSError, match="No space left on device"):
            wal.save(None, [entry(1, index, b"x" * 9000)], True)
    wal.close()


class Recorded(DirectAppender):
    """Keeps where what was written."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self.writes: list[tuple[int, int, bytes]] = []

    def append(self, fd: int, offset: int, data: bytes | Sequence[bytes], sync: bool = True) -> int:
        whole = data if isinstance(data, bytes) else b"".join(data)
        self.writes.append((fd, offset, whole))
        return super().append(fd, offset, whole, sync)


def test_nearly_all_that_is_synced_takes_the_place_of_written_zeros(directory: str) -> None:
    files = OsFiles()
    appender = Recorded(files)
    segment_bytes = 2 << 20
    wal = Wal.create(files, directory, METADATA, appender, segment_bytes=segment_bytes)
    saved = [entry(1, 1 + number, bytes([1 + number % 255]) * 4000) for number in range(1500)]
    for one in saved:
        wal.save(None, [one], True)
        wal.completed()
    wal.close()
    written: dict[int, int] = {}  # up to where, of each file
    anew = 0
    for fd, offset, data in appender.writes:
        anew += offset + len(data) > written.get(fd, 0)
        written[fd] = max(written.get(fd, 0), offset + len(data))
        assert len(data) < 1 << 20
    assert len(written) >= 3
    assert anew < len(saved) / 50
    sizes = [path.stat().st_size for path in Path(directory).glob("*-*.wal")]
    assert max(sizes) < segment_bytes + 8000
    wal, replay = reopen(directory)
    assert plain(replay.entries) == plain(saved)
    wal.close()


def test_large_entries_are_not_followed_by_zeros(directory: str) -> None:
    files = OsFiles()
    appender = Recorded(files)
    wal = Wal.create(files, directory, METADATA, appender, segment_bytes=8 << 20)
    for number in range(1, 4):
        wal.save(None, [entry(1, number, b"x" * 1_000_000)], True)
    assert sum(len(data) for _, _, data in appender.writes[1:]) < 3_001_000
    wal.close()
