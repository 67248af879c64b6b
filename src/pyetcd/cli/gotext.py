"""Go's forms of values, for the client programs: what they must read and print exactly as etcdctl does.

`logs.gotext` does the same for the server, at a price only a server can pay: with what it imports it costs
30 ms, more than a whole run of etcdctl may take. So there is no `re` and no `typing` here. What is read may
hold any bytes (they come as surrogates, as Python has them), and so may what is printed.
"""

from __future__ import annotations

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1
UINT64_MAX = (1 << 64) - 1
UINT32_MAX = (1 << 32) - 1

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PREFIXES = {"0x": 16, "0b": 2, "0o": 8}
_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_ESCAPES = {
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
_UNESCAPES = {
    "\\": "\\",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_JSON_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class GoValueError(ValueError):
    """Text that Go's parser refuses; the message is Go's."""


def parse_int(text: str, base: int = 0) -> int:
    """`strconv.ParseInt(text, base, 64)`; base 0 takes the base from the text's prefix."""
    return _integer(text, base, "ParseInt", INT64_MIN, INT64_MAX)


def parse_uint(text: str, base: int = 0) -> int:
    """`strconv.ParseUint(text, base, 64)`."""
    return _integer(text, base, "ParseUint", 0, UINT64_MAX)


def parse_uint32(text: str) -> int:
    """`strconv.ParseUint(text, 0, 32)`."""
    return _integer(text, 0, "ParseUint", 0, UINT32_MAX)


def _integer(text: str, base: int, function: str, low: int, high: int) -> int:
    digits = text.lower()
    sign = 1
    if low < 0 and digits[:1] in ("+", "-"):
        sign = -1 if digits[0] == "-" else 1
        digits = digits[1:]
    if base == 0:
        base, digits = _base_of(digits)
    allowed = _DIGITS[:base]
    if not digits or any(digit not in allowed for digit in digits):
        raise GoValueError(f"strconv.{function}: parsing {quote(text)}: invalid syntax")
    value = sign * int(digits, base)
    if not low <= value <= high:
        raise GoValueError(f"strconv.{function}: parsing {quote(text)}: value out of range")
    return value


def _base_of(digits: str) -> tuple[int, str]:
    """The base a literal's prefix names, and the digits without it and without underscores in good places."""
    base = _PREFIXES.get(digits[:2], 10)
    if base != 10:
        digits = digits[2:].removeprefix("_")
    elif digits[:1] == "0" and len(digits) > 1:
        base, digits = 8, digits[1:].removeprefix("_")
    pieces = digits.split("_")
    return (base, "".join(pieces)) if all(pieces) else (base, "")


def parse_bool(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise GoValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def parse_duration_ns(text: str) -> int:
    """`time.ParseDuration`: a sequence of numbers with units, as `1m30s` or `1.5h`; in nanoseconds."""
    sign = -1 if text[:1] == "-" else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    bad = GoValueError(f"time: invalid duration {quote(text)}")
    if not rest:
        raise bad
    total = 0
    while rest:
        number, rest = _take(rest, "0123456789.")
        whole, _, fraction = number.partition(".")
        if "." in fraction or not whole + fraction:
            raise bad
        unit = rest[: next((i for i, c in enumerate(rest) if c in ".0123456789"), len(rest))]
        rest = rest[len(unit) :]
        if not unit:
            raise GoValueError(f"time: missing unit in duration {quote(text)}")
        if unit not in _UNITS_NS:
            raise GoValueError(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        size = _UNITS_NS[unit]
        total += int(whole or "0") * size + int(fraction or "0") * size // 10 ** len(fraction)
        if total > INT64_MAX:
            raise bad
    return sign * total


def _take(text: str, allowed: str) -> tuple[str, str]:
    end = next((i for i, c in enumerate(text) if c not in allowed), len(text))
    return text[:end], text[end:]


def duration(ns: int) -> str:
    """A time span as Go prints it: `1h0m0s`, `1.5s`, `250ms`, `10µs`, `0s`."""
    if ns < 0:
        return "-" + duration(-ns)
    if ns == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if ns < size * 1000:
            return _decimal(ns, size) + unit
    minutes, rest = divmod(ns, 60_000_000_000)
    text = _decimal(rest, 1_000_000_000) + "s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{minutes}m{text}"
        if hours:
            text = f"{hours}h{text}"
    return text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(unit)) - 1).rstrip('0')}"


def quote(text: str | bytes) -> str:
    """Go's `%q`. Bytes that are no UTF-8 appear as `\\xff`."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return '"' + "".join(map(_quoted, text)) + '"'


def quote_rune(rune: str) -> str:
    """Go's `%q` of a single rune."""
    if rune == '"':
        return "'\"'"
    return f"'{_quoted(rune)}'" if rune != "'" else "'\\''"


def _quoted(rune: str) -> str:
    escape = _ESCAPES.get(rune)
    if escape is not None:
        return escape
    if rune.isprintable():
        return rune
    code = ord(rune)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(text: str) -> tuple[str, str]:
    """Read a quoted Go string from the start of `text`; returns its value and what follows it."""
    if text[:1] != '"':
        raise GoValueError("expected quoted string")
    out: list[str] = []
    at = 1
    while True:
        if at >= len(text) or text[at] == "\n":
            raise GoValueError("unexpected EOF")
        if text[at] == '"':
            # Bytes written as escapes may form runes together with their neighbours.
            data = "".join(out).encode("utf-8", "surrogateescape")
            return data.decode("utf-8", "surrogateescape"), text[at + 1 :]
        if text[at] != "\\":
            out.append(text[at])
            at += 1
            continue
        rune, at = _unescaped(text, at + 1)
        out.append(rune)


def _unescaped(text: str, at: int) -> tuple[str, int]:
    """The rune or byte of the escape whose letter stands at `at`."""
    letter = text[at : at + 1]
    if letter in _UNESCAPES:
        return _UNESCAPES[letter], at + 1
    length, base = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}.get(letter, (3, 8))
    start = at if base == 8 else at + 1
    digits = text[start : start + length].lower()
    if not letter or len(digits) < length or any(digit not in _DIGITS[:base] for digit in digits):
        raise GoValueError("invalid syntax")
    code = int(digits, base)
    if letter in "uU":
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise GoValueError("invalid syntax")
        return chr(code), start + length
    if code > 0xFF:
        raise GoValueError("invalid syntax")
    return (chr(code) if code < 0x80 else chr(0xDC00 + code)), start + length


def json_string(text: str) -> str:
    """A string as encoding/json writes it, with HTML's characters escaped."""
    if text.isascii() and text.isidentifier():  # as names of fields are
        return f'"{text}"'
    return '"' + "".join(map(_json_rune, text)) + '"'


def zap_string(text: str) -> str:
    """A string as zap writes it: as encoding/json, but HTML's characters stay."""
    return '"' + "".join(rune if rune in "<>&" else _json_rune(rune) for rune in text) + '"'


def _json_rune(rune: str) -> str:
    escape = _JSON_ESCAPES.get(rune)
    if escape is not None:
        return escape
    if rune < " ":
        return f"\\u{ord(rune):04x}"
    return "\\ufffd" if "\ud800" <= rune <= "\udfff" else rune


def bytes_size(n: int) -> str:
    """A number of bytes as etcdctl's tables show it: `20 kB`, `2.1 GB`; decimal units."""
    if n < 10:
        return f"{n} B"
    exponent = (len(str(n)) - 1) // 3
    tenths = int(n / 1000**exponent * 10 + 0.5)
    shown = f"{tenths / 10:.1f}" if tenths < 100 else f"{tenths / 10:.0f}"
    return f"{shown} {_SIZES[exponent]}"
