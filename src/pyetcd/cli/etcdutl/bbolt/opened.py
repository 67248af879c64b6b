"""Database files opened for reading, whole or page by page, with bbolt's words where they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError, Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.places import patiently, reason, said
from pyetcd.storage.bolt import DatabaseError, NotADatabase
from pyetcd.storage.files import OsFiles
from pyetcd.storage.inspection import BadPage, Inspection
from pyetcd.storage.raw_pages import RawPages, Unreadable


def size_of_source(path: str) -> int:
    """In bytes. ArgumentError where there is no such file."""
    try:
        return OsFiles().file_size(path)
    except FileNotFoundError:
        raise ArgumentError(f"source database file {gotext.quote(path)} doesn't exist") from None
    except OSError as error:
        why = said("stat", path, error)
        raise ArgumentError(f"failed to open source database file {gotext.quote(path)}: {why}") from None


@contextmanager
def whole(call: Invocation) -> Iterator[Inspection]:
    """The file that is the first argument, locked against writers. ArgumentError where it cannot be read."""
    path, files = call.args[0], OsFiles()
    size_of_source(path)
    log_setup.to_nowhere()
    try:
        inspected = patiently(lambda: Inspection.open(files, path), call.number("timeout"))
    except NotADatabase:
        raise ArgumentError("invalid database") from None
    except (DatabaseError, OSError) as error:
        raise ArgumentError(reason(error)) from None
    try:
        if inspected.file_size < 2 * inspected.page_size:
            raise ArgumentError(f"file size too small {inspected.file_size}")
        yield inspected
    except BadPage as error:
        raise ArgumentError(str(error)) from None
    finally:
        inspected.close()


@contextmanager
def by_pages(path: str) -> Iterator[RawPages]:
    """A file page by page, whoever has it open."""
    size_of_source(path)
    try:
        pages = RawPages(OsFiles(), path)
    except OSError as error:
        raise ArgumentError(said("open", path, error)) from None
    try:
        yield pages
    except Unreadable as error:
        raise ArgumentError(str(error)) from None
    finally:
        pages.close()
