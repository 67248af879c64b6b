"""Paths as Go joins them, errors of the system as Go says them, and databases that others may have locked."""

from __future__ import annotations

import time
from collections.abc import Callable
from os.path import normpath
from typing import Final, TypeVar

from pyetcd import logs
from pyetcd.cli.command import Invocation
from pyetcd.cli.exits import ERROR, PANIC, Exit
from pyetcd.storage.backend import Backend
from pyetcd.storage.bolt import Database, DatabaseError, DatabaseLocked, NotADatabase
from pyetcd.storage.files import Files

T = TypeVar("T")

LOCK_RETRY_SECONDS: Final = 0.05

_log = logs.get("etcdutl")


def join(*parts: str) -> str:
    """`filepath.Join`: without empty parts, without what takes no part in the path."""
    joined = normpath("/".join(part for part in parts if part))
    return joined[1:] if joined.startswith("//") else joined


def database_in(data_dir: str) -> str:
    return join(data_dir, "member", "snap", "db")


def said(action: str, path: str, error: OSError) -> str:
    """`open x: no such file or directory`."""
    return f"{action} {path}: {(error.strerror or str(error)).lower()}"


def check_is_there(files: Files, path: str) -> str | None:
    """Why the file cannot be looked at, or None."""
    try:
        files.file_size(path)
    except OSError as error:
        return said("stat", path, error)
    return None


def open_to_read(files: Files, path: str, call: Invocation) -> Database:
    """The database at `path`, which stays as it is. Exit when it is none, or locked for too long."""
    try:
        return patiently(lambda: Database.open(files, path, read_only=True), call.number("timeout"))
    except (DatabaseError, OSError) as error:
        raise Exit(ERROR, reason(error)) from None


def open_to_write(files: Files, path: str, call: Invocation) -> Backend:
    """The database at `path`, locked. Exit, after a log line, when it is none, or locked for too long."""
    try:
        return patiently(lambda: Backend.open(files, path, None), call.number("timeout"))
    except (DatabaseError, OSError) as error:
        _log.fatal("failed to open database", {"path": path, "error": reason(error)})
        raise Exit(PANIC) from None


def reason(error: DatabaseError | OSError) -> str:
    """What is wrong, in bbolt's words where it has any."""
    if isinstance(error, DatabaseLocked):
        return "timeout"
    if isinstance(error, NotADatabase):
        return f"invalid database: {error}"
    if isinstance(error, OSError) and error.filename:
        return said("open", str(error.filename), error)
    return str(error)


def patiently(open_it: Callable[[], T], timeout_ns: int) -> T:
    """DatabaseLocked only when `--timeout` is over; 0 is for ever."""
    end = time.monotonic_ns() + timeout_ns
    while True:
        try:
            return open_it()
        except DatabaseLocked:
            if timeout_ns and time.monotonic_ns() >= end:
                raise
        time.sleep(LOCK_RETRY_SECONDS)
