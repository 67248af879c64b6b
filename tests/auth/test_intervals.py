"""Sets of keys, compared with a plain list of permissions that is walked."""

from __future__ import annotations

import random

import pytest

from pyetcd.auth.intervals import OPEN_END, Intervals, is_range

ALPHABET = (b"", b"\0", b"a", b"a\0", b"ab", b"b", b"c", b"\xff")


def covered(permissions: list[tuple[bytes, bytes]], key: bytes) -> bool:
    for begin, end in permissions:
        if begin == key or (end and begin <= key and (end == OPEN_END or key < end)):
            return True
    return False


def points_of(key: bytes, end: bytes) -> list[bytes]:
    """Enough keys of the range to tell whether it is covered by ranges with bounds of the alphabet."""
    around = {each + tail for each in ALPHABET for tail in (b"", b"\0", b"\0\0", b"\x01", b"zz", b"\xff\xff")}
    return [
        each
        for each in sorted(around)
        if (each == key if not end else key <= each and (end == OPEN_END or each < end))
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_range_is_permitted_if_all_its_keys_are(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(150):
        permissions = []
        for _ in range(chance.randrange(5)):
            key, end = chance.choice(ALPHABET[1:]), chance.choice(ALPHABET)
            if is_range(key, end):
                permissions.append((key, end))
        intervals = Intervals(permissions)
        for key in ALPHABET[1:]:
            assert intervals.has_key(key) == covered(permissions, key)
            for end in (each for each in ALPHABET if is_range(key, each)):
                wanted = all(covered(permissions, each) for each in points_of(key, end))
                if end == OPEN_END:
                    wanted = wanted and any(e == OPEN_END for _, e in permissions)
                assert intervals.has_range(key, end) == wanted, (permissions, key, end)


def test_ranges_that_touch_are_one() -> None:
    intervals = Intervals([(b"b", b"c"), (b"a", b"b"), (b"c", OPEN_END)])
    assert intervals.has_range(b"a", b"d")
    assert intervals.has_range(b"a", OPEN_END)
    assert not Intervals([(b"a", b"b"), (b"b\0", b"c")]).has_range(b"a", b"c")


@pytest.mark.parametrize(
    ("key", "end", "may_be"),
    [
        (b"", b"", False),
        (b"", b"\0", False),
        (b"a", b"", True),
        (b"a", b"b", True),
        (b"a", b"\0", True),
        (b"b", b"a", False),
        (b"a", b"a", False),
    ],
)
def test_what_a_permission_may_be_for(key: bytes, end: bytes, may_be: bool) -> None:
    assert is_range(key, end) == may_be
