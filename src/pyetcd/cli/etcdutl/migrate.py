"""`migrate`: the storage version of a stopped member's database, so that another version of etcd may start on
it. The steps and what is in their way are those of `cluster.migration`; `--force` sets the version in any
case.
"""

from __future__ import annotations

from typing import Final

from pyetcd import logs
from pyetcd.cli import gotext
from pyetcd.cli.command import Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.places import check_is_there, database_in, join, open_to_write, said
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.cluster.migration import CannotMigrate, change_version, set_version
from pyetcd.cluster.versions import STORAGE_FIRST, Version
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles
from pyetcd.storage.wal import LogEntry, WalError, read_only

OLDEST: Final = Version(3, 5)

_log = logs.get("etcdutl")


def migrate(call: Invocation) -> None:
    data_dir, target = call.text("data-dir"), _target(call.text("target-version"))
    files, path = OsFiles(), database_in(data_dir)
    missing = check_is_there(files, path)
    if missing is not None:
        raise Exit(ERROR, missing)
    log_setup.to_console()
    backend = open_to_write(files, path, call)
    try:
        current = _current(backend)
        if current == target:
            _log.info("storage version up-to-date", {"storage-version": current.short})
            return
        entries = _entries(files, join(data_dir, "member", "wal"))
        try:
            change_version(backend, current, target, entries)
        except CannotMigrate as error:
            if not call.on("force"):
                raise
            _log.info("normal migrate failed, trying with force", {"error": error})
            _force(backend, target)
        backend.commit_now()
    except CannotMigrate as error:
        raise Exit(ERROR, str(error)) from None
    except OSError as error:
        raise Exit(ERROR, said("write", error.filename or path, error)) from None
    finally:
        backend.discard()


def _target(text: str) -> Version:
    """The value of `--target-version`, which has two numbers."""
    if text.count(".") != 1:
        shown = gotext.quote(text)
        raise Exit(BAD_ARGS, f'wrong target version format, expected "X.Y", got {shown}')
    try:
        major, minor = (gotext.parse_int(part, 10) for part in text.split("."))
    except gotext.GoValueError as error:
        raise Exit(BAD_ARGS, f"failed to parse target version: {error}") from None
    version = Version(major, minor)
    if version < OLDEST:
        raise Exit(BAD_ARGS, f'target version "{version.short}" not supported. Minimal "3.5"')
    return version


def _current(backend: Backend) -> Version:
    found = schema.storage_version(backend)
    if found is None:
        hint = "Please make sure you are using data dir from etcd v3.5 and older"
        _log.error(f"failed to detect storage version. {hint}")
        raise CannotMigrate("missing term information")
    return Version(*found)


def _entries(files: OsFiles, wal_dir: str) -> list[LogEntry]:
    """The log behind its last snapshot."""
    try:
        return read_only(files, wal_dir, entry=LogEntry).entries
    except (WalError, OSError) as error:
        failure = CannotMigrate(f"failed to get the lastest snapshot: {error}")
        _log.error("Failed to finalize config", {"error": failure})
        raise failure from None


def _force(backend: Backend, target: Version) -> None:
    set_version(backend, target)
    if target < STORAGE_FIRST:
        _log.warn("forcefully cleared storage version")
    else:
        _log.warn("forcefully set storage version", {"storage-version": target.short})
