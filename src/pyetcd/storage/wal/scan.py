"""Reading one segment: frames in order, checksums verified, until the zeros at its end or the first thing
wrong.

What is wrong is only described here (`Stop`); whether it is a torn end or damage is for `tail` to judge.
Memory is bounded: the file passes through a window, and only what the caller keeps (entries, markers)
stays.

Plain code, since a start reads every record since the last snapshot: measured at 300-byte entries, 2.8 us
each with the entry made. Protobuf objects for record and entry took 3.3 before any framing.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

from pyetcd._native import crc32c
from pyetcd.storage.files import Files
from pyetcd.storage.wal.errors import WalCorrupt
from pyetcd.storage.wal.frames import (
    CRC,
    ENTRY,
    LENGTH_MASK,
    METADATA,
    MORE,
    SMALL,
    SNAPSHOT,
    STATE,
    WORD_BYTES,
    Marker,
    blob,
    decode_record,
    fields,
    frame_size,
    number,
    read_frame,
    read_marker,
    read_word,
    varint,
)
from pyetcd.storage.wal.segments import Segment

WINDOW_BYTES = 4 << 20
_LAST = [bytes((i, 0x1A)) for i in range(16)]
_ENTRY_HEAD = b"\x08\x02\x10"
_FRAME_BYTES_MIN = 24  # what `read_frame` looks at, rounded up to a frame
_TOP_BYTE = [0] + [0x80 | 8 - rest for rest in range(1, 8)]  # of a frame's word, by its length modulo 8
_VARINT = rb"[\x80-\xff]{0,9}[\0-\x7f]"
_STATE = re.compile(rb"\x08(?!\0)%b\x10%b\x18%b" % (_VARINT, _VARINT, _VARINT), re.DOTALL)

E = TypeVar("E")
# Makes the caller's entry of (term, index, type, data, size of the encoding or -1 where it is not the
# canonical one).
EntryFactory = Callable[[int, int, int, bytes, int], E]


@dataclass(slots=True)
class Stop:
    """Where and why reading a segment ended. `damage` is empty at a clean end: zeros, or the end of the
    file.
    """

    offset: int
    damage: str = ""


@dataclass(slots=True)
class Contents(Generic[E]):
    """All that one segment says. `runs` tell the raft indexes of `entries`: from a position on, one up from
    an index. `offsets` tell where the frame of each lies.
    """

    segment: Segment
    entries: list[E] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    markers: list[tuple[Marker, int]] = field(default_factory=list)  # with the offset of each
    metadata: bytes | None = None
    state: bytes | None = None  # the last hard state, encoded
    first_crc: int = 0
    last_crc: int = 0
    stop: Stop = field(default_factory=lambda: Stop(0))

    @property
    def last_index(self) -> int:
        """The raft index of the last entry in it; 0 if it has none."""
        if not self.runs:
            return 0
        position, index = self.runs[-1]
        return index + len(self.entries) - position - 1


def read_segment(files: Files, segment: Segment, fd: int, make: EntryFactory[E]) -> Contents[E]:
    """Read a segment to its end or to the first thing wrong."""
    contents: Contents[E] = Contents(segment)
    reader = _Reader(files, fd, contents, make)
    size = files.size(fd)
    at = 0
    window = WINDOW_BYTES
    while at < size:
        buffer = files.pread(fd, window, at)
        used, wanted = reader.take(buffer, at, size)
        at += used
        if not wanted:
            break
        window = max(WINDOW_BYTES, wanted)
    else:
        reader.stop(at)
    return contents


class _Reader(Generic[E]):
    """Goes through one segment window by window."""

    def __init__(self, files: Files, fd: int, contents: Contents[E], make: EntryFactory[E]) -> None:
        self._files = files
        self._fd = fd
        self._contents = contents
        self._make = make
        self._crc = 0
        self._term = -1
        self._term_head = b""
        self._next_index = 0
        self._add_entry = contents.entries.append
        self._add_offset = contents.offsets.append

    def stop(self, offset: int, damage: str = "") -> tuple[int, int]:
        self._contents.last_crc = self._crc
        self._contents.stop = Stop(offset, damage)
        return 0, 0

    def take(self, buffer: bytes, base: int, size: int) -> tuple[int, int]:
        """Read the frames that lie whole in `buffer`, which is at `base` of a file of `size` bytes.

        Returns bytes used and how many the next window must have at least; 0 once reading has stopped.
        """
        at = 0
        limit = len(buffer)
        while True:
            at = self._plain_entries(buffer, at, base)
            if at + WORD_BYTES > limit:
                break
            word = read_word(buffer, at)[0]
            if word == 0:
                return self.stop(base + at)
            sized = frame_size(word)
            if sized is None:
                return self.stop(base + at, f"no record begins with the word {word:#018x}")
            end = at + WORD_BYTES + sized[0]
            behind = end + sized[1]
            if behind > limit:
                if base + behind <= size:
                    return at, behind - at
                text = f"a record of {sized[0]} bytes would end beyond the end of the file ({size} bytes)"
                return self.stop(base + at, text)
            damage = self._record(buffer, at + WORD_BYTES, end, base + at)
            if damage:
                return self.stop(base + at, damage)
            at = behind
        if base + limit < size:
            return at, WORD_BYTES
        return self.stop(base + at, "the file ends inside a frame's word" if buffer[at:].strip(b"\0") else "")

    def _plain_entries(self, buffer: bytes, at: int, base: int) -> int:
        """Take entries as long as they follow on each other: same term, next index, some data, none of it
        large.

        Returns where the first other record begins. Nothing is decoded here: what should stand there
        follows from the entry before, the frame's length and the checksum, so it is made and compared.
        """
        term, index, crc = self._term, self._next_index, self._crc
        before = self._term_head
        make, add, add_offset = self._make, self._add_entry, self._add_offset
        middle, high = b"", -1
        start = at
        last = len(buffer) - _FRAME_BYTES_MIN
        while at <= last:
            word, kind, crc_bytes, low, more = read_frame(buffer, at)
            length = word & LENGTH_MASK
            end = at + WORD_BYTES + length
            if low < 128:
                body_at = at + 18
            else:
                body_at = at + 19
                low = low & 127 | more << 7
            if body_at + low != end or kind != _ENTRY_HEAD:
                break
            if index >> 14 != high:
                high = index >> 14
                middle = varint(high) + b"\x22"
            head = before + MORE[index & 16383] + middle if high else before + SMALL[index] + b"\x22"
            rest = low - len(head)
            if not 2 <= rest < 16386:
                break
            head += SMALL[rest - 1 if rest < 129 else rest - 2]
            body = buffer[body_at:end]
            if not body.startswith(head):
                break
            computed = crc32c(body, crc)
            if crc_bytes != MORE[computed & 16383] + MORE[computed >> 14 & 16383] + _LAST[computed >> 28]:
                break
            if word >> 56 != _TOP_BYTE[length & 7]:
                break
            crc = computed
            add(make(term, index, 0, body[len(head) :], low))
            add_offset(base + at)
            index += 1
            at = end + (-length & 7)
        if at > start:
            self._crc = crc
            self._next_index = index
        return at

    def _record(self, buffer: bytes, start: int, end: int, offset: int) -> str:
        """Take any record; what is wrong with it, or nothing. Keeps the checksum."""
        record = decode_record(buffer, start, end)
        if record is None:
            return "a record cannot be read"
        data = buffer[record.start : record.end]
        contents = self._contents
        if record.kind == CRC:
            if data:
                return "a crc record with data"
            if offset == 0:
                contents.first_crc = record.crc
            elif record.crc != self._crc:
                return f"crc mismatch: the log so far has {self._crc:x}, the crc record says {record.crc:x}"
            self._crc = record.crc
            return ""
        if offset == 0:
            return "the segment does not begin with a crc record"
        crc = crc32c(data, self._crc)
        if crc != record.crc:
            return f"crc mismatch: expected: {record.crc:x} computed: {crc:x}"
        self._crc = crc
        return self._take(record.kind, data, offset)

    def _take(self, kind: int, data: bytes, offset: int) -> str:
        """Take a record whose checksum is right; what is wrong with it, or nothing."""
        contents = self._contents
        try:
            if kind == ENTRY:
                return self._take_entry(data, offset)
            if kind == STATE:
                if _STATE.fullmatch(data) is None:
                    return "a record that should be a hard state is none"
                contents.state = data
            elif kind == METADATA:
                if contents.metadata is not None and contents.metadata != data:
                    return "conflicting metadata found"
                contents.metadata = data
            elif kind == SNAPSHOT:
                contents.markers.append((read_marker(data), offset))
            else:
                return f"unexpected block type {kind}"
        except ValueError as error:
            return f"a record's data cannot be read: {error}"
        return ""

    def _take_entry(self, body: bytes, offset: int) -> str:
        """Take any entry, as any etcd wrote it."""
        found = fields(body)
        term, index, kind = number(found, 2), number(found, 3), number(found, 1)
        data = blob(found, 4)
        if not index or kind > 2 or not found.keys() <= {1, 2, 3, 4}:
            return "a record that should be an entry is none"
        if kind and not data and (kind == 1 or index != self._next_index):
            # It has the shape of a hard state, and checksums do not cover the kind of a record.
            return "a record that should be an entry is none"
        if index != self._next_index:
            self._contents.runs.append((len(self._contents.entries), index))
        if term != self._term:
            self._term = term
            self._term_head = b"\x10" + varint(term) + b"\x18"
        self._next_index = index + 1
        canonical = bool(kind or 1 not in found) and bool(data or 4 not in found)
        self._add_entry(self._make(term, index, kind, data, len(body) if canonical else -1))
        self._add_offset(offset)
        return ""


def check_chain(contents: list[Contents[E]]) -> None:
    """The checksum a segment begins with is the one its predecessor ended with, and all belong to one
    member.
    """
    for before, after in pairwise(contents):
        path = after.segment.path
        if before.last_crc != after.first_crc:
            found, wanted = after.first_crc, before.last_crc
            text = f"it continues checksum {found:x}, but {before.segment.path} ends with {wanted:x}"
            raise WalCorrupt(path, 0, text)
        if before.metadata != after.metadata:
            raise WalCorrupt(path, 0, "conflicting metadata found")
