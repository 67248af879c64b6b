"""The write-ahead log: appended by one member, read back when it starts.

Appending never waits. `save` makes the frames and queues them on the native `Appender`, whose thread writes
and syncs them in order; what a sequence number stands for is durable once `completed()` has reached it. A
failed write or sync is final: `completed()` raises its OSError from then on, and nothing queued after it
happens.

A full segment is followed by the next one without a pause. The next file lies ready, reserved, as
`ready-0.tmp`; the cut queues its head and everything later to that file, and only once the head is on disk
is it given its name (in the executor, since renaming syncs the directory). Until the name is durable,
`completed()` does not move past the cut: a crash in between loses only what nobody was told.

Space that is reserved and was never written costs a commit of the file system's own journal with each sync.
So some zeros are written behind the end, where zeros are read already, and what follows takes their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pyetcd import logs
from pyetcd.storage.files import Files, named
from pyetcd.storage.wal import segments as seg
from pyetcd.storage.wal.errors import WalLocked
from pyetcd.storage.wal.frames import (
    SNAPSHOT,
    STATE,
    Encoder,
    EntryLike,
    HardState,
    HardStateLike,
    Marker,
    marker_bytes,
    state_bytes,
)
from pyetcd.storage.wal.replay import Log, Replay, read_log
from pyetcd.storage.wal.scan import E, EntryFactory
from pyetcd.storage.wal.segments import Segment

_ZEROS = bytes(512 << 10)  # at a time; half as much time in each sync of what takes their place, on ext4

_log = logs.get("storage")

T = TypeVar("T")


class AppenderLike(Protocol):
    """The part of `_native.Appender` the log uses; tests have one that cuts and fails."""

    def append(self, fd: int, offset: int, data: bytes | Sequence[bytes], sync: bool = True) -> int: ...
    def completed(self) -> int: ...


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry as `open` returns it where the caller has no class of its own for them."""

    term: int
    index: int
    type: int
    data: bytes
    size: int = field(default=-1, compare=False)  # of its encoding; -1: not known


@dataclass(slots=True)
class _Cut:
    """A change to the next segment that is under way."""

    old: Segment
    old_end: int
    new: Segment
    tmp: str
    head_sequence: int
    named: Future[None] | None = None


class Wal:
    """A log open for appending. Every method from one thread; make one with `create` or `open`."""

    def __init__(
        self,
        files: Files,
        directory: str,
        appender: AppenderLike,
        segments: list[Segment],
        metadata: bytes,
        *,
        executor: Executor | None,
        on_named: Callable[[], object] | None,
        segment_bytes: int,
        fsync: bool,
    ) -> None:
        self._files = files
        self._directory = directory
        self._appender = appender
        self._segments = segments
        self._metadata = metadata
        self._executor = executor
        self.on_named = on_named
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._encoder = Encoder()
        self._offset = self._zeros_end = 0
        self._last_index = 0
        self._state: HardStateLike | None = None
        self._held: HardStateLike | None = None
        self._sequence = 0
        self._cut: _Cut | None = None
        self._tmp_count = 0
        self._next: Future[tuple[str, int]] | None = None
        self.bytes_written = 0

    # Making one

    @classmethod
    def create(
        cls,
        files: Files,
        directory: str,
        metadata: bytes,
        appender: AppenderLike,
        *,
        executor: Executor | None = None,
        on_named: Callable[[], object] | None = None,
        segment_bytes: int = seg.SEGMENT_BYTES,
        fsync: bool = True,
    ) -> Wal:
        """A new log, durable when this returns. FileExistsError where there is one already.

        `metadata` is recorded in every segment. `executor` makes files ready and gives them their names;
        without one that happens in place. `on_named` (an attribute, too) is called, from the executor's
        thread, when `completed()` may have moved without the appender having news. `fsync=False` is etcd's
        --unsafe-no-fsync.
        """
        if seg.exists(files, directory):
            raise FileExistsError(f"wal: {directory} holds a log already")
        seg.check_leftovers(files, directory)
        tmp = directory + ".tmp"
        seg.remove_leftovers(files, tmp)
        files.mkdir(tmp)
        name = seg.segment_name(0, 0)
        fd = seg.make_segment_file(files, f"{tmp}/{name}", segment_bytes)
        encoder = Encoder()
        head = encoder.head(metadata, None) + encoder.record(SNAPSHOT, marker_bytes(Marker()))
        files.pwrite(fd, head, 0)
        files.fsync(fd)
        files.fsync_dir(tmp)
        seg.remove_leftovers(files, directory)
        files.rename(tmp, directory)
        files.fsync_dir(directory.rpartition("/")[0] or ".")
        wal = cls(
            files,
            directory,
            appender,
            [Segment(f"{directory}/{name}", 0, 0, fd)],
            metadata,
            executor=executor,
            on_named=on_named,
            segment_bytes=segment_bytes,
            fsync=fsync,
        )
        wal._encoder = encoder
        wal._offset = wal.bytes_written = len(head)
        wal._prepare_next()
        return wal

    @classmethod
    def open(
        cls,
        files: Files,
        directory: str,
        appender: AppenderLike,
        marker: Marker | None = None,
        *,
        entry: EntryFactory[E],
        durable: int = 0,
        accept: Callable[[Replay[E]], None] | None = None,
        executor: Executor | None = None,
        on_named: Callable[[], object] | None = None,
        segment_bytes: int = seg.SEGMENT_BYTES,
        fsync: bool = True,
    ) -> tuple[Wal, Replay[E]]:
        """Read a log and go on with it, from `marker` or, if None, from the newest valid snapshot marker in
        it.

        `entry` makes the entries: `entry(term, index, type, data, size)`. `durable` is an index that must
        be in the log, because the database contains it; give it only where nothing is applied before it is
        in this log, as in a cluster of one. WalMissing, WalLocked, WalCorrupt, or what `accept` raises when
        it is shown what was read; then nothing was changed on disk.
        """
        segments = seg.list_segments(files, directory)
        try:
            log = read_log(files, segments, seg.locker(files), entry, marker, durable, accept, repair=True)
        except BaseException:
            for segment in segments:
                seg.close(files, segment)
            raise
        wal = cls(
            files,
            directory,
            appender,
            log.segments,
            log.replay.metadata,
            executor=executor,
            on_named=on_named,
            segment_bytes=segment_bytes,
            fsync=fsync,
        )
        wal._resume(log)
        return wal, log.replay

    def _resume(self, log: Log[E]) -> None:
        for name in self._files.listdir(self._directory):
            if name in seg.LEFTOVER_NAMES:
                self._files.unlink(f"{self._directory}/{name}")
        self._encoder = Encoder(log.crc)
        self._offset = log.end
        self._last_index = log.last_index
        self._state = log.replay.hard_state
        self._prepare_next()

    # Appending

    def save(self, hard_state: HardStateLike | None, entries: Sequence[EntryLike], sync: bool) -> int:
        """Append entries and, behind them, the hard state; with `sync`, to be durable.

        Returns the sequence number to wait for with `completed()`. An empty hard state (all zeros) counts
        as None. One that comes alone and need not be durable (only its commit index has moved) is held back:
        it goes out behind the next entries, which under load follow at once, and a write and a wake-up of its
        own would cost as much as theirs. `write_held` is to be called when none have followed for a while.
        """
        if hard_state is not None and not (hard_state.term or hard_state.vote or hard_state.commit):
            hard_state = None
        if hard_state is None:
            hard_state = self._held
        elif not entries and not sync:
            self._held = hard_state
            return self._sequence
        return self._save(hard_state, entries, sync)

    def save_now(
        self, hard_state: HardStateLike, entries: Sequence[EntryLike], marker: Marker | None = None
    ) -> None:
        """The same before anything is queued, and durable when this returns: for what a start appends. The
        entries follow the last one, or the marker that goes before them."""
        assert self._sequence == 0, "the appender may be behind"
        assert self._held is None, "and it would come too late"
        segment, parts = self._segments[-1], list[bytes]()
        if marker is not None:
            assert marker.conf_state, "a start reads the configuration from the marker"
            parts.append(self._encoder.record(SNAPSHOT, marker_bytes(marker)))
            # It counts from here on, so that entries behind it leave no gap where the write is cut short.
            reached = HardState(hard_state.term, hard_state.vote, marker.index)
            parts.append(self._encoder.record(STATE, state_bytes(reached)))
            self._last_index = marker.index
        if entries:
            self._encoder.entries(entries, parts)
            self._last_index = entries[-1].index
        parts.append(self._encoder.record(STATE, state_bytes(hard_state)))
        self._state = hard_state
        data = b"".join(parts)
        try:
            self._files.pwrite(segment.fd, data, self._offset)
            if self._fsync:
                self._files.fdatasync(segment.fd)
        except OSError as error:
            raise named(error, segment.path) from None
        self._offset += len(data)
        self.bytes_written += len(data)

    def write_held(self) -> None:
        """Queue a hard state that was held back."""
        if self._held is not None:
            self._save(self._held, (), False)

    def _save(self, hard_state: HardStateLike | None, entries: Sequence[EntryLike], sync: bool) -> int:
        self._held = None
        parts: list[bytes] = []
        size = 0
        if entries:
            size = self._encoder.entries(entries, parts)
            self._last_index = entries[-1].index
        if hard_state is not None:
            frame = self._encoder.record(STATE, state_bytes(hard_state))
            parts.append(frame)
            size += len(frame)
            self._state = hard_state
        if size == 0:
            return self._sequence
        return self._append(parts, size, sync)

    def save_snapshot(self, index: int, term: int, conf_state: bytes) -> int:
        """Append a marker: the state machine is on disk up to `index`. `conf_state` is an encoded
        raftpb.ConfState.
        """
        assert index == 0 or conf_state, "a start reads the configuration from the marker"
        self.write_held()  # a marker counts only if the log says before that its index is committed
        frame = self._encoder.record(SNAPSHOT, marker_bytes(Marker(index, term, conf_state)))
        self._last_index = max(self._last_index, index)
        return self._append([frame], len(frame), True)

    def completed(self) -> int:
        """The sequence number up to which everything is on disk. OSError, for good, once something failed."""
        try:
            done = self._appender.completed()
        except OSError as error:
            raise named(error, self._segments[-1].path) from None
        cut = self._cut
        if cut is None:
            return done
        if cut.named is None:
            if done < cut.head_sequence:
                return done
            cut.named = self._run(lambda: self._name(cut))
        if not cut.named.done():
            return min(done, cut.head_sequence - 1)
        cut.named.result()
        self._cut = None
        self._prepare_next()
        return done

    def _append(self, parts: list[bytes], size: int, sync: bool) -> int:
        offset = self._offset
        end = self._offset = offset + size
        self.bytes_written += size
        if end > self._zeros_end and size <= len(_ZEROS) // 4:
            self._zeros_end = max(end, min(end + len(_ZEROS), self._segment_bytes))
            parts = [*parts, _ZEROS[: self._zeros_end - end]]
        full = self._offset >= self._segment_bytes and self._cut is None and self._next_is_ready()
        sequence = self._sequence = self._appender.append(
            self._segments[-1].fd, offset, parts, (sync or full) and self._fsync
        )
        if full:
            self._begin_cut()
        return sequence

    # The next segment

    def _begin_cut(self) -> None:
        assert self._next is not None
        tmp, fd = self._next.result()
        self._next = None
        old = self._segments[-1]
        new = Segment(
            f"{self._directory}/{seg.segment_name(old.sequence + 1, self._last_index + 1)}",
            old.sequence + 1,
            self._last_index + 1,
            fd,
        )
        head = self._encoder.head(self._metadata, self._state)
        self._sequence = self._appender.append(fd, 0, head, self._fsync)
        self._cut = _Cut(old, self._offset, new, tmp, self._sequence)
        self._segments.append(new)
        self._offset = self._zeros_end = len(head)
        self.bytes_written += len(head)

    def _name(self, cut: _Cut) -> None:
        """Runs in the executor, its head and all before it being on disk: the segment gets its name."""
        files = self._files
        try:
            files.truncate(cut.old.fd, cut.old_end)  # gives back what was reserved and not used
            files.fsync(cut.old.fd)
        except OSError as error:
            raise named(error, cut.old.path) from None
        files.rename(cut.tmp, cut.new.path)
        files.fsync_dir(self._directory)
        _log.info("created a new WAL segment", {"path": cut.new.path})

    def _prepare_next(self) -> None:
        path = f"{self._directory}/{seg.READY_NAMES[self._tmp_count % 2]}"
        self._tmp_count += 1
        size = self._segment_bytes
        self._next = self._run(lambda: (path, seg.make_segment_file(self._files, path, size)))

    def _next_is_ready(self) -> bool:
        """Whether a cut can be made now; until the file is ready the segment just grows. OSError: the disk
        is full.
        """
        if self._next is None or not self._next.done():
            return False
        self._next.result()
        return True

    def _run(self, job: Callable[[], T]) -> Future[T]:
        if self._executor is not None:
            future = self._executor.submit(job)
            future.add_done_callback(lambda _: self._notify())
            return future
        done: Future[T] = Future()
        try:
            done.set_result(job())
        except OSError as error:
            done.set_exception(error)
        return done

    def _notify(self) -> None:
        if self.on_named is not None:
            self.on_named()

    # Letting go

    def release(self, index: int) -> None:
        """A snapshot of `index` is on disk: give the locks of segments back that only hold entries before
        it, but always keep the one that may hold `index` itself. `purge` may then remove them.
        """
        held = self._segments
        last = len(held) - 1
        first_kept = next((i - 1 for i, segment in enumerate(held) if segment.index >= index), last)
        if self._cut is not None:
            first_kept = min(first_kept, last - 1)  # its end is still to be written
        for segment in held[: max(first_kept, 0)]:
            seg.close(self._files, segment)
        self._segments = held[max(first_kept, 0) :]

    def purge(self, keep: int) -> list[str]:
        """Remove the oldest segments until `keep` (1 or more) are left or one is met that is still locked.
        Returns their paths.

        May run in the executor: `release` only takes away from what is held, and a cut adds a segment before
        it gets its name. One that is held cannot be locked again in any case.
        """
        segments = seg.list_segments(self._files, self._directory)
        held = {segment.path for segment in self._segments}
        gone: list[str] = []
        for segment in segments[: max(len(segments) - keep, 0)]:
            if segment.path in held:
                break
            try:
                seg.open_locked(self._files, segment)
            except WalLocked as error:
                _log.warn("failed to lock file", {"path": segment.path, "error": error})
                break
            self._files.unlink(segment.path)
            seg.close(self._files, segment)
            _log.info("purged", {"path": segment.path})
            gone.append(segment.path)
        return gone

    def close(self) -> None:
        """Close the files and give all locks back. The appender must have finished, or failed, before."""
        cut, self._cut = self._cut, None
        try:
            if cut is not None and cut.named is not None:
                cut.named.result()
            elif cut is not None and self._appender.completed() >= cut.head_sequence:
                self._name(cut)
            self._write_last()
        finally:
            self._close_next()
            for segment in self._segments:
                seg.close(self._files, segment)

    def _write_last(self) -> None:
        """What is held back, once everything before it is written. Nothing waits for it to be durable."""
        held, self._held = self._held, None
        try:
            if held is None or self._appender.completed() < self._sequence:
                return
        except OSError:
            return  # the log has failed; nothing follows what failed
        self._files.pwrite(
            self._segments[-1].fd, self._encoder.record(STATE, state_bytes(held)), self._offset
        )

    def _close_next(self) -> None:
        upcoming, self._next = self._next, None
        if upcoming is None or upcoming.exception() is not None:
            return
        path, fd = upcoming.result()
        self._files.unlink(path)
        self._files.close(fd)
