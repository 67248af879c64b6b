"""`page`, `page-item`, `dump`: pages by their numbers, as they lie in the file. `pages`: what each is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError, Invocation
from pyetcd.cli.etcdutl.bbolt.opened import by_pages, whole
from pyetcd.cli.etcdutl.bbolt.texts import formatted, is_printable, line, number, write
from pyetcd.storage.bolt import page as pages_of
from pyetcd.storage.inspection import BadPage, PageView, branch_of, freelist_of, leaf_of
from pyetcd.storage.raw_pages import RawMeta, RawPages, Unreadable

SEPARATOR: Final = "=" * 47
LINE_BYTES: Final = 16


def pages(call: Invocation) -> None:
    with whole(call) as inspected:

        def raised(problem: BadPage) -> None:
            raise problem

        walked = inspected.walk(raised, lambda visit: None)
        line("ID       TYPE       ITEMS  OVRFLW")
        line("======== ========== ====== ======")
        at = 0
        while at < len(walked.kinds):
            if walked.kinds[at]:
                view = inspected.page(at)
                overflow = str(view.overflow) if view.overflow else ""
                line(f"{at:<8} {view.kind_name:<10} {view.count:<6} {overflow:<6}")
                at += view.overflow
            else:
                line(f"{at:<8} {'free':<10} {'':<6} {'':<6}")
            at += 1


def page(call: Invocation) -> None:
    wanted = [number(word) for word in call.args[1:] if word]
    if call.on("all") and wanted:
        raise ArgumentError("invalid args: either use '--all' or 'pageid...'")
    if not call.on("all") and not wanted:
        raise ArgumentError("page id required")
    how = call.text("format-value")
    with by_pages(call.args[0]) as file:
        if call.on("all"):
            _print_all(file, how)
            return
        for at, page_id in enumerate(wanted):
            if at:
                line(SEPARATOR)
            _print_page(file, page_id, how)


def _print_all(file: RawPages, how: str) -> None:
    try:
        high_water = file.sizes()[1]
    except Unreadable as error:
        write(f"cannot read number of pages: {error}")
        return
    page_id = 0
    while page_id < high_water:
        if page_id:
            line(SEPARATOR)
        page_id += 1 + _print_page(file, page_id, how)


def _print_page(file: RawPages, page_id: int, how: str) -> int:
    """Returns how many pages it takes besides its first."""
    try:
        view = _view(file, page_id)
        write(page_text(view, how))
    except (BadPage, Unreadable, ArgumentError) as error:
        why = error.reason if isinstance(error, BadPage) else error
        line(f"Printing page {page_id} failed: {why}. Continuing...")
        return 0
    return view.overflow


def _view(file: RawPages, page_id: int) -> PageView:
    data = bytes(file.page(page_id))
    _, kind, count, overflow = pages_of.header.unpack_from(data)
    return PageView(page_id, kind, count, overflow, data)


def page_item(call: Invocation) -> None:
    page_id, item = number(call.args[1]), number(call.args[2]) & 0xFFFF
    if call.on("key-only") and call.on("value-only"):
        raise ArgumentError("the --key-only or --value-only flag may be set, but not both")
    with by_pages(call.args[0]) as file:
        view = _view(file, page_id)
        if item >= view.count:
            raise ArgumentError(
                f"leafPageElement: expected item index less than {view.count}, but got {item}"
            )
        if view.kind != pages_of.LEAF:
            raise ArgumentError(
                f"leafPageElement: expected page type of 'leaf', but got '{view.kind_name}'"
            )
        try:
            keys, values, _ = leaf_of(view)
        except BadPage as error:
            raise ArgumentError(str(error)) from None
        if not call.on("value-only"):
            line(formatted(keys[item], call.text("format")))
        if not call.on("key-only"):
            line(formatted(values[item], call.text("format")))


def dump(call: Invocation) -> None:
    wanted = [number(word) for word in call.args[1:] if word]
    with by_pages(call.args[0]) as file:
        page_size, _ = file.sizes()
        for at, page_id in enumerate(wanted):
            if at:
                line(SEPARATOR)
            write(dump_text(bytes(file.raw(page_id, page_size)), page_id * page_size))


def page_text(view: PageView, how: str) -> str:
    """One page for people; `how` values are printed. BadPage where its elements cannot be read."""
    lines = [
        f"Page ID:    {view.id}",
        f"Page Type:  {view.kind_name}",
        f"Total Size: {len(view.data)} bytes",
        f"Overflow pages: {view.overflow}",
    ]
    if view.kind == pages_of.META:
        lines += _meta_lines(RawMeta.of(view.data))
    elif view.kind == pages_of.LEAF:
        lines += [f"Item Count: {view.count}", ""]
        for key, value, flag in zip(*leaf_of(view), strict=True):
            lines.append(f"{_key(key)}: {_bucket(value) if flag else formatted(value, how)}")
        lines.append("")
    elif view.kind == pages_of.BRANCH:
        lines += [f"Item Count: {view.count}", ""]
        lines += [f"{_key(key)}: <pgid={child}>" for key, child in zip(*branch_of(view), strict=True)]
        lines.append("")
    elif view.kind == pages_of.FREELIST:
        numbers = freelist_of(view)
        lines += [f"Item Count: {len(numbers)}", f"Overflow: {view.overflow}", "", *map(str, numbers), ""]
    return "\n".join(lines) + "\n"


def _meta_lines(meta: RawMeta) -> Sequence[str]:
    return (
        f"Version:    {meta.version}",
        f"Page Size:  {meta.page_size} bytes",
        f"Flags:      {meta.flags:08x}",
        f"Root:       <pgid={meta.root}>",
        f"Freelist:   <pgid={meta.freelist}>",
        f"HWM:        <pgid={meta.high_water}>",
        f"Txn ID:     {meta.txid}",
        f"Checksum:   {meta.checksum:016x}",
        "",
    )


def _key(key: bytes) -> str:
    return gotext.quote(key) if is_printable(key) else key.hex()


def _bucket(value: bytes) -> str:
    try:
        root, sequence = pages_of.bucket_header.unpack_from(value)
    except struct.error:
        return "<cut short>"
    return f"<pgid={root},seq={sequence}>"


def dump_text(data: bytes, address: int) -> str:
    """Hexadecimal, 16 bytes a line; lines equal to the one before are a star, but for the last."""
    lines: list[str] = []
    before = b""
    is_skipping = False
    for at in range(0, len(data), LINE_BYTES):
        part = data[at : at + LINE_BYTES]
        if part == before and at != len(data) - LINE_BYTES:
            if not is_skipping:
                lines.append(f"{address + at:07x} *")
            is_skipping = True
        else:
            lines.append(f"{address + at:07x} {part.hex(' ', -2)}")
            is_skipping = False
        before = part
    return "\n".join(lines) + "\n\n"
