"""Judging where a log stops being readable: a torn end, which is cut, or damage, which is refused.

A torn end is what a crash leaves of the last writes, none of which was ever acknowledged. Disks write whole
sectors in any order, and what they did not write is still zero, since segments are reserved as zeros. From
this follows what a torn end can look like, and everything else is damage:

* It is in the last segment.
* The first word of a frame is aligned and so never half written: a word that is neither zero nor possible
  is damage.
* A record that is there in full, no sector of it zeros, was written in full: if its checksum is wrong, it
  was changed.
* Where the word itself is zero, so is the rest of its sector.
* Nothing behind it proves that it had been durable. Proof is a later hard state that calls entries
  committed which are missing here, or a marker of a snapshot that contains them; both are only written once
  those entries are on disk. The first hard state behind the tear does not count: it may be of the same
  write, and on a follower name what a quorum of others has.

etcd itself is less strict: it takes any word of zeros for the end of the log and zeroes what follows, and
cuts the log at a length field that was changed to something large.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyetcd._native import crc32c
from pyetcd.storage.files import Files
from pyetcd.storage.wal.frames import (
    CRC,
    METADATA,
    SNAPSHOT,
    STATE,
    WORD_BYTES,
    Record,
    decode_record,
    frame_size,
    read_marker,
    read_state,
    read_varint,
    read_word,
)
from pyetcd.storage.wal.scan import Stop

SECTOR_BYTES = 512
_CHUNK_BYTES = 1 << 20
# A record whose end is missing inside a sector, as a cut made by hand leaves it: at least so many zeros
# tell it from one that merely ends with a few.
_MISSING_BYTES_MIN = 8
# The test for one flipped bit would, by chance, take one torn record in 2**29 / length for a flipped one.
_FLIP_TEST_BYTES_MAX = 64 << 10

_NOT_ZERO = re.compile(rb"[^\0]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`torn`: cut here. `damage`: refuse, for this reason. Neither: a clean end."""

    torn: bool = False
    damage: str = ""


def judge(files: Files, fd: int, stop: Stop, crc: int, first_missing: int) -> Verdict:
    """Judge the end of the last segment. `crc` is the checksum up to there, `first_missing` the raft index
    after the last entry read.
    """
    written_end = end_of_data(files, fd, stop.offset)
    if stop.offset == 0:
        what = "holds nothing but zeros" if written_end <= 0 else stop.damage or "begins with zeros"
        return Verdict(damage=f"the segment {what}")
    if not stop.damage and written_end <= stop.offset:
        return Verdict()
    size = files.size(fd)
    # A sector more than was written: the last record may end in zeros.
    data = files.pread(fd, written_end - stop.offset + SECTOR_BYTES, stop.offset)
    damage = _why_not_torn(data, stop, crc, size, written_end)
    if damage:
        return Verdict(damage=damage)
    proof = _proof_of_durability(data, stop.offset, first_missing)
    if proof is not None:
        why = stop.damage or "zeros where a record should be"
        return Verdict(damage=f"{why}; yet the log goes on at offset {proof} as if it had been on disk")
    return Verdict(torn=True)


def end_of_data(files: Files, fd: int, start: int) -> int:
    """The offset behind the last byte from `start` on that is not zero; `start` if there is none."""
    end = files.size(fd)
    while end > start:
        begin = max(start, end - _CHUNK_BYTES)
        kept = len(files.pread(fd, end - begin, begin).rstrip(b"\0"))
        if kept:
            return begin + kept
        end = begin
    return start


def _why_not_torn(data: bytes, stop: Stop, crc: int, size: int, written_end: int) -> str:
    """Why what begins at `stop` cannot be a torn end; empty if it can."""
    offset = stop.offset
    if len(data) < WORD_BYTES:
        return ""  # the file ends inside the word: cut short from outside, nothing behind it
    word = read_word(data, 0)[0]
    if word == 0:
        sector_end = SECTOR_BYTES - offset % SECTOR_BYTES
        if data[:sector_end].strip(b"\0"):
            return "zeros where a record should begin, in the midst of a sector that holds data"
        return ""
    sized = frame_size(word)
    if sized is None:
        return stop.damage
    length, padding = sized
    end = WORD_BYTES + length
    record = data[WORD_BYTES:end]
    missing = _first_zero_sector(record, offset + WORD_BYTES)
    if missing is None and written_end <= offset + end - _MISSING_BYTES_MIN:
        missing = max(written_end - offset - WORD_BYTES, 0)
    if not _lengths_agree(record if missing is None else record[:missing], length):
        return f"{stop.damage}; a record of {length} bytes does not begin like that"
    if offset + end + padding > size:
        return ""
    if missing is None:
        return stop.damage
    flipped = _one_bit_repairs(record.ljust(length, b"\0"), crc)
    if flipped is not None and record[flipped : flipped + 1].strip(b"\0"):
        return f"{stop.damage} (one flipped bit explains it)"
    return ""


def _lengths_agree(head: bytes, length: int) -> bool:
    """Whether what is there of a record can be the head of one of `length` bytes: it says so twice itself."""
    try:
        if head[0] != 0x08 or not METADATA <= head[1] <= SNAPSHOT or head[2] != 0x10:
            return False
        at = read_varint(head, 3)[1]
        if at == length:
            return head[1] == CRC
        inside, start = read_varint(head, at + 1)
    except IndexError:
        return True  # it breaks off before
    except ValueError:
        return False
    return head[at] == 0x1A and start + inside == length


def _first_zero_sector(record: bytes, offset: int) -> int | None:
    """Where in the record, `offset` being its place in the file, a sector begins that is nothing but zeros.

    Padding does not count: it always is.
    """
    at = 0
    while at < len(record):
        part = record[at : at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES]
        if not part.strip(b"\0"):
            return at
        at += len(part)
    return None


def _one_bit_repairs(record: bytes, crc: int) -> int | None:
    """Where a bit was flipped in the record, `crc` being the checksum before it, if that is all that is
    wrong.

    Then it was on disk, and was changed. (Where the bit should be set and its byte is zero, its sector may be
    missing as well; the caller looks.) CRCs are linear: stored and computed checksum differ by what the
    flipped bit alone contributes, moved on by the zero bytes behind it; so undo those byte by byte and look
    for it.
    """
    decoded = decode_record(record, 0, len(record)) if len(record) <= _FLIP_TEST_BYTES_MAX else None
    if decoded is None:
        return None
    difference = decoded.crc ^ crc32c(record[decoded.start : decoded.end], crc)
    if difference.bit_count() == 1:
        return 0  # a bit of the checksum itself
    table = _crc_table()
    undo = {entry >> 24: (entry, byte) for byte, entry in enumerate(table)}
    one_bit = {table[1 << bit] for bit in range(8)}
    for at in range(decoded.end - 1, decoded.start - 1, -1):
        if difference in one_bit:
            return at
        entry, byte = undo[difference >> 24]
        difference = ((difference ^ entry) << 8 | byte) & 0xFFFFFFFF
    return None


def _crc_table() -> list[int]:
    """What each byte contributes to a CRC-32C."""
    table = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        table.append(entry)
    return table


def _proof_of_durability(data: bytes, base: int, first_missing: int) -> int | None:
    """The offset of a record behind the tear that was only written once what is missing here was on disk.

    Records count if their checksum continues that of the record right before them: two in a row are no
    accident.
    """
    at = _frame(data, 0)[1] or WORD_BYTES
    before: int | None = None
    states = 0
    while at + WORD_BYTES <= len(data):
        record, behind = _frame(data, at)
        if record is None:
            found = _NOT_ZERO.search(data, at + WORD_BYTES)
            if found is None:
                return None
            at += (found.start() - at) & -WORD_BYTES  # frames begin at multiples of the word
            before = None
            continue
        body = data[record.start : record.end]
        chained = before is not None and crc32c(body, before) == record.crc
        before = record.crc
        states += record.kind == STATE
        if chained and _contains(record, body, first_missing, states):
            return base + at
        at = behind
    return None


def _frame(data: bytes, at: int) -> tuple[Record | None, int]:
    """The record in the frame at `at` and where the frame ends: (None, 0) for no frame, (None, end) for one
    whose record cannot be read.
    """
    sized = frame_size(read_word(data, at)[0]) if at + WORD_BYTES <= len(data) else None
    if sized is None:
        return None, 0
    end = at + WORD_BYTES + sized[0]
    if end > len(data):
        return None, 0
    return decode_record(data, at + WORD_BYTES, end), end + sized[1]


def _contains(record: Record, body: bytes, first_missing: int, states: int) -> bool:
    try:
        if record.kind == STATE:
            return states > 1 and read_state(body).commit >= first_missing
        return record.kind == SNAPSHOT and read_marker(body).index >= first_missing
    except ValueError:
        return False
