"""Operations on single pages of a database that is not what it should be, as bbolt's `surgery` does them.
Each changes the file it is given; `Unreadable` where it cannot.

The checksums of pages that a member of ours keeps beside its database belong to other bytes afterwards, so no
meta page is left that is tied to them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pyetcd import logs
from pyetcd.storage.bolt import meta as metas
from pyetcd.storage.bolt import page
from pyetcd.storage.files import Files
from pyetcd.storage.inspection import (
    COUNT_IN_FIRST,
    NUMBER_BYTES,
    BadPage,
    Inspection,
    PageView,
    branch_of,
    leaf_of,
)
from pyetcd.storage.raw_pages import RawMeta, RawPages, Unreadable, unseal

TO_THE_END: Final = -1


def unseal_all(pages: RawPages) -> None:
    """Let go of the checksums of a member of ours, where the meta pages can be found."""
    try:
        page_size, _ = pages.sizes()
        for number in (0, 1):
            data = pages.meta(number, page_size)
            before = bytes(data)
            unseal(data)
            if data != before:
                pages.write(data, number * page_size)
    except Unreadable:
        return


def active_meta(pages: RawPages) -> int:
    """The number of the meta page with the later transaction, valid or not."""
    first, second = (RawMeta.of(pages.page(number)) for number in (0, 1))
    return 1 if first.txid < second.txid else 0


def revert_meta(pages: RawPages) -> None:
    """Put the older meta page in the place of the newer: the last transaction has not been."""
    newer = active_meta(pages)
    copy_page(pages, 1 - newer, newer)


def copy_page(pages: RawPages, source: int, target: int) -> None:
    data = pages.page(source)
    data[:NUMBER_BYTES] = target.to_bytes(NUMBER_BYTES, "little")
    pages.put(data)


def clear_elements(pages: RawPages, page_id: int, start: int, end: int) -> bool:
    """Take the elements from `start` up to `end` (excluded, TO_THE_END: all that follow) off a page. Whether
    pages may have been left that nothing refers to."""
    try:
        data = pages.page(page_id)
    except Unreadable as error:
        raise Unreadable(f"ReadPage failed: {error}") from None
    _, kind, count, overflow = page.header.unpack_from(data)
    view = PageView(page_id, kind, count, overflow, bytes(data))
    if kind not in (page.LEAF, page.BRANCH):
        raise Unreadable(f"can't clear elements in {logs.quote(view.kind_name)} page")
    if not count:
        return False
    _check_range(start, end, count)
    if end == TO_THE_END:
        end = count
    try:
        kept = _without(view, start, end)
    except BadPage as error:
        raise Unreadable(str(error)) from None
    if end < count:
        data[: len(kept)] = kept
    page_size, _ = pages.sizes()
    now_overflow = -(-len(kept) // page_size) - 1
    page.header.pack_into(data, 0, page_id, kind, count - (end - start), now_overflow)
    pages.put(data[: page_size * (now_overflow + 1)])
    return view.kind == page.BRANCH or now_overflow != view.overflow


def _check_range(start: int, end: int, count: int) -> None:
    if not 0 <= start < count:
        raise Unreadable(f"the start index ({start}) is out of range [0, {count})")
    if end == TO_THE_END:
        return
    if not 0 <= end <= count:
        raise Unreadable(f"the end index ({end}) is out of range [0, {count}]")
    if start > end:
        raise Unreadable(f"the start index ({start}) is bigger than the end index ({end})")
    if start == end:
        raise Unreadable(f"invalid: the start index ({start}) is equal to the end index ({end})")


def _without(view: PageView, start: int, end: int) -> bytes:
    """The page with what is left of its elements, not padded."""
    if view.kind == page.LEAF:
        keys, values, flags = leaf_of(view)
        del keys[start:end], values[start:end]
        return page.encode_leaf(
            view.id, keys, values, [*flags[:start], *flags[end:]], view.overflow
        )
    keys, children = branch_of(view)
    del keys[start:end]
    return page.encode_branch(view.id, keys, [*children[:start], *children[end:]], view.overflow)


def abandon_freelist(pages: RawPages) -> None:
    """Neither meta page has a freelist any more: whoever opens the database finds the free pages again."""
    for number in (0, 1):
        failed = f"clearFreelist on meta page {number} failed: {{}} {number} failed: {{}}"
        try:
            data = pages.page(number)
        except Unreadable as error:
            raise Unreadable(failed.format("ReadPage", error)) from None
        found = RawMeta.of(data)
        found.freelist = metas.NO_FREELIST
        found.put(data)
        try:
            pages.put(data)
        except Unreadable as error:
            raise Unreadable(failed.format("WritePage", error)) from None


def rebuild_freelist(files: Files, path: str) -> None:
    """Store which pages are free, behind all others, in a transaction of its own. DatabaseError, BadPage."""
    inspected = Inspection.open(files, path)
    try:
        walked = inspected.walk(_raised, lambda visit: None)
    finally:
        inspected.close()
    free = [number for number, kind in enumerate(walked.kinds) if not kind]
    count = len(free)
    numbers = [count, *free] if count >= COUNT_IN_FIRST else free
    old = inspected.meta
    overflow = (page.HEADER_SIZE + NUMBER_BYTES * len(numbers) - 1) // old.page_size
    data = page.header.pack(old.high_water, page.FREELIST, min(count, COUNT_IN_FIRST), overflow)
    data += b"".join(number.to_bytes(NUMBER_BYTES, "little") for number in numbers)
    new = replace(
        old,
        freelist=old.high_water,
        high_water=old.high_water + overflow + 1,
        txid=old.txid + 1,
        seal=None,
    )
    pages = RawPages(files, path, write=True)
    try:
        pages.write(data.ljust((overflow + 1) * old.page_size, b"\0"), old.high_water * old.page_size)
        pages.sync()
        pages.write(metas.encode(new), new.txid % 2 * new.page_size)
        pages.sync()
    finally:
        pages.close()


def _raised(problem: BadPage) -> None:
    raise problem


def update_meta(pages: RawPages, number: int, fields: dict[str, int]) -> bool:
    """Set fields (`page_size`, `root`, `freelist`, `high_water`) of a meta page, and whatever else keeps it
    from being valid. Whether anything has changed."""
    page_size = 0
    if number == 1:
        try:
            page_size = RawMeta.of(pages.meta(0, 0)).page_size
        except Unreadable as error:
            raise Unreadable(f"read the first meta page failed: {error}") from None
    try:
        data = pages.meta(number, page_size)
    except Unreadable as error:
        raise Unreadable(f"read meta page {number} failed: {error}") from None
    found = RawMeta.of(data)
    fresh = replace(found, magic=metas.MAGIC, version=metas.VERSION, flags=page.META)
    for name, value in fields.items():
        setattr(fresh, name, value)
    if "root" in fields:
        fresh.sequence = 0
    is_sound = found.checksum == RawMeta.sum_of(data)
    if not fields and fresh == found and is_sound:
        return False
    fresh.put(data)
    pages.write(data, number * page_size)
    return True
