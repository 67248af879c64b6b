"""A member's data directory: where things are in it, and whether they can belong together.

    <data-dir>/member/snap/db              the database
    <data-dir>/member/snap/*.snap, .snap.db  raft snapshots, databases received with them
    <data-dir>/member/wal/*.wal            the log (elsewhere with --wal-dir)

What belongs together: the log says whose it is and up to where it is needed (its newest snapshot marker); the
database says up to where it is applied. A log without a database can be replayed only if it reaches back to
its beginning; a database without its log has lost its identity and whatever was committed last, and is
refused. etcd would begin a new cluster with the old data then. Nothing is ever removed here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyetcd import logs
from pyetcd.storage import wal
from pyetcd.storage.files import DIRECTORY_MODE, Files

_log = logs.get("cluster")

_RECEIVED = re.compile(r"([0-9a-f]{16})\.snap\.db")


class DataDirError(Exception):
    """The directory cannot be used as it is. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """The places of one member. `wal_dir` is set where the log lives elsewhere."""

    path: str
    wal_dir: str = ""

    @property
    def member(self) -> str:
        return f"{self.path}/member"

    @property
    def snap(self) -> str:
        return f"{self.path}/member/snap"

    @property
    def database(self) -> str:
        return f"{self.path}/member/snap/db"

    @property
    def wal(self) -> str:
        return self.wal_dir.rstrip("/") or f"{self.path}/member/wal"

    def received_database(self, index: int) -> str:
        """The database that came with a snapshot of `index`."""
        return f"{self.snap}/{index:016x}.snap.db"


@dataclass(frozen=True, slots=True)
class Found:
    """What is there already. An empty file is no database: its creation was cut short, or it lost all."""

    has_log: bool
    has_database: bool


def prepare(files: Files, place: DataDir) -> Found:
    """Make the directories (0700) where they are missing, check that they can be written, and look what is
    there.

    DataDirError where they cannot be used, or a database has lost its log.
    """
    _touch(files, place.path, "data directory")
    _touch(files, place.member, "member directory")
    _touch(files, place.snap, "snapshot directory")
    above = place.wal.rpartition("/")[0]
    if above and not files.exists(above):
        _touch(files, above, "directory of the WAL directory")
    if files.exists(place.wal) and not files.is_dir(place.wal):
        raise DataDirError(f"cannot access WAL directory: mkdir {place.wal}: not a directory")
    has_database = files.exists(place.database) and files.file_size(place.database) > 0
    found = Found(wal.exists(files, place.wal), has_database)
    if found.has_log:
        _touch(files, place.wal, "WAL directory")
    elif found.has_database:
        raise DataDirError(
            f"the database {place.database} is there, but its write-ahead log {place.wal} is missing: "
            "refusing to start a new cluster with old data. Put the log back, or restore a snapshot elsewhere"
        )
    return found


def check_database(
    files: Files, place: DataDir, found: Found, marker_index: int, consistent_index: int
) -> str | None:
    """Whether database and log belong together, and what to do about it if they do not.

    `marker_index` is that of the log's newest snapshot marker, `consistent_index` what the database has
    applied (0 if it is new). Returns None where all is well, or the path of a received database that has to
    take the place of the present one (rename it to `place.database` and open it again). DataDirError where
    nothing helps.
    """
    fields = {"consistent-index": consistent_index, "snapshot-index": marker_index}
    if marker_index <= consistent_index:
        if marker_index:
            _log.info("Skipping snapshot backend", fields)
        return None
    _log.info("Recovering from snapshot backend", fields)
    received = place.received_database(marker_index)
    if files.exists(received):
        return received
    _log.warn(
        "failed to find [SNAPSHOT-INDEX].snap.db",
        {"snapshot-index": marker_index, "snapshot-file-path": received},
    )
    missing = "failed to find database snapshot file (snap: snapshot file doesn't exist)"
    if found.has_database:
        why = f"{place.database} index {consistent_index} does not match with snapshot (index {marker_index})"
    else:
        gone = f"database file ({place.database}) of the backend is missing or empty"
        why = f"{gone}; the log needs it from {marker_index} on"
    raise DataDirError(f"{missing}: {why}")


def received_databases(files: Files, place: DataDir) -> list[int]:
    """The indexes of the snapshots whose databases were received and are still beside the one in use."""
    return [int(match[1], 16) for name in files.listdir(place.snap) if (match := _RECEIVED.fullmatch(name))]


def place_received(files: Files, place: DataDir, received: str) -> None:
    """Let a received database take the place of the present one, for good when this returns."""
    files.rename(received, place.database)
    for sums in (received + ".sum", place.database + ".sum"):
        if files.exists(sums):
            files.unlink(sums)  # they are gathered anew
    files.fsync_dir(place.snap)


def _touch(files: Files, path: str, what: str) -> None:
    try:
        if not files.exists(path):
            make_directory(files, path.rstrip("/"))
        elif not files.is_dir(path):
            raise DataDirError(f"cannot access {what}: mkdir {path}: not a directory")
        elif files.mode(path) != DIRECTORY_MODE:
            _log.warn("check file permission", {"error": _permission_text(path, files.mode(path))})
        probe = f"{path}/.touch"
        files.close(files.open(probe, create=True))
        files.unlink(probe)
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise DataDirError(f"cannot access {what}: {path}: {text}") from None


def make_directory(files: Files, path: str) -> None:
    """Make a directory and those above it that are missing, all names durable: what is synced in a directory
    is lost with its name.
    """
    parent = path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")
    if not files.exists(parent):
        make_directory(files, parent)
    files.mkdir(path)
    files.fsync_dir(parent)


def _permission_text(path: str, mode: int) -> str:
    shown = "d" + "".join(
        letter if mode >> 8 - place & 1 else "-" for place, letter in enumerate("rwxrwxrwx")
    )
    return (
        f'directory "{path}" exist, but the permission is "{shown}". The recommended permission is '
        '"-rwx------" to prevent possible unprivileged access to the data'
    )
