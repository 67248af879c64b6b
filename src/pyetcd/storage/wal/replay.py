"""What a log says at start: from its files back to the state of the member that wrote them.

Only what is needed is read: segments from the newest backwards, until a snapshot marker is found that the
log itself calls committed and every entry behind it is at hand. A torn end of the last segment is cut (its
file is kept as `.broken`), anything else that is wrong is WalCorrupt, and then nothing was changed.

Entries: a later entry of the same index replaces the earlier one and all behind it (a new leader overwrote
them), a gap is damage. Entries beyond the hard state's commit are uncommitted; they are returned as well.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic

from pyetcd import logs
from pyetcd.storage.files import Files
from pyetcd.storage.wal.errors import WalCorrupt, WalError
from pyetcd.storage.wal.frames import HardState, Marker, read_state
from pyetcd.storage.wal.scan import Contents, E, EntryFactory, check_chain, read_segment
from pyetcd.storage.wal.segments import Segment, check_order, close, list_segments
from pyetcd.storage.wal.tail import SECTOR_BYTES, end_of_data, judge

_log = logs.get("storage")

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Span:
    """Where entries from index `first` on lie in one file. A later span hides an earlier one."""

    first: int
    path: str
    offsets: array[int]


@dataclass(slots=True)
class Replay(Generic[E]):
    """The log as read. `entries` are those behind `marker`, their indexes without a gap from `marker.index
    + 1` on; `hard_state` is None where none was ever saved.
    """

    metadata: bytes
    hard_state: HardState | None
    marker: Marker
    entries: list[E]
    cut_at: tuple[str, int] | None  # file and offset of a torn end that was cut off
    spans: Sequence[_Span]

    @property
    def conf_state(self) -> bytes:
        """The encoded raftpb.ConfState the marker carries; empty where it carries none."""
        return self.marker.conf_state

    @property
    def last_index(self) -> int:
        return self.marker.index + len(self.entries)

    def locate(self, index: int) -> tuple[str, int]:
        """File and offset of the record of the entry at `index`, for messages about it."""
        for span in reversed(self.spans):
            if span.first <= index < span.first + len(span.offsets):
                return span.path, span.offsets[index - span.first]
        raise IndexError(f"no entry {index} in the log")


@dataclass(slots=True)
class Log(Generic[E]):
    """A log as read from its files, and where it goes on."""

    replay: Replay[E]
    segments: list[Segment]  # those read, oldest first
    end: int  # offset in the last one
    crc: int
    last_index: int


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No garbage collection meanwhile: entries are made by the hundred thousand and none is garbage. Looking
    through them again and again took as long as reading the log.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_collector_at_rest()
def read_log(
    files: Files,
    segments: list[Segment],
    descriptor: Callable[[Segment], int],
    make: EntryFactory[E],
    marker: Marker | None,
    durable: int,
    accept: Callable[[Replay[E]], None] | None,
    repair: bool,
) -> Log[E]:
    """Read the log from `marker` on (None: the newest valid one). See `Wal.open` for `durable` and `accept`.

    `descriptor` opens a segment (and locks it where the log is to be written). With `repair` a torn end is
    cut, else only left out. Segments older than those read do not matter, not even whether all are there: a
    purge cut short may have removed any of them.
    """
    contents: list[Contents[E]] = []
    chosen: Marker | None = None
    torn = False
    for segment in reversed(segments):
        if contents:
            check_order(segment, contents[0].segment)
        read = read_segment(files, segment, descriptor(segment), make)
        if not contents:
            torn = _check_last(files, read, descriptor)
        elif read.stop.damage or end_of_data(files, descriptor(segment), read.stop.offset) > read.stop.offset:
            why = read.stop.damage or "zeros where a record should be, before the segment's end"
            raise WalCorrupt(segment.path, read.stop.offset, why)
        _check_head(read)
        contents.insert(0, read)
        check_chain(contents[:2])
        chosen = _choose(contents, marker)
        if chosen is not None and segment.index <= chosen.index:
            break
    last = contents[-1]
    if chosen is None:
        raise WalError(f"wal: snapshot not found: no valid marker in {segments[0].path} and after")
    if contents[0].segment.index > chosen.index + 1:
        first = contents[0].segment
        why = f"the log begins at index {first.index}, but the snapshot is of index {chosen.index}"
        raise WalCorrupt(first.path, None, why)
    metadata = last.metadata
    assert metadata is not None, "every segment's head was checked"
    entries, spans = _merge(contents, chosen)
    replay = Replay(metadata, _state(contents), chosen, entries, None, spans)
    _check_commit(replay, last, durable)
    if accept is not None:
        accept(replay)
    if torn:
        replay.cut_at = (last.segment.path, last.stop.offset)
        if repair:
            _cut(files, last.segment, descriptor(last.segment), last.stop.offset)
    newest = next((each.last_index for each in reversed(contents) if each.runs), 0)
    return Log(
        replay,
        [each.segment for each in contents],
        last.stop.offset,
        last.last_crc,
        max(newest, chosen.index),
    )


def _check_last(files: Files, last: Contents[E], descriptor: Callable[[Segment], int]) -> bool:
    """Whether the newest segment's end is torn. WalCorrupt where it is damaged."""
    first_missing = (last.last_index or max(last.segment.index, 1) - 1) + 1
    verdict = judge(files, descriptor(last.segment), last.stop, last.last_crc, first_missing)
    if verdict.damage:
        raise WalCorrupt(last.segment.path, last.stop.offset, verdict.damage)
    return verdict.torn


def _check_head(read: Contents[E]) -> None:
    if read.metadata is None:
        raise WalCorrupt(read.segment.path, read.stop.offset, "the segment ends before its metadata")


def _choose(contents: list[Contents[E]], wanted: Marker | None) -> Marker | None:
    """The wanted marker, or the newest whose index is committed; None if it is not in these segments."""
    state = _state(contents)
    commit = 0 if state is None else state.commit
    for read in reversed(contents):
        for found, offset in reversed(read.markers):
            if wanted is None:
                if found.index <= commit:
                    return found
            elif found.index == wanted.index:
                if found.term != wanted.term:
                    text = f"snapshot mismatch: index {found.index} has term {found.term}, not {wanted.term}"
                    raise WalCorrupt(read.segment.path, offset, text)
                return found
    return None


def _state(contents: list[Contents[E]]) -> HardState | None:
    last = next((read.state for read in reversed(contents) if read.state is not None), None)
    return None if last is None else read_state(last)


def _merge(contents: list[Contents[E]], marker: Marker) -> tuple[list[E], list[_Span]]:
    """The entries behind the marker as they stand in the end, and where they lie."""
    base = marker.index
    entries: list[E] = []
    spans: list[_Span] = []
    for read in contents:
        ends = [position for position, _ in read.runs[1:]] + [len(read.entries)]
        for (position, index), end in zip(read.runs, ends, strict=False):
            position += max(base + 1 - index, 0)
            index = max(index, base + 1)
            if position >= end:
                continue
            expected = base + 1 + len(entries)
            if index > expected:
                text = f"entry {index} where {expected} should be (snapshot index {base})"
                raise WalCorrupt(read.segment.path, read.offsets[position], text)
            del entries[index - base - 1 :]
            entries += read.entries[position:end]
            spans.append(_Span(index, read.segment.path, read.offsets[position:end]))
    return entries, spans


def _check_commit(replay: Replay[E], last: Contents[E], durable: int) -> None:
    """What is known to be on disk must be here."""
    commit = 0 if replay.hard_state is None else replay.hard_state.commit
    ends = f"the log ends with entry {replay.last_index}"
    if commit > replay.last_index:
        raise WalCorrupt(last.segment.path, last.stop.offset, f"{ends}, yet {commit} is called committed")
    if durable > replay.last_index:
        raise WalCorrupt(
            last.segment.path, last.stop.offset, f"{ends}, yet the database has applied entry {durable}"
        )


def _cut(files: Files, segment: Segment, fd: int, offset: int) -> None:
    """Cut a torn end off: keep the file as `.broken`, then let zeros follow `offset`, space reserved as
    before.
    """
    broken = segment.path + ".broken"
    _log.info("repairing", {"path": segment.path, "offset": offset})
    size = files.size(fd)
    written = end_of_data(files, fd, 0)
    copy = files.open(broken, create=True, truncate=True)
    try:
        for at in range(0, written, _COPY_BYTES):
            files.pwrite(copy, files.pread(fd, min(_COPY_BYTES, written - at), at), at)
        files.fdatasync(copy)
    finally:
        files.close(copy)
    files.truncate(fd, offset)
    files.preallocate(fd, -(-size // SECTOR_BYTES) * SECTOR_BYTES)
    files.fsync(fd)
    files.fsync_dir(segment.path.rpartition("/")[0])
    _log.info("repaired", {"path": segment.path, "broken-path": broken})


def read_only(
    files: Files, directory: str, marker: Marker | None = None, *, entry: EntryFactory[E]
) -> Replay[E]:
    """Read a log that somebody else may be writing: no locks, nothing repaired, a torn end left out."""
    segments = list_segments(files, directory)

    def descriptor(segment: Segment) -> int:
        if segment.fd < 0:
            segment.fd = files.open(segment.path)
        return segment.fd

    try:
        return read_log(files, segments, descriptor, entry, marker, 0, None, repair=False).replay
    finally:
        for segment in segments:
            close(files, segment)
