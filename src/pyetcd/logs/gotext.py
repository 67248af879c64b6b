"""How Go writes and reads durations, numbers, booleans and quoted text.

etcd's flags, log fields, configuration errors and metrics are Go's own forms of values. Clients' scripts
parse them, so they are matched here once, for every room: `1h0m0s`, `strconv.ParseUint: parsing "x": invalid
syntax`, `"a\\n"`.
"""

from __future__ import annotations

import re
from typing import Final

INT64_MAX: Final = 2**63 - 1

_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_UNIT_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_NUMBER: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?")
_UNIT: Final = re.compile(r"[^0-9.]*")
_INTEGER: Final = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<hex>(?:_?[0-9a-fA-F])+)|0[bB](?P<bin>(?:_?[01])+)|0[oO](?P<oct>(?:_?[0-7])+)"
    r"|0(?P<old>(?:_?[0-7])+)|(?P<dec>0|[1-9](?:_?[0-9])*))"
)
_SIZE_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BASES: Final = {"hex": 16, "bin": 2, "oct": 8, "old": 8, "dec": 10}
_ESCAPES: Final = {
    "\\": "\\\\",
    '"': '\\"',
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


class GoValueError(ValueError):
    """Text that Go's parser refuses; the message is Go's."""


class GoRangeError(GoValueError):
    """A well-formed number too large for its type."""


def duration(seconds: float) -> str:
    """A time span as Go prints it: `1h0m0s`, `1.5s`, `250ms`, `10µs`, `0s`. Rounded to a nanosecond."""
    return duration_ns(round(seconds * 1e9))


def duration_ns(ns: int) -> str:
    """`duration` for a whole number of nanoseconds, exact."""
    if ns < 0:
        return "-" + duration_ns(-ns)
    if ns == 0:
        return "0s"
    for limit_ns, unit in ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms")):
        if ns < limit_ns:
            return _decimal(ns, limit_ns // 1_000) + unit
    minutes, rest = divmod(ns, _UNIT_NS["m"])
    text = _decimal(rest, _UNIT_NS["s"]) + "s"
    if minutes == 0:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    if fraction == 0:
        return str(whole)
    return f"{whole}.{fraction:0{len(str(unit)) - 1}d}".rstrip("0")


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a Go duration, `1h15m30.918s`, `-1.5h`, `0`. GoValueError worded as
    time.ParseDuration's.
    """
    wrong = GoValueError(f"time: invalid duration {quote(text)}")
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    if rest == "":
        raise wrong
    total = 0
    while rest:
        number = _NUMBER.match(rest)
        assert number is not None, "the pattern matches the empty string"
        whole, fraction = number.group(1), number.group(2) or ""
        if not whole and not fraction:
            raise wrong
        rest = rest[number.end() :]
        unit = _UNIT.match(rest)
        assert unit is not None, "the pattern matches the empty string"
        if unit.end() == 0:
            raise GoValueError(f"time: missing unit in duration {quote(text)}")
        scale = _UNIT_NS.get(unit.group())
        if scale is None:
            raise GoValueError(f"time: unknown unit {quote(unit.group())} in duration {quote(text)}")
        rest = rest[unit.end() :]
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction[:18]) * scale // 10 ** len(fraction[:18])
        if total > INT64_MAX + (sign < 0):
            raise wrong
    return sign * total


def parse_bool(text: str) -> bool:
    """GoValueError worded as strconv.ParseBool's."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise GoValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def parse_int(text: str, bits: int = 64) -> int:
    """A signed integer with Go's base prefixes and underscores. GoValueError worded as strconv.ParseInt's."""
    value = _integer(text, "ParseInt", signed=True)
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise GoRangeError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


def parse_uint(text: str, bits: int = 64) -> int:
    """An unsigned integer, likewise. GoValueError worded as strconv.ParseUint's."""
    value = _integer(text, "ParseUint", signed=False)
    if value >= 1 << bits:
        raise GoRangeError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


def _integer(text: str, function: str, *, signed: bool) -> int:
    match = _INTEGER.fullmatch(text)
    if match is None or (match["sign"] and not signed) or len(text) > 100:
        raise GoValueError(f"strconv.{function}: parsing {quote(text)}: invalid syntax")
    kind = next(kind for kind in _BASES if match[kind] is not None)
    value = int(match[kind].replace("_", ""), _BASES[kind])
    return -value if match["sign"] == "-" else value


def quote(text: str) -> str:
    """Text in double quotes as Go's `%q` prints it."""
    if text.isprintable() and "\\" not in text and '"' not in text:
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(rune) or _rune(rune) for rune in text) + '"'


def _rune(rune: str) -> str:
    code = ord(rune)
    if rune == " " or (rune.isprintable() and not 0xD800 <= code < 0xE000):
        return rune
    if 0xDC80 <= code < 0xDD00:  # a byte that was no UTF-8, as the interpreter hands it to us
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def decimal_size(size: int) -> str:
    """Bytes as etcd logs them: 512 B, 16 kB, 2.1 MB."""
    if size < 10:
        return f"{size} B"
    scaled, unit = float(size), 0
    while scaled >= 1000 and unit < len(_SIZE_UNITS) - 1:
        scaled /= 1000
        unit += 1
    scaled = int(scaled * 10 + 0.5) / 10
    return f"{scaled:.1f} {_SIZE_UNITS[unit]}" if scaled < 10 else f"{scaled:.0f} {_SIZE_UNITS[unit]}"
