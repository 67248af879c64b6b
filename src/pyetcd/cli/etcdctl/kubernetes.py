"""Values that a Kubernetes API server has written, as the objects that `kubectl get -o json` would show.

An API server keeps most objects as `k8s\\0` and a protobuf message (runtime.Unknown: 1 typeMeta, 2 raw,
3 contentEncoding, 4 contentType), custom resources as JSON, and what it encrypts as `k8s:enc:` and the names
of provider, version and key. The names of fields come from `kubernetes_tables`, for the stable API groups; an
object of another kind has at least its metadata named, which is field 1 of every kind.

Nothing is lost: a field that is not known, or is not what it should be, is shown by its number, as
`protoc --decode_raw` does: bytes as text if they are printable, else as a message if they can be one, else as
`{"base64": …}`. Only zeros are left out where Kubernetes' own JSON leaves them out.

Values may be hostile: nesting is bounded, and a field is looked into only once all of its message is known to
be one.
"""

from __future__ import annotations

import json
import struct
import time

from pyetcd.cli.etcdctl.kubernetes_tables import KINDS, MESSAGES
from pyetcd.cli.etcdctl.output_json import Number
from pyetcd.proto.lite import BYTES, FIXED32, FIXED64, VARINT, Malformed, scan, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from pyetcd.cli.etcdctl.output_json import Json

    Object: TypeAlias = "dict[str, Json]"

ENVELOPE = b"k8s\0"
ENCRYPTED = b"k8s:enc:"
ENCRYPTED_PARTS = 4  # provider, version, key, data
DEPTH_MAX = 100
OTHERCONVERTED = "1 metadata meta.ObjectMeta"
TYPE_META = "1 apiVersion -string|2 kind -string"
SCHEMA = "apiextensions.JSONSchemaProps"
YEARS_1_TO_9999 = range(-62135596800, 253402300800)  # seconds since 1970
EXACT = 1 << 53  # integers up to here are exact in a double


class NoObject(ValueError):
    """The value is no object of Kubernetes. The message says why."""


class _Unfit(ValueError):
    """A field is not what it should be."""


class _Field:
    """A field of the tables."""

    __slots__ = ("drops_zero", "inline", "is_list", "is_map", "kind", "name")

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind.lstrip("-~*%")
        marks = kind[: -len(self.kind)]
        self.drops_zero = "-" in marks
        self.inline = "~" in marks
        self.is_list = "*" in marks
        self.is_map = "%" in marks


class _Item:
    """One occurrence of a field: wire type, and a varint's value or any other's bytes."""

    __slots__ = ("_data", "_n", "wire")

    def __init__(self, wire: int, n: int, data: bytes) -> None:
        self.wire = wire
        self._n = n
        self._data = data

    def n(self) -> int:
        if self.wire != VARINT:
            raise _Unfit
        return self._n

    def data(self, wire: int = BYTES) -> bytes:
        if self.wire != wire:
            raise _Unfit
        return self._data

    def text(self) -> str:
        try:
            return self.data().decode()
        except UnicodeDecodeError:
            raise _Unfit from None


def decode(value: bytes) -> Object:
    """The object in a value. NoObject."""
    if value.startswith(ENVELOPE):
        try:
            return _enveloped(value[len(ENVELOPE) :])
        except Malformed as error:
            raise NoObject(f"damaged: {error}") from None
    if value.startswith(ENCRYPTED):
        return _encrypted(value[len(ENCRYPTED) :])
    if value.startswith(b"{"):
        found = _json(value)
        if isinstance(found, dict) and isinstance(found.get("kind"), str) and "apiVersion" in found:
            return found
    raise NoObject("not an object of Kubernetes")


def _encrypted(rest: bytes) -> Object:
    parts = rest.split(b":", ENCRYPTED_PARTS - 1)
    if len(parts) < ENCRYPTED_PARTS:
        raise NoObject("encrypted, but not as Kubernetes does it")
    provider, version, key = (part.decode("utf-8", "replace") for part in parts[:-1])
    return {"encrypted": {"provider": provider, "version": version, "key": key, "data": parts[-1]}}


def _enveloped(data: bytes) -> Object:
    parts: dict[int, bytes] = {}
    others: Object = {}
    for number, item in _items(data, 0):
        if number <= 4 and item.wire == BYTES and number not in parts:
            parts[number] = item.data()
        else:
            _show_unknown(others, number, item, 1)
    shown = _message(TYPE_META, parts.get(1, b""), 1)
    if others:
        shown["envelope"] = others
    encoding, content = (parts.get(number, b"").decode("utf-8", "replace") for number in (3, 4))
    if encoding or content:
        return {**shown, "contentEncoding": encoding, "contentType": content, "raw": parts.get(2, b"")}
    kind = KINDS.get(f"{shown.get('apiVersion', '')} {shown.get('kind', '')}", "")
    table = MESSAGES.get(kind, OTHERCONVERTED)
    return {**shown, **_message(table, parts.get(2, b""), 1)}


_tables: dict[str, dict[int, _Field]] = {"": {}}


def _fields(table: str) -> dict[int, _Field]:
    known = _tables.get(table)
    if known is None:
        known = _tables[table] = {}
        for text in table.split("|"):
            number, name, kind = text.split(" ")
            known[int(number)] = _Field(name, kind)
    return known


def _items(data: bytes, depth: int) -> list[tuple[int, _Item]]:
    """The fields of a message as they come. Malformed."""
    if depth > DEPTH_MAX:
        raise Malformed("nested too deep")
    found = [(number, _Item(wire, n, data[start:end])) for number, wire, start, end, n in scan(data)]
    if any(number == 0 for number, _ in found):
        raise Malformed("field 0")
    return found


def _message(table: str, data: bytes, depth: int) -> Object:
    """A message with these fields. Malformed if it is none; what is wrong further inside is shown."""
    known = _fields(table)
    shown: Object = {}
    for number, item in _items(data, depth):
        field = known.get(number)
        try:
            if field is None:
                raise _Unfit
            _show(shown, field, item, depth + 1)
        except (_Unfit, Malformed):
            _show_unknown(shown, number, item, depth + 1)
    return shown


def _show(shown: Object, field: _Field, item: _Item, depth: int) -> None:
    """Put a known field among what is shown. _Unfit and Malformed, with nothing put, when it is not as it
    should be."""
    kept = shown.get(field.name)
    if field.is_list:
        one = _value(field.kind, item, depth)
        if isinstance(kept, list):
            kept.append(one)
        else:
            shown[field.name] = [one]
    elif field.is_map:
        key, one = _entry(field.kind, item, depth)
        if isinstance(kept, dict):
            kept[key] = one
        else:
            shown[field.name] = {key: one}
    elif field.inline:
        inner = _message(MESSAGES[field.kind], item.data(), depth)
        if not shown.keys().isdisjoint(inner):
            raise _Unfit
        shown.update(inner)
    elif field.name in shown:
        raise _Unfit  # no server writes it twice
    else:
        one = _value(field.kind, item, depth)
        if one or not field.drops_zero:
            shown[field.name] = one


def _show_unknown(shown: Object, number: int, item: _Item, depth: int) -> None:
    name = str(number)
    one = _guess(item, depth)
    kept = shown.get(name)
    if isinstance(kept, list):
        kept.append(one)
    else:
        shown[name] = [kept, one] if name in shown else one


def _guess(item: _Item, depth: int) -> Json:
    if item.wire == VARINT:
        return item.n()
    if item.wire == FIXED64:
        return {"fixed64": int.from_bytes(item.data(FIXED64), "little")}
    if item.wire == FIXED32:
        return {"fixed32": int.from_bytes(item.data(FIXED32), "little")}
    data = item.data()
    text = printable(data)
    if text is not None and text[:1] not in ("\t", "\n", "\r"):  # with which messages begin, too
        return text
    try:
        return _message("", data, depth)
    except Malformed:
        return {"base64": data} if text is None else text


def printable(data: bytes) -> str | None:
    """The bytes as text, if that is what they are."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    plain = text.replace("\n", "").replace("\t", "").replace("\r", "")
    return text if plain.isprintable() else None


def _entry(kind: str, item: _Item, depth: int) -> tuple[str, Json]:
    """An entry of a map: 1 key, 2 value."""
    parts = _parts(item, depth, 2)
    key = parts[1][0].text() if parts[1] else ""
    value = parts[2][0] if parts[2] else _Item(BYTES, 0, b"")
    if len(parts[1]) > 1 or len(parts[2]) > 1:
        raise _Unfit
    return key, _value(kind, value, depth + 1)


def _parts(item: _Item, depth: int, last: int) -> dict[int, list[_Item]]:
    """The fields 1 to `last` of a message that has no others."""
    parts: dict[int, list[_Item]] = {number: [] for number in range(1, last + 1)}
    for number, part in _items(item.data(), depth):
        if number not in parts:
            raise _Unfit
        parts[number].append(part)
    return parts


def _value(kind: str, item: _Item, depth: int) -> Json:
    """A value of a kind of the tables. _Unfit, Malformed."""
    table = MESSAGES.get(kind)
    if table is not None:
        return _message(table, item.data(), depth)
    return CONVERTED[kind](item, depth)


def _boolean(item: _Item, depth: int) -> Json:
    if item.n() > 1:
        raise _Unfit
    return item.n() == 1


def _double(item: _Item, depth: int) -> Json:
    (number,) = struct.unpack("<d", item.data(FIXED64))
    if number.is_integer() and abs(number) <= EXACT:
        return int(number)
    if number - number != 0:  # infinite, or none
        raise _Unfit
    return Number(repr(number))


def _single(item: _Item, depth: int) -> _Item | None:
    """The only field of a message that has 1 or nothing."""
    found = _parts(item, depth, 1)[1]
    if len(found) > 1:
        raise _Unfit
    return found[0] if found else None


def _quantity(item: _Item, depth: int) -> Json:
    only = _single(item, depth)
    return "" if only is None else only.text()


def _raw_json(item: _Item, depth: int) -> Json:
    """A message around JSON."""
    only = _single(item, depth)
    if only is None or not only.data():
        return None
    try:
        return _json(only.data())
    except NoObject:
        raise _Unfit from None


def _strings(item: _Item, depth: int) -> Json:
    return [each.text() for each in _parts(item, depth, 1)[1]]


def _moment(item: _Item, depth: int) -> tuple[int, int]:
    """Seconds since 1970 and nanoseconds."""
    parts = _parts(item, depth, 2)
    if len(parts[1]) > 1 or len(parts[2]) > 1:
        raise _Unfit
    seconds, nanos = (signed(found[0].n()) if found else 0 for found in parts.values())
    if seconds not in YEARS_1_TO_9999 or not 0 <= nanos < 1_000_000_000:
        raise _Unfit
    return seconds, nanos


def _shown_moment(seconds: int, nanos: int, digits: int) -> str:
    fraction = f"{nanos:09d}".rstrip("0").ljust(digits, "0")
    year, *rest = time.gmtime(seconds)[:6]
    date_time = "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}".format(year, *rest)
    return f"{date_time}.{fraction}Z" if fraction else f"{date_time}Z"


def _time(item: _Item, depth: int) -> Json:
    seconds, nanos = _moment(item, depth)
    return _shown_moment(seconds, nanos, 0) if seconds or nanos else None


def _micro_time(item: _Item, depth: int) -> Json:
    seconds, nanos = _moment(item, depth)
    return _shown_moment(seconds, nanos, 6) if seconds or nanos else None


def _int_or_string(item: _Item, depth: int) -> Json:
    """1 says which of 2, a number, and 3, a string, it is."""
    parts = _parts(item, depth, 3)
    if any(len(found) > 1 for found in parts.values()):
        raise _Unfit
    kind, number = (signed(parts[at][0].n()) if parts[at] else 0 for at in (1, 2))
    text = parts[3][0].text() if parts[3] else ""
    if kind == 0 and not text:
        return number
    if kind == 1 and not number:
        return text
    raise _Unfit


def _schema_or(other: Callable[[list[_Item], int], Json]) -> Callable[[_Item, int], Json]:
    """A message of 1 and 2, of which one is a schema and the other is what stands in its place without it."""

    def value(item: _Item, depth: int) -> Json:
        parts = _parts(item, depth, 2)
        schema, rest = (parts[2], parts[1]) if other is _allowed else (parts[1], parts[2])
        if len(schema) > 1 or (schema and rest and other is not _allowed):
            raise _Unfit
        return _value(SCHEMA, schema[0], depth + 1) if schema else other(rest, depth + 1)

    return value


def _allowed(items: list[_Item], depth: int) -> Json:
    if len(items) > 1:
        raise _Unfit
    return _boolean(items[0], depth) if items else False


CONVERTED: dict[str, Callable[[_Item, int], Json]] = {
    "string": lambda item, depth: item.text(),
    "bytes": lambda item, depth: item.data(),
    "int": lambda item, depth: signed(item.n()),
    "bool": _boolean,
    "double": _double,
    "quantity": _quantity,
    "json": _raw_json,
    "strings": _strings,
    "time": _time,
    "microtime": _micro_time,
    "int-or-string": _int_or_string,
    "schema-or-bool": _schema_or(_allowed),
    "schema-or-list": _schema_or(lambda items, depth: [_value(SCHEMA, each, depth) for each in items]),
    "schema-or-strings": _schema_or(lambda items, depth: [each.text() for each in items]),
}


def _json(data: bytes) -> Json:
    """What JSON says, numbers as they are written. NoObject."""
    try:
        found: Json = json.loads(data, parse_float=Number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NoObject("neither an object of Kubernetes nor JSON") from None
    level: list[Json] = [found]
    for _ in range(DEPTH_MAX):
        level = [part for each in level for part in _within(each)]
        if not level:
            return found
    raise NoObject("nested too deep")


def _within(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is no JSON")
