"""`surgery`: a copy of a database file with pages changed by hand (`storage.surgery`). What is read is never
written to; the copy must be a new file, and stays where an operation on it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError, Invocation
from pyetcd.cli.etcdutl.bbolt.opened import by_pages, size_of_source
from pyetcd.cli.etcdutl.bbolt.texts import line
from pyetcd.cli.etcdutl.places import reason, said
from pyetcd.storage import surgery
from pyetcd.storage.bolt import DatabaseError
from pyetcd.storage.bolt.meta import NO_FREELIST
from pyetcd.storage.files import Files, OsFiles
from pyetcd.storage.inspection import BadPage
from pyetcd.storage.raw_pages import RawMeta, RawPages, Unreadable

COPY_BYTES: Final = 1 << 20
ABANDON: Final = "Please consider executing `./bbolt surgery freelist abandon ...`"
FIELDS: Final = {"pageSize": "page_size", "root": "root", "freelist": "freelist", "pgid": "high_water"}


def revert_meta_page(call: Invocation) -> None:
    _check_output(call)
    with _copied(call, "revert-meta-page", "revert-meta-page command failed: ") as pages:
        surgery.revert_meta(pages)
    line("The meta page is reverted.")


def copy_page(call: Invocation) -> None:
    _check_output(call)
    source, target = call.number("from-page"), call.number("to-page")
    if source == target:
        raise ArgumentError(f"'--from-page' and '--to-page' have the same value: {source}")
    with _copied(call, "copy-page", "copy-page command failed: ") as pages:
        surgery.copy_page(pages, source, target)
    if _has_freelist(call.args[0]):
        line(f"WARNING: the free list might have changed.\n{ABANDON}")
    line(f"The page {source} was successfully copied to page {target}")


def clear_page(call: Invocation) -> None:
    page_id = _page_to_clear(call)
    with _copied(call, "clear-page", "clear-page command failed: ") as pages:
        lost = surgery.clear_elements(pages, page_id, 0, surgery.TO_THE_END)
    _warn_of_lost_pages(lost)
    line(f"The page ({page_id}) was cleared")


def clear_page_elements(call: Invocation) -> None:
    page_id = _page_to_clear(call)
    start, end = call.number("from-index"), call.number("to-index")
    with _copied(call, "clear-page-element", "clear-page-element command failed: ") as pages:
        lost = surgery.clear_elements(pages, page_id, start, end)
    _warn_of_lost_pages(lost)
    line(f"All elements in [{start}, {end}) in page {page_id} were cleared")


def abandon_freelist(call: Invocation) -> None:
    _check_output(call)
    with _copied(call, "freelist abandon", "abandom-freelist command failed: ") as pages:
        surgery.abandon_freelist(pages)
    line("The freelist was abandoned in both meta pages.")
    line(
        "It may cause some delay on next startup because bbolt needs to scan the whole db "
        "to reconstruct the free list."
    )


def rebuild_freelist(call: Invocation) -> None:
    _check_output(call)
    if _has_freelist(call.args[0]):
        raise ArgumentError(
            "the file already has freelist, please consider to abandon the freelist to forcibly rebuild it"
        )
    with _copied(call, "freelist rebuild", ""):
        pass
    try:
        surgery.rebuild_freelist(OsFiles(), call.text("output"))
    except (DatabaseError, OSError) as error:
        raise ArgumentError(f"[freelist rebuild] open db file failed: {reason(error)}") from None
    except BadPage as error:
        raise ArgumentError(f"[freelist rebuild] open db file failed: {error}") from None
    line("The freelist was successfully rebuilt.")


def validate_meta(call: Invocation) -> None:
    with by_pages(call.args[0]) as pages:
        page_size = 0
        for number in (0, 1):
            data = _meta(pages, number, page_size)
            found = RawMeta.of(data)
            problem = found.problem(data)
            if problem:
                line(f"WARNING: The meta page {number} isn't valid: {problem}!")
            else:
                line(f"The meta page {number} is valid!")
            page_size = found.page_size


def update_meta(call: Invocation) -> None:
    _check_output(call)
    number = call.number("meta-page")
    if number > 1:
        raise ArgumentError(f"invalid meta page id: {number}")
    fields = _fields(call.items("fields"))
    with _copied(call, "meta update", "") as pages:
        changed = surgery.update_meta(pages, number, fields)
        first = RawMeta.of(pages.meta(0, 0)).page_size
        second = RawMeta.of(pages.meta(1, first)).page_size if number else first
    if first != second:
        line(
            f"WARNING: The page size ({first}) in the first meta page "
            f"doesn't match the second meta page ({second})"
        )
    line(f"The meta page {number} has been updated!" if changed else "Nothing changed!")


def _fields(given: Sequence[str]) -> dict[str, int]:
    """What `--fields` says, by our names."""
    fields: dict[str, int] = {}
    for pair in given:
        parts = pair.split(":")
        if len(parts) != 2:
            raise ArgumentError(f"invalid key-value pair: {pair}")
        name, value = parts
        if name not in FIELDS:
            raise ArgumentError(f"field {gotext.quote(name)} isn't allowed to be updated")
        try:
            number = gotext.parse_uint(value, 10)
        except gotext.GoValueError:
            quoted = gotext.quote(value)
            raise ArgumentError(f"invalid value {quoted} for field {gotext.quote(name)}") from None
        fields[FIELDS[name]] = number & 0xFFFF_FFFF if name == "pageSize" else number
    return fields


def _check_output(call: Invocation) -> None:
    if not call.text("output"):
        raise ArgumentError(
            "output database path wasn't given, specify output database file path with --output option"
        )


def _page_to_clear(call: Invocation) -> int:
    _check_output(call)
    page_id = call.number("pageId")
    if page_id < 2:
        raise ArgumentError(f"the pageId must be at least 2, but got {page_id}")
    return page_id


def _warn_of_lost_pages(lost: bool) -> None:
    if lost:
        line("WARNING: The clearing has abandoned some pages that are not yet referenced from free list.")
        line(ABANDON)


@contextmanager
def _copied(call: Invocation, name: str, failed: str) -> Iterator[RawPages]:
    """The copy, to be changed; durable at the end. ArgumentError, `failed` in front of why it cannot be."""
    source, target, files = call.args[0], call.text("output"), OsFiles()
    size_of_source(source)
    try:
        _copy_file(files, source, target)
    except _NotCopied as error:
        raise ArgumentError(f"[{name}] copy file failed: {error}") from None
    pages = RawPages(files, target, write=True)
    try:
        surgery.unseal_all(pages)
        yield pages
        pages.sync()
    except Unreadable as error:
        raise ArgumentError(f"{failed}{error}") from None
    finally:
        pages.close()


class _NotCopied(Exception):
    """The message says why."""


def _copy_file(files: Files, source: str, target: str) -> None:
    """To a file that is not there yet."""
    quoted = gotext.quote(target)
    with _told(f"failed to open source file {gotext.quote(source)}: {{}}", source):
        fd = files.open(source)
    try:
        if files.exists(target):
            raise _NotCopied(f"output file {quoted} already exists")
        with _told(f"failed to create output file {quoted}: {{}}", target):
            copy = files.open(target, create=True, exclusive=True)
        try:
            with _told(f"failed to copy database file from {gotext.quote(source)} to {quoted}: {{}}", target):
                offset = 0
                while data := files.pread(fd, COPY_BYTES, offset):
                    files.pwrite(copy, data, offset)
                    offset += len(data)
        finally:
            files.close(copy)
    finally:
        files.close(fd)


@contextmanager
def _told(text: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _NotCopied(text.format(said("open", path, error))) from None


def _has_freelist(path: str) -> bool:
    """Whether the newer meta page of the source says so."""
    with by_pages(path) as pages:
        try:
            page_size, _ = pages.sizes()
        except Unreadable as error:
            raise Unreadable(f"read Page size failed: {error}") from None
        first, second = (RawMeta.of(_meta(pages, number, page_size)) for number in (0, 1))
        newer = first if first.txid > second.txid else second
        return newer.freelist != NO_FREELIST


def _meta(pages: RawPages, number: int, page_size: int) -> bytearray:
    try:
        return pages.meta(number, page_size)
    except Unreadable as error:
        raise Unreadable(f"read meta page {number} failed: {error}") from None
