"""The sorted key list against a sorted Python list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyetcd.mvcc import key_list
from pyetcd.mvcc.key_list import Block, KeyList

KEYS = st.binary(max_size=3)


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> object:
    patch = pytest.MonkeyPatch()
    patch.setattr(key_list, "CHUNK_MAX", 8)
    patch.setattr(key_list, "CHUNK_FILL", 6)
    patch.setattr(key_list, "CHUNK_MIN", 2)
    yield
    patch.undo()


def inside(keys: list[bytes], start: bytes, end: bytes | None) -> list[bytes]:
    return [key for key in keys if key >= start and (end is None or key < end)]


STEPS = st.one_of(
    st.tuples(st.just("add"), KEYS),
    st.tuples(st.just("remove"), st.integers(0, 1000)),
    st.tuples(st.just("merge"), st.frozensets(KEYS, max_size=30)),
    st.tuples(st.just("discard"), st.frozensets(KEYS, max_size=60)),
    st.tuples(st.just("cut"), st.tuples(KEYS, st.none() | KEYS)),
    st.tuples(st.just("look"), st.tuples(KEYS, st.none() | KEYS, st.integers(0, 40))),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.frozensets(KEYS, max_size=80), st.lists(STEPS, max_size=30))
def test_a_key_list_does_what_a_sorted_list_does(
    first: frozenset[bytes], steps: list[tuple[str, object]]
) -> None:
    model = sorted(first)
    keys = KeyList(model)
    for name, value in steps:
        if name == "add" and value not in model:
            model = sorted([*model, value])  # type: ignore[list-item]
            keys.add(value)  # type: ignore[arg-type]
        elif name == "remove" and model:
            keys.remove(model.pop(value % len(model)))  # type: ignore[operator]
        elif name == "merge":
            fresh = sorted(value - set(model))  # type: ignore[operator]
            keys.merge(fresh)
            model = sorted(model + fresh)
        elif name == "discard":
            gone = sorted(value & set(model))  # type: ignore[operator]
            keys.discard_many(gone)
            model = [key for key in model if key not in gone]
        elif name == "cut":
            start, end = value  # type: ignore[misc]
            expected = inside(model, start, end)
            block = keys.cut(start, end)
            assert [key for chunk in block.chunks for key in chunk] == expected
            check_block(block, expected)
            model = [key for key in model if key not in expected]
        elif name == "look":
            start, end, limit = value  # type: ignore[misc]
            found = inside(model, start, end)
            assert keys.count(start, end) == len(found)
            assert keys.slice(start, end, limit) == found[:limit]
            assert keys.slice_last(start, end, limit) == (found[-limit:] if limit else [])
            assert (start in keys) == (start in model)
        assert list(keys) == model
        assert len(keys) == len(model)


def check_block(block: Block, keys: list[bytes]) -> None:
    assert len(block) == len(keys)
    for place, key in enumerate(keys):
        assert block.find(key) == place
        assert block.find(key + b"\xff\xff\xff\xff") == -1
    for start in (b"", *keys[:3]):
        for end in (None, b"\x80", *keys[-3:]):
            assert block.count(start, end) == len(inside(keys, start, end))


def test_keys_in_ascending_order_leave_full_chunks() -> None:
    keys = KeyList()
    for number in range(600):
        keys.add(b"%04d" % number)
    assert len(keys._chunks) <= 600 / key_list.CHUNK_FILL + 1
