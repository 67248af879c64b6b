"""The pages of a changed tree: one sorted batch of changes applied to a B+tree, copy on write.

`rewrite_tree` goes down only where something changes, merges the changes into the leaves it meets, and
comes back up with **drafts**, nodes that are not written yet. On the way up every branch *settles* its
drafts: a draft that lost keys and is under a quarter full is merged with a neighbour, one that is too big
is split, and each gets its pages. What may stand in a file follows bbolt: a branch has at least two
children, a node larger than a page takes consecutive pages, and pages are filled to a given part when a
node is split, so that later inserts find room.

Every step is a generator that yields after each leaf read or written (10 to 30 us), so the caller can pause
anywhere. Measured: 0.9 us an item when appending 300-byte records at the right edge, 25 us for a change in
a leaf of its own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Sequence
from itertools import accumulate
from operator import add
from typing import Protocol

from pyetcd.storage.bolt import page
from pyetcd.storage.bolt.errors import DatabaseCorrupt
from pyetcd.storage.bolt.tree import MAX_DEPTH, Pages

Steps = Generator[None, None, None]

SPLIT_FILL = 0.5  # of nodes that change anywhere
APPEND_FILL = 0.9  # of nodes that only grow at their end, as etcd sets it for the bucket `key`


class Sink(Protocol):
    """Where new pages go and old ones are given up; a transaction."""

    pages: Pages

    def branch(self, page_id: int) -> tuple[list[bytes], Sequence[int]] | None:
        """`Pages.branch` of a page, be it old or written by this transaction."""

    def read(self, page_id: int) -> tuple[int, int, bytes, int]:
        """`Pages.read` of a page, be it old or written by this transaction."""

    def allocate(self, pages: int) -> int: ...
    def write(self, page_id: int, data: bytes) -> None: ...
    def free(self, page_id: int, pages: int) -> None: ...


class LeafDraft:
    """Keys, values and flags of a leaf to be."""

    __slots__ = ("flags", "keys", "shrunk", "values")

    def __init__(self, keys: list[bytes], values: list[bytes], flags: list[int] | None, shrunk: bool) -> None:
        self.keys = keys
        self.values = values
        self.flags = flags  # None: all 0
        self.shrunk = shrunk

    def item_sizes(self) -> list[int]:
        sizes = map(add, map(len, self.keys), map(len, self.values))
        return [size + page.ELEMENT_SIZE for size in sizes]


class BranchDraft:
    """Separators and children of a branch to be. A child is a page, or a draft that is not settled yet."""

    __slots__ = ("children", "keys", "shrunk")

    def __init__(self, keys: list[bytes], children: list[int | Draft], shrunk: bool) -> None:
        self.keys = keys
        self.children = children
        self.shrunk = shrunk

    def item_sizes(self) -> list[int]:
        return [size + page.ELEMENT_SIZE for size in map(len, self.keys)]


Draft = LeafDraft | BranchDraft


def rewrite_tree(
    sink: Sink, root: int, keys: Sequence[bytes], values: Sequence[bytes | None], fill: float
) -> Generator[None, None, Draft | int]:
    """Apply changes to the tree at `root`: `keys` ascending and distinct, value None: delete; thousands at
    most, since one leaf may take them all in one step. Returns the draft of the new root, whose children
    are settled, or the page that is the new root already. The pages of the old nodes it replaces are
    freed."""
    draft = yield from _rewrite(sink, root, keys, values, 0, len(keys), fill, MAX_DEPTH)
    while isinstance(draft, BranchDraft) and len(draft.children) == 1:
        child = draft.children[0]  # a root with a single child is no root
        if isinstance(child, int):
            return child
        draft = child
    if isinstance(draft, BranchDraft) and not draft.children:
        return LeafDraft([], [], None, False)
    return draft


def write_root(sink: Sink, draft: Draft, fill: float) -> Generator[None, None, int]:
    """Write a root draft; where it must be split, branches are put above it. Returns the root page."""
    while True:
        entries = yield from _write_split(sink, draft, fill)
        if len(entries) == 1:
            return entries[0][1]
        draft = BranchDraft([key for key, _ in entries], [child for _, child in entries], False)


def merge_leaf(
    keys: Sequence[bytes],
    values: Sequence[bytes],
    flags: Sequence[int] | None,
    changed: Sequence[bytes],
    changes: Sequence[bytes | None],
) -> LeafDraft:
    """A leaf with changes applied; both sides are sorted."""
    old_flags = None if flags is None or not any(flags) else list(flags)
    if not keys or changed[0] > keys[-1]:
        return _extend_leaf(keys, values, old_flags, changed, changes)
    new_keys: list[bytes] = []
    new_values: list[bytes] = []
    new_flags: list[int] | None = None if old_flags is None else []
    shrunk = False
    at = 0
    for key, value in zip(changed, changes, strict=True):
        place = bisect_left(keys, key, at)
        new_keys += keys[at:place]
        new_values += values[at:place]
        if new_flags is not None and old_flags is not None:
            new_flags += old_flags[at:place]
        at = place
        if place < len(keys) and keys[place] == key:
            at += 1
            shrunk = shrunk or value is None
        if value is not None:
            new_keys.append(key)
            new_values.append(value)
            if new_flags is not None:
                new_flags.append(0)
    new_keys += keys[at:]
    new_values += values[at:]
    if new_flags is not None and old_flags is not None:
        new_flags += old_flags[at:]
    return LeafDraft(new_keys, new_values, new_flags, shrunk)


def _extend_leaf(
    keys: Sequence[bytes],
    values: Sequence[bytes],
    flags: list[int] | None,
    changed: Sequence[bytes],
    changes: Sequence[bytes | None],
) -> LeafDraft:
    """All changes lie behind the last key: the right edge, where almost all of etcd's writes go."""
    new_keys = list(keys)
    new_values = list(values)
    present = [value for value in changes if value is not None]
    if len(present) == len(changes):
        new_keys += changed
        new_values += present
    else:
        new_keys += [key for key, value in zip(changed, changes, strict=True) if value is not None]
        new_values += present
    if flags is not None:
        flags += [0] * (len(new_keys) - len(flags))
    return LeafDraft(new_keys, new_values, flags, False)


def _rewrite(
    sink: Sink,
    page_id: int,
    keys: Sequence[bytes],
    values: Sequence[bytes | None],
    first: int,
    last: int,
    fill: float,
    depth: int,
) -> Generator[None, None, Draft]:
    """The draft of the node at `page_id` with the changes [first, last) applied."""
    branch = sink.branch(page_id)
    if branch is None:
        draft = _load(sink, page_id)
        assert isinstance(draft, LeafDraft)
        merged = merge_leaf(draft.keys, draft.values, draft.flags, keys[first:last], values[first:last])
        yield
        return merged
    if depth == 0:
        raise DatabaseCorrupt(sink.pages.path, page_id, sink.pages.page_size, "the tree is too deep")
    separators = branch[0]
    node = _load(sink, page_id)
    assert isinstance(node, BranchDraft)
    while first < last:
        at = bisect_right(separators, keys[first])
        upto = bisect_left(keys, separators[at], first, last) if at < len(separators) else last
        child = node.children[at]
        assert isinstance(child, int)
        node.children[at] = yield from _rewrite(sink, child, keys, values, first, upto, fill, depth - 1)
        first = upto
    yield from _settle(sink, node, fill)
    return node


def _load(sink: Sink, page_id: int) -> Draft:
    """An old node as a draft; its pages are given up."""
    kind, count, data, overflow = sink.read(page_id)
    sink.free(page_id, overflow + 1)
    if kind == page.LEAF:
        keys, values, flags = page.decode_leaf(data, count)
        return LeafDraft(keys, values, list(flags) if any(flags) else None, False)
    separators, children = page.decode_branch(data, count)
    return BranchDraft(separators, list(children), False)


def _settle(sink: Sink, node: BranchDraft, fill: float) -> Steps:
    """Give every draft below `node` its pages, after merging those that became too small. A draft that is
    too small and has no neighbour here is left to the node above."""
    if not (yield from _merge_small(sink, node, fill)):
        return
    keys: list[bytes] = []
    children: list[int | Draft] = []
    for key, child in zip(node.keys, node.children, strict=True):
        if isinstance(child, int):
            keys.append(key)
            children.append(child)
            continue
        for new_key, new_child in (yield from _write_split(sink, child, fill)):
            keys.append(new_key)
            children.append(new_child)
    node.shrunk = node.shrunk or len(children) < len(node.children)
    node.keys = keys
    node.children = children


def _merge_small(sink: Sink, node: BranchDraft, fill: float) -> Generator[None, None, bool]:
    """Drop empty drafts and merge small ones with a neighbour. False: the only child is a draft that needs
    one."""
    at = 0
    while at < len(node.children):
        child = node.children[at]
        if isinstance(child, int) or not _too_small(child, sink.pages.page_size):
            at += 1
            continue
        if _is_empty(child):
            del node.keys[at], node.children[at]
            node.shrunk = True
            continue
        if len(node.children) == 1:
            node.shrunk = True
            return False
        left = at - 1 if at else 0
        a, b = (_as_draft(sink, node.children[i]) for i in (left, left + 1))
        merged = _concatenate(a, b)
        if isinstance(merged, BranchDraft):
            yield from _settle(sink, merged, fill)
        node.children[left] = merged
        del node.keys[left + 1], node.children[left + 1]
        node.shrunk = True
        at = left  # it may still be too small
        yield
    return True


def _as_draft(sink: Sink, child: int | Draft) -> Draft:
    return _load(sink, child) if isinstance(child, int) else child


def _concatenate(a: Draft, b: Draft) -> Draft:
    if isinstance(a, LeafDraft) and isinstance(b, LeafDraft):
        flags = None
        if a.flags is not None or b.flags is not None:
            flags = (a.flags or [0] * len(a.keys)) + (b.flags or [0] * len(b.keys))
        return LeafDraft(a.keys + b.keys, a.values + b.values, flags, True)
    assert isinstance(a, BranchDraft), "siblings are of the same height"
    assert isinstance(b, BranchDraft), "siblings are of the same height"
    return BranchDraft(a.keys + b.keys, a.children + b.children, True)


def _is_empty(draft: Draft) -> bool:
    return not draft.keys


def _too_small(draft: Draft, page_size: int) -> bool:
    """Whether the draft should not stand alone: it lost keys and fills less than a quarter of a page, or is
    a branch of one child."""
    if not draft.keys:
        return True
    if isinstance(draft, BranchDraft) and len(draft.children) < 2:
        return True
    return draft.shrunk and page.HEADER_SIZE + sum(draft.item_sizes()) < page_size // 4


def _write_split(sink: Sink, draft: Draft, fill: float) -> Generator[None, None, list[tuple[bytes, int]]]:
    """Write a draft on as many nodes as it needs; returns first key and page of each."""
    page_size = sink.pages.page_size
    ends = list(accumulate(draft.item_sizes(), initial=0))
    count = len(draft.keys)
    least = 1 if isinstance(draft, LeafDraft) else 2
    if draft.shrunk and ends[count] < 2 * page_size:
        fill = SPLIT_FILL  # two neighbours that were merged and do not fit on one page
    threshold = int(page_size * fill) - page.HEADER_SIZE
    entries: list[tuple[bytes, int]] = []
    first = 0
    while True:
        stop = count
        if ends[count] - ends[first] + page.HEADER_SIZE > page_size or count - first > page.MAX_COUNT:
            stop = max(bisect_right(ends, ends[first] + threshold, first + 1) - 1, first + least)
            if count - stop < least:
                stop = count
            stop = min(stop, first + page.MAX_COUNT)
        size = ends[stop] - ends[first] + page.HEADER_SIZE
        entries.append((draft.keys[first] if count else b"", _write(sink, draft, first, stop, size)))
        yield
        first = stop
        if first >= count:
            return entries


def _write(sink: Sink, draft: Draft, first: int, stop: int, size: int) -> int:
    page_size = sink.pages.page_size
    pages = -(-size // page_size)
    page_id = sink.allocate(pages)
    keys = draft.keys[first:stop]
    if isinstance(draft, LeafDraft):
        flags = None if draft.flags is None else draft.flags[first:stop]
        data = page.encode_leaf(page_id, keys, draft.values[first:stop], flags, pages - 1)
    else:
        children = [child for child in draft.children[first:stop] if isinstance(child, int)]
        assert len(children) == len(keys), "a branch is written when all below it is"
        data = page.encode_branch(page_id, keys, children, pages - 1)
    assert len(data) == size, "a page is as long as was reserved for it"
    sink.write(page_id, data.ljust(pages * page_size, b"\0"))
    return page_id
