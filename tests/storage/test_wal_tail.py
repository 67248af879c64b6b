"""The end of a log: what a crash leaves is cut, whatever was durable and is not what it was is refused."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wal_disk import SECTOR, DirectAppender, HeldAppender, MemoryFiles

from pyetcd.storage.wal import HardState, LogEntry, Replay, Wal, WalCorrupt

PATH = "/wal/0000000000000000-0000000000000000.wal"
SIZE = 16384


def open_log(files: MemoryFiles, **more: int) -> tuple[Wal, Replay[LogEntry]]:
    return Wal.open(files, "/wal", DirectAppender(files), entry=LogEntry, segment_bytes=SIZE, **more)


@dataclass
class Made:
    """A log of `batches`: entries and the commit of the batch before, as a leader of one member writes
    them.
    """

    image: bytes
    starts: list[int]  # where each batch begins
    end: int

    def disk(self, image: bytes) -> MemoryFiles:
        files = MemoryFiles()
        files.mkdir("/wal")
        files.pwrite(files.open(PATH, create=True), image, 0)
        return files


def make(payloads: list[bytes], states: bool = True) -> Made:
    files = MemoryFiles()
    wal = Wal.create(files, "/wal", b"meta", DirectAppender(files), segment_bytes=SIZE)
    starts = []
    for index, data in enumerate(payloads, 1):
        starts.append(wal.bytes_written)
        wal.save(HardState(2, 1, index - 1) if states else None, [LogEntry(2, index, 0, data)], True)
    end = wal.bytes_written
    wal.close()
    return Made(files.read(PATH), starts, end)


def check_cut(made: Made, files: MemoryFiles, at: int, entries: int) -> None:
    """The log opens with so many entries, keeps what it cut off, and can be gone on with."""
    before = files.read(PATH)
    wal, replay = open_log(files)
    assert replay.cut_at == (PATH, at)
    assert len(replay.entries) == entries
    assert files.read(PATH + ".broken") == before.rstrip(b"\0")
    assert files.read(PATH).rstrip(b"\0") == made.image[:at].rstrip(b"\0")
    wal.save(HardState(3, 1, entries), [LogEntry(3, entries + 1, 0, b"after")], True)
    wal.close()
    wal, replay = open_log(files)
    wal.close()
    assert replay.cut_at is None
    assert replay.entries[-1] == LogEntry(3, entries + 1, 0, b"after", replay.entries[-1].size)


def check_refused(files: MemoryFiles, offset: int | None = None) -> WalCorrupt:
    """The log does not open, says where, and nothing on disk has changed."""
    before = {name: files.read(name) for name in files.names if not files.is_dir(name)}
    with pytest.raises(WalCorrupt) as caught:
        open_log(files)
    assert str(caught.value).startswith(f"wal: {PATH} is corrupt at offset ")
    if offset is not None:
        assert caught.value.offset == offset
    assert {name: files.read(name) for name in files.names if not files.is_dir(name)} == before
    return caught.value


def test_a_file_that_ends_inside_the_last_record_is_cut_wherever_it_ends() -> None:
    made = make([b"first" * 10, b"second" * 30], states=False)
    for end in range(made.starts[-1] + 1, made.end - 7):
        check_cut(made, made.disk(made.image[:end]), made.starts[-1], 1)


def test_a_record_whose_last_bytes_are_still_zero_is_cut() -> None:
    made = make([b"first" * 10, b"second" * 30], states=False)
    for end in range(made.starts[-1] + 8, made.end - 16):
        image = made.image[:end] + bytes(SIZE - end)
        check_cut(made, made.disk(image), made.starts[-1], 1)


def test_a_record_whose_last_byte_changed_is_refused() -> None:
    made = make([b"first" * 10, b"second" * 30], states=False)
    image = bytearray(made.image)
    last = len(made.image.rstrip(b"\0")) - 1
    image[last] = 0
    check_refused(made.disk(bytes(image)), made.starts[-1])


def test_any_sector_of_the_last_write_may_be_missing() -> None:
    made = make([b"first", bytes(range(1, 255)) * 12])
    first = -(-made.starts[1] // SECTOR)
    for sector in range(first, made.end // SECTOR + 1):
        image = bytearray(made.image)
        image[sector * SECTOR : (sector + 1) * SECTOR] = bytes(SECTOR)
        if bytes(image) != made.image:
            files = made.disk(bytes(image))
            wal, replay = open_log(files)
            wal.close()
            assert replay.cut_at is not None or sector * SECTOR >= made.end - 40
            assert len(replay.entries) in (1, 2)


def test_a_sector_of_zeros_in_the_midst_is_refused_where_the_log_shows_it_had_been_durable() -> None:
    made = make([b"p%d" % i * 100 for i in range(40)])
    last = made.end // SECTOR - 3
    for sector in range(last):
        image = bytearray(made.image)
        image[sector * SECTOR : (sector + 1) * SECTOR] = bytes(SECTOR)
        check_refused(made.disk(bytes(image)))


def test_one_flipped_bit_anywhere_is_refused() -> None:
    made = make([b"alpha" * 9, b"beta" * 40, bytes(600), b"omega" * 7])
    # A flip in padding changes nothing that is read.
    meaning = {at for at in range(made.end) if not _is_padding(made.image, at)}
    for at in range(made.end):
        for bit in (0, 7) if at % 3 else range(8):
            image = bytearray(made.image)
            image[at] ^= 1 << bit
            files = made.disk(bytes(image))
            if at in meaning:
                check_refused(files)
            else:
                open_log(files)[0].close()


def _is_padding(image: bytes, at: int) -> bool:
    frame = 0
    while True:
        length = int.from_bytes(image[frame : frame + 7], "little")
        end = frame + 8 + length
        behind = end + -length % 8
        if at < behind:
            return at >= end
        frame = behind


def test_a_flip_in_the_last_record_of_zeros_is_not_taken_for_a_torn_end() -> None:
    made = make([b"first", b"v" + bytes(2000)], states=False)
    image = bytearray(made.image)
    image[made.starts[1] + 700] ^= 4
    error = check_refused(made.disk(bytes(image)), made.starts[1])
    assert "one flipped bit explains it" in error.reason


def test_a_length_changed_to_something_large_does_not_cut_the_log_short() -> None:
    made = make([b"alpha" * 9, b"beta" * 40, b"omega" * 7])
    for start in made.starts:
        image = bytearray(made.image)
        image[start + 3] ^= 0x10
        check_refused(made.disk(bytes(image)), start)


@pytest.mark.parametrize("image", [b"", bytes(SIZE), bytes(SIZE) + b"x", b"garbage!" * 100, b"\xff" * SIZE])
def test_a_segment_that_is_none_is_refused(image: bytes) -> None:
    made = make([b"x"])
    assert check_refused(made.disk(image)).offset == 0


def test_zeros_inside_a_sector_that_holds_data_are_refused() -> None:
    made = make([b"alpha" * 3, b"beta" * 4, b"omega" * 7], states=False)
    image = bytearray(made.image)
    image[made.starts[1] : made.starts[2]] = bytes(made.starts[2] - made.starts[1])
    check_refused(made.disk(bytes(image)), made.starts[1])


def test_garbage_behind_the_end_is_refused() -> None:
    made = make([b"alpha" * 3])
    image = bytearray(made.image)
    image[made.end : made.end + 16] = b"\x01garbage\x02garbage"
    check_refused(made.disk(bytes(image)), made.end)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=25))
def test_after_a_loss_of_power_everything_completed_is_there_and_nothing_is_made_up(
    seed: int, sizes: list[int]
) -> None:
    chance = random.Random(seed)
    files = MemoryFiles()
    appender = HeldAppender(files)
    wal = Wal.create(files, "/wal", b"meta", appender, segment_bytes=4096)
    sent: list[LogEntry] = []
    sequences: list[int] = []
    commit = 0
    for index, size in enumerate(sizes, 1):
        data = chance.choice((bytes(size), chance.randbytes(size), b"\1" * size))
        sent.append(LogEntry(1, index, 0, data))
        sequences.append(wal.save(HardState(1, 1, commit), [sent[-1]], True))
        if chance.random() < 0.6:
            appender.finish(chance.randint(0, 2) or None)
        done = wal.completed()
        commit = sum(sequence <= done for sequence in sequences)
    appender.finish(None, sync=False)  # written, not synced
    after = files.crash(chance)
    wal, replay = Wal.open(after, "/wal", DirectAppender(after), entry=LogEntry, segment_bytes=4096)
    found = [(e.term, e.index, e.type, e.data) for e in replay.entries]
    assert found == [(e.term, e.index, e.type, e.data) for e in sent[: len(found)]]
    assert len(found) >= commit
    wal.save(HardState(1, 1, commit), [LogEntry(1, len(found) + 1, 0, b"again")], True)
    wal.completed()
    wal.close()
    wal, again = Wal.open(after, "/wal", DirectAppender(after), entry=LogEntry, segment_bytes=4096)
    wal.close()
    assert [e.data for e in again.entries] == [*(data for *_, data in found), b"again"]
