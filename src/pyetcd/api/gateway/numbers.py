"""Integers in JSON as Go's protojson takes them: `1`, `1.0`, `10e-1`, and any of these in a string."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile(r"(-?)(0|[1-9][0-9]*+)(?:\.([0-9]++))?(?:[eE]([-+]?[0-9]++))?")
_FIRST: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?(?![-+._a-zA-Z0-9])")
_DIGITS_MAX: Final = 20  # of the largest 64-bit integer
_INT32_MAX: Final = (1 << 31) - 1
_SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def integer_in(text: str, bits: int, *, signed: bool) -> int | None:
    """The integer a string stands for; None for none. Space around it is not allowed; what follows it,
    behind something that ends a number, is not looked at."""
    if text.strip(_SPACES) != text:
        return None
    match = _FIRST.match(text)
    return None if match is None else integer(match[0], bits, signed=signed)


def integer(text: str, bits: int, *, signed: bool) -> int | None:
    """The value of a JSON number; None when it is no integer of so many bits."""
    match = _NUMBER.fullmatch(text)
    assert match is not None, "a number that has been looked at"
    digits = _digits(match[2].lstrip("0"), (match[3] or "").rstrip("0"), match[4] or "0")
    if digits is None:
        return None
    value = -int(digits) if match[1] else int(digits)
    if signed:
        return value if -(1 << bits - 1) <= value < 1 << bits - 1 else None
    return value if 0 <= value < 1 << bits and not (match[1] and digits != "0") else None


def _digits(whole: str, fraction: str, exponent: str) -> str | None:
    """The digits of an integer written without exponent."""
    if not whole and not fraction:
        return "0"
    if len(exponent) > _DIGITS_MAX and len(exponent.lstrip("+-0")) > _DIGITS_MAX:
        return None
    shift = int(exponent)
    if not -_INT32_MAX - 1 <= shift <= _INT32_MAX:
        return None
    if shift >= 0:
        if len(fraction) > shift or len(whole) + shift > _DIGITS_MAX:
            return None
        return whole + fraction + "0" * (shift - len(fraction))
    if fraction or len(whole) + shift < 0:
        return None
    kept, dropped = whole[:shift], whole[shift:]
    return None if dropped.strip("0") else kept or None
