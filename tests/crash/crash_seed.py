"""A member's data directory as tests here need it: with a past, small, and copied quickly."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crash_member import Crashable
from wal_disk import DirectAppender

from pyetcd.cluster.bootstrap import read_metadata
from pyetcd.mvcc.answer import finish
from pyetcd.mvcc.restore import restore
from pyetcd.mvcc.seams import NoLeases
from pyetcd.mvcc.store import Store
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
)
from pyetcd.raft import ConfState
from pyetcd.raft.codec import encode_conf_state
from pyetcd.storage.backend import Backend
from pyetcd.storage.bolt import Database
from pyetcd.storage.files import OsFiles
from pyetcd.storage.wal import HardState, LogEntry, Wal, read_only

KEYS = 1500
LATE_KEYS = 40
SEGMENT_BYTES = 64 << 10
MANY_KEYS = 200_000
REVISED_KEYS = 2_000
REVISIONS = 30_000
COMMIT_EVERY = 20_000
Keys = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Seed:
    """`early` was stopped cleanly; in `late` more was written, then it was killed. So the database of
    `early` and the log of `late` are a member that has entries to replay, whatever was committed when."""

    early: Path
    late: Path
    early_keys: Keys
    late_keys: Keys
    revision: int

    def place(self, target: Path) -> None:
        """A copy: the early database, the late log in small segments."""
        copy(self.late, target)
        for name in ("db", "db.sum"):
            copy_file(self.early / "member/snap" / name, target / "member/snap" / name)


def make_seed(directory: Path) -> Seed:
    member = Crashable(directory, snapshot_count=1_000_000)
    member.start()
    put = member.channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=PutRequest.SerializeToString,
        response_deserializer=PutResponse.FromString,
    )
    keys = {b"key-%05d" % number: b"%05d " % number * 40 for number in range(KEYS)}
    calls = [put.future(PutRequest(key=key, value=value), timeout=60) for key, value in keys.items()]
    for call in calls:
        call.result()
    gone = DeleteRangeRequest(key=b"key-00100", range_end=b"key-00200")
    member.call("KV/DeleteRange", gone, DeleteRangeResponse)
    early = {key: value for key, value in keys.items() if not b"key-00100" <= key < b"key-00200"}
    member.call("KV/Compact", CompactionRequest(revision=500, physical=True), CompactionResponse)
    member.stop(signal.SIGTERM)
    copy(member.data, directory / "early")
    member.start()
    late = dict(early)
    for number in range(LATE_KEYS):
        key, value = b"late-%05d" % number, b"%02d" % number * 450
        revision = member.put(key, value)
        late[key] = value
    member.stop(signal.SIGKILL)
    recut(member.data / "member/wal", SEGMENT_BYTES)
    return Seed(directory / "early", member.data, early, late, revision)


def filled(directory: Path, puts: Iterator[tuple[bytes, bytes]]) -> Path:
    """The data directory of a stopped member, with all these put into its database by the store itself."""
    member = Crashable(directory)
    member.start()
    member.stop()
    backend = Backend.open(OsFiles(), str(member.data / "member/snap/db"), None)
    store = Store(backend, NoLeases(), lambda job: None, finish(restore(backend)))
    for number, (key, value) in enumerate(puts):
        store.put_simple(key, value)
        if number % COMMIT_EVERY == 0:
            backend.commit_now()
    backend.close_now()
    return member.data


def many_keys(directory: Path) -> Path:
    return filled(directory, ((b"many/%06d" % number, b"value") for number in range(MANY_KEYS)))


def many_revisions(directory: Path) -> Path:
    puts = ((b"k%04d" % (number * 7 % REVISED_KEYS), b"%d" % number) for number in range(REVISIONS))
    return filled(directory, puts)


def copy(source: Path, target: Path) -> None:
    """A copy in which what takes no space does not take any either."""
    for path in [source, *sorted(source.rglob("*"))]:
        new = target / path.relative_to(source)
        if path.is_dir():
            new.mkdir(parents=True)
            new.chmod(path.stat().st_mode)
        else:
            copy_file(path, new)


def copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        target.chmod(0o600)
        for start, end in data_of(old.fileno()):
            old.seek(start)
            new.seek(start)
            new.write(old.read(end - start))
        new.truncate(source.stat().st_size)


def data_of(fd: int) -> Iterator[tuple[int, int]]:
    """Where a file has anything but holes."""
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def recut(directory: Path, segment_bytes: int, marker_at: int = 0) -> None:
    """Write a log again in small segments; `marker_at`: an index behind which a snapshot's marker goes."""
    files = OsFiles()
    replay = read_only(files, str(directory), entry=LogEntry)
    assert replay.hard_state is not None
    member_id, _ = read_metadata(replay.metadata)
    shutil.rmtree(directory)
    appender = DirectAppender(files)
    wal = Wal.create(files, str(directory), replay.metadata, appender, segment_bytes=segment_bytes)
    for entry in replay.entries:
        state = HardState(replay.hard_state.term, replay.hard_state.vote, entry.index - 1)
        wal.save(state if entry.index > 1 else HardState(1, 0, 0), [entry], False)
        wal.completed()
        if entry.index == marker_at:
            wal.save(HardState(state.term, state.vote, entry.index), [], False)
            wal.save_snapshot(entry.index, entry.term, encode_conf_state(ConfState(voters=(member_id,))))
            wal.completed()
    wal.save(replay.hard_state, [], True)
    wal.close()


def edit(data: Path, bucket: bytes, key: bytes, value: bytes) -> None:
    """Put something into the database of a member that is not running."""
    database = Database.open(OsFiles(), str(data / "member/snap/db"))
    commit = database.begin()
    for _ in commit.apply(bucket, [key], {key: value}):
        pass
    database.commit(commit)
    database.close()


def append(data: Path, entries: list[tuple[int, bytes]]) -> None:
    """Have the log of a stopped member say that these (type, data) were committed."""
    files = OsFiles()
    wal, replay = Wal.open(files, str(data / "member/wal"), DirectAppender(files), entry=LogEntry)
    hard = replay.hard_state
    assert hard is not None
    first = replay.last_index + 1
    made = [LogEntry(hard.term, first + at, kind, content) for at, (kind, content) in enumerate(entries)]
    wal.save(HardState(hard.term, hard.vote, made[-1].index), made, True)
    wal.completed()
    wal.close()


def keys_of(member: Crashable) -> Keys:
    """All keys with their values."""
    return {kv.key: kv.value for kv in member.range(b"\0", b"\0").kvs}
