"""Lookups in pages: right where the pages are right, and harmless whatever they are."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from pyetcd._native import crc32c, find_many
from pyetcd.storage.bolt import page

PAGE = 128
KEYS = st.binary(min_size=1, max_size=12)
ITEMS = st.dictionaries(KEYS, st.binary(max_size=300), min_size=1, max_size=40)


class Tree:
    """A tree of pages of `PAGE` bytes with few children each, so that it is some levels deep."""

    def __init__(self, items: dict[bytes, bytes]) -> None:
        self.pages = bytearray(2 * PAGE)
        keys = sorted(items)
        level = []
        for at in range(0, len(keys), 3):
            some = keys[at : at + 3]
            level.append((some[0], self._add(page.encode_leaf, some, [items[key] for key in some])))
        while len(level) > 1:
            level = [
                (some[0][0], self._add(page.encode_branch, [key for key, _ in some], [id for _, id in some]))
                for some in (level[at : at + 3] for at in range(0, len(level), 3))
            ]
        self.root = level[0][1]
        self.sums = array("I", [crc32c(self.pages[at : at + PAGE]) for at in range(0, len(self.pages), PAGE)])

    def _add(self, encode, keys, second) -> int:
        page_id = len(self.pages) // PAGE
        leaf = (None,) if encode is page.encode_leaf else ()
        size = len(encode(page_id, keys, second, *leaf, 0))
        data = encode(page_id, keys, second, *leaf, (size - 1) // PAGE)
        self.pages += data + bytes(-size % PAGE)
        return page_id

    def find(self, keys: list[bytes], sums: bool = True, root: int = -1) -> list[bytes | None] | None:
        return find_many(self.pages, PAGE, self.root if root < 0 else root, keys, self.sums if sums else None)


@settings(max_examples=200, deadline=None)
@given(ITEMS, st.lists(KEYS, max_size=30), st.booleans())
def test_every_key_is_found_in_any_order_and_no_other(
    items: dict[bytes, bytes], others: list[bytes], sums: bool
) -> None:
    asked = [*items, *others, *reversed(list(items))]
    assert Tree(items).find(asked, sums) == [items.get(key) for key in asked]


@settings(max_examples=300, deadline=None)
@given(ITEMS, st.data())
def test_a_changed_byte_is_never_served(items: dict[bytes, bytes], data: st.DataObject) -> None:
    tree = Tree(items)
    at = data.draw(st.integers(2 * PAGE, len(tree.pages) - 1))
    tree.pages[at] ^= data.draw(st.integers(1, 255))
    found = tree.find(list(items))
    assert found is None or found == list(items.values())
    assert tree.find(list(items)[:1]) in (None, list(items.values())[:1])


@settings(max_examples=500, deadline=None)
@given(ITEMS, st.data())
def test_without_checksums_no_page_does_harm(items: dict[bytes, bytes], data: st.DataObject) -> None:
    tree = Tree(items)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(2 * PAGE, len(tree.pages) - 1))
        tree.pages[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    found = tree.find(list(items), sums=False)
    assert found is None or len(found) == len(items)


@given(ITEMS, st.integers(0, (1 << 64) - 1))
def test_a_root_that_is_none_is_no_answer(items: dict[bytes, bytes], root: int) -> None:
    tree = Tree(items)
    if not 2 <= root < len(tree.pages) // PAGE:
        assert tree.find(list(items), root=root) is None


def test_a_page_that_leads_back_to_itself_ends_the_search() -> None:
    tree = Tree({b"a": b"1"})
    loop = page.encode_branch(3, [b"a", b"b"], [3, 3], 0)
    tree.pages[3 * PAGE :] = loop + bytes(PAGE - len(loop))
    assert tree.find([b"a"], sums=False, root=3) is None


def test_an_empty_leaf_has_no_keys() -> None:
    tree = Tree({b"a": b"1"})
    tree.pages[2 * PAGE :] = page.encode_leaf(2, [], [], None, 0).ljust(PAGE, b"\0")
    assert tree.find([b"a"], sums=False) == [None]
