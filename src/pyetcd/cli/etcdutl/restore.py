"""`snapshot restore`: from a database file to the data directory of a member of a new cluster.

What is made is what etcd's own restore makes, IDs included: the database with the new cluster's members in
place of the old ones and applied up to the first entries; a log with these entries, one a member; a `.snap`
file; the log's marker. Keys, leases, users and alarms stay as they were.

Order, so that a server does not take a half-made directory for a whole one: first the database is copied
and changed, in one commit, then comes the `.snap` file, the log last. pyetcd refuses a database without a
log, and one that has applied more than its log holds. A snapshot that turns out to be damaged leaves nothing
behind: its hash and its pages are proved before the log is begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd import logs
from pyetcd.cli.command import Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.new_member import BadStart, NewMember, new_member
from pyetcd.cli.etcdutl.places import database_in, join, reason, said
from pyetcd.cli.etcdutl.progress import Progress
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.cluster.bootstrap import BOOTSTRAP_TERM, metadata
from pyetcd.cluster.membership import MEMBERS, REMOVED, Membership
from pyetcd.cluster.v2store import membership_json
from pyetcd.proto.raft_pb2 import ConfChange, ConfState, EntryType
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.bolt import DatabaseError
from pyetcd.storage.files import Files, OsFiles
from pyetcd.storage.snap import Snapshot, Snapshots
from pyetcd.storage.wal import HardState, LogEntry, Wal, WalError

HASH_BYTES: Final = 32
SECTOR_BYTES: Final = 512  # databases are whole sectors; a hash behind one shows in the size
COPY_BYTES: Final = 1 << 20

_log = logs.get("etcdutl")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to restore from and to, and what to change on the way."""

    snapshot: str
    data_dir: str
    wal_dir: str
    skip_hash_check: bool
    map_bytes: int
    bump: int

    @property
    def log_dir(self) -> str:
        return join(self.wal_dir)

    @property
    def snap_dir(self) -> str:
        return join(self.data_dir, "member", "snap")

    def fields(self) -> dict[str, object]:
        """For log lines."""
        return {
            "path": self.snapshot,
            "wal-dir": self.wal_dir,
            "data-dir": self.data_dir,
            "snap-dir": self.snap_dir,
            "initial-memory-map-size": self.map_bytes,
        }


def restore(call: Invocation) -> None:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "snapshot restore requires exactly one argument")
    bump = call.number("bump-revision")
    if (bump > 0) != call.on("mark-compacted"):
        raise Exit(BAD_ARGS, "--mark-compacted required if --revision-bump > 0")
    data_dir = call.text("data-dir") or call.text("name") + ".etcd"
    wanted = Wanted(
        call.args[0],
        data_dir,
        call.text("wal-dir") or join(data_dir, "member", "wal"),
        call.on("skip-hash-check"),
        call.number("initial-memory-map-size"),
        bump,
    )
    log_setup.to_console()
    try:
        new = new_member(
            call.text("name"),
            call.text("initial-advertise-peer-urls"),
            call.text("initial-cluster"),
            call.text("initial-cluster-token"),
        )
        Restoration(OsFiles(), wanted, new).run()
    except (BadStart, Refused, WalError) as error:
        raise Exit(ERROR, str(error)) from None
    except OSError as error:
        raise Exit(ERROR, said("open", error.filename or wanted.data_dir, error)) from None


class Refused(Exception):
    """The snapshot or the place for it cannot be used. The text is etcd's."""


class Restoration:
    """One restore. `run` it once."""

    def __init__(self, files: Files, wanted: Wanted, new: NewMember) -> None:
        self._files = files
        self._wanted = wanted
        self._new = new
        self._made: list[str] = []  # directories, in the order they were made

    def run(self) -> None:
        """Refused, WalError, OSError; what was made by then is gone again, unless the log had been begun."""
        files, wanted = self._files, self._wanted
        if files.exists(wanted.data_dir) and not self._is_empty(wanted.data_dir):
            raise Refused(f'data-dir "{wanted.data_dir}" not empty or could not be read')
        if files.exists(wanted.wal_dir):
            raise Refused(f'wal-dir "{wanted.wal_dir}" exists')
        _log.info("restoring snapshot", wanted.fields())
        database = database_in(wanted.data_dir)
        try:
            self._copy(database)
            self._change(database)
        except BaseException as error:
            self._undo(database)
            if isinstance(error, DatabaseError):
                raise Refused(reason(error).replace(database, wanted.snapshot)) from None
            raise
        self._write_log()
        _log.info("restored snapshot", wanted.fields())

    def _is_empty(self, directory: str) -> bool:
        try:
            return not self._files.listdir(directory)
        except OSError:
            return False

    def _make_directory(self, path: str) -> None:
        """With those above it, all names durable."""
        if not path or self._files.exists(path):
            return
        above = path.rpartition("/")[0] or ("/" if path.startswith("/") else "")
        self._make_directory(above)
        self._files.mkdir(path)
        self._made.append(path)
        self._files.fsync_dir(above or ".")

    def _undo(self, database: str) -> None:
        for path in (database, database + ".sum"):
            if self._files.exists(path):
                self._files.unlink(path)
        for directory in reversed(self._made):
            self._files.rmdir(directory)

    # The database

    def _copy(self, target: str) -> None:
        """The snapshot without its hash, which is proved."""
        files, wanted = self._files, self._wanted
        source = files.open(wanted.snapshot)
        try:
            size = files.size(source)
            if size < HASH_BYTES:
                raise Refused(f"seek {wanted.snapshot}: invalid argument")
            has_hash = size % SECTOR_BYTES == HASH_BYTES
            if not has_hash and not wanted.skip_hash_check:
                raise Refused("snapshot missing hash but --skip-hash-check=false")
            length = size - HASH_BYTES if has_hash else size
            self._make_directory(wanted.snap_dir)
            found = self._copy_bytes(source, target, length)
            stored = files.pread(source, HASH_BYTES, length)
        finally:
            files.close(source)
        if has_hash and not wanted.skip_hash_check and found != stored:
            raise Refused(f"expected sha256 {_numbers(stored)}, got {_numbers(found)}")

    def _copy_bytes(self, source: int, target: str, length: int) -> bytes:
        """Returns the SHA-256 of what was copied."""
        files, digest = self._files, hashlib.sha256()
        progress = Progress("copying the snapshot", length)
        copy = files.open(target, create=True, truncate=True)
        try:
            for at in range(0, length, COPY_BYTES):
                data = files.pread(source, min(COPY_BYTES, length - at), at)
                digest.update(data)
                files.pwrite(copy, data, at)
                progress.reached(at + len(data))
            files.fdatasync(copy)
        finally:
            progress.close()
            files.close(copy)
        return digest.digest()

    def _change(self, path: str) -> None:
        """Make the database that of the new cluster, in one commit."""
        backend = Backend.open(self._files, path, None)
        try:
            _log.info("Trimming membership information from the backend...")
            for bucket in (MEMBERS, REMOVED):
                backend.create_bucket(bucket)
                for key, _ in backend.scan(bucket, b""):
                    backend.delete(bucket, key)
            if self._wanted.bump:
                bump_revision(backend, self._wanted.bump)
            membership = Membership(backend, 0, self._new.cluster.id)
            for data in self._new.cluster.entry_data():
                membership.apply(ConfChange.FromString(data))
            applied = len(self._new.cluster.members)
            backend.put(schema.META, schema.CONSISTENT_INDEX, applied.to_bytes(8, "big"))
            backend.put(schema.META, schema.TERM, BOOTSTRAP_TERM.to_bytes(8, "big"))
            backend.commit_now()
        except BaseException:
            backend.discard()
            raise
        backend.discard()

    # The log

    def _write_log(self) -> None:
        files, wanted, cluster = self._files, self._wanted, self._new.cluster
        ids = [member.id for member in cluster.members]
        data = cluster.entry_data()
        kind = EntryType.EntryConfChange
        entries = [LogEntry(BOOTSTRAP_TERM, index, kind, each) for index, each in enumerate(data, 1)]
        last = len(entries)
        conf_state = ConfState(voters=ids).SerializeToString()
        snapshot = Snapshot(last, BOOTSTRAP_TERM, conf_state, membership_json(cluster.members, (), None))
        Snapshots(files, wanted.snap_dir).save(snapshot)  # which makes the names beside it durable as well
        self._make_directory(wanted.log_dir.rpartition("/")[0])
        wal = Wal.create(files, wanted.log_dir, metadata(self._new.member.id, cluster.id), Immediate(files))
        try:
            wal.save(HardState(BOOTSTRAP_TERM, ids[0], last), entries, True)
            wal.save_snapshot(last, BOOTSTRAP_TERM, conf_state)
        finally:
            wal.close()


def bump_revision(backend: Backend, amount: int) -> None:
    """Let the store go on `amount` revisions later, and call all before compacted: watchers of the old
    cluster then learn that they have missed something. etcd does it by a record without content."""
    latest = 0
    at = b""
    while True:
        rows = backend.scan(schema.KEY, at, None, 10_000)
        if not rows:
            break
        latest = schema.parse_revision_key(rows[-1][0])[0]
        at = rows[-1][0] + b"\0"
    fields = {"latest-revision": latest, "bump-amount": amount, "new-latest-revision": latest + amount}
    _log.info("bumping latest revision", fields)
    backend.put(schema.KEY, schema.revision_key(latest + amount), b"")
    _log.info("marking revision compacted", {"revision": latest + amount})
    backend.put(schema.META, schema.SCHEDULED_COMPACT, schema.revision_key(latest + amount))


class Immediate:
    """An appender that has written and synced when `append` returns."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._sequence = 0

    def append(self, fd: int, offset: int, data: bytes | Sequence[bytes], sync: bool = True) -> int:
        self._files.pwritev(fd, [data] if isinstance(data, bytes) else data, offset)
        if sync:
            self._files.fdatasync(fd)
        self._sequence += 1
        return self._sequence

    def completed(self) -> int:
        return self._sequence


def _numbers(data: bytes) -> str:
    """Bytes as Go prints a slice of them."""
    return "[" + " ".join(map(str, data)) + "]"
