"""Changes at random to bytes that were good: what fuzzing feeds to parsers."""

from __future__ import annotations

import random

BOUNDS = (0, 1, 0x7F, 0x80, 0xFF)


def changed(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """`data` with a few changes; `others` lend pieces of theirs."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        _change(made, chance, others)
    return bytes(made)


def _change(made: bytearray, chance: random.Random, others: list[bytes]) -> None:
    at = chance.randrange(len(made) + 1)
    end = min(len(made), at + chance.choice((1, 1, 2, 4, 8, 64, 1024)))
    kind = chance.randrange(7)
    if kind == 0:
        del made[at:end]
    elif kind == 1:
        made[at:at] = chance.randbytes(end - at + 1)
    elif kind == 2 and at < len(made):
        made[at] ^= 1 << chance.randrange(8)
    elif kind == 3 and at < len(made):
        made[at] = chance.choice(BOUNDS)
    elif kind == 4:
        made[at:at] = made[at:end] * chance.choice((1, 2, 50))
    elif kind == 5:
        other = chance.choice(others)
        start = chance.randrange(len(other) + 1)
        made[at:end] = other[start : start + chance.choice((4, 16, 256))]
    else:
        made[at:] = b""
