"""A small protobuf codec for command-line programs, which start too often to load the big one.

protobuf with etcd's descriptors costs about 90 ms to import; this and its tables cost 1 ms, because a
message's table is read only when the message is first met. It is driven by the field tables of `lite_tables`,
which also give the printers the names, types and order of all fields.

Rules: proto3 only. A field that was never set reads as its type's zero; a message field as an empty message.
`encode` writes what Go writes: zero values left out, fields by number, those of a oneof last. Fields the
tables do not know are dropped.
"""

from __future__ import annotations

from pyetcd.proto.lite_tables import ENUMS, MESSAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    Scalar: TypeAlias = "int | bytes | str | Message"
    Items: TypeAlias = "list[int] | list[bytes] | list[str] | list[Message]"
    Value: TypeAlias = "Scalar | Items"

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

_U64 = 0xFFFFFFFFFFFFFFFF


class Malformed(ValueError):
    """The bytes are not a message."""


class Field:
    """One field of a message. `kind` is the type's name in a `.proto` file, or `message` or `enum`."""

    __slots__ = ("kind", "name", "number", "of_oneof", "repeated", "target")

    def __init__(self, text: str) -> None:
        number, name, kind = text.split(" ")
        self.number = int(number)
        self.repeated = name[0] == "*"
        self.of_oneof = name[0] == "?"
        self.name = name.lstrip("*?")
        self.target = ""
        self.kind = kind
        if "." in kind:
            self.target = kind.lstrip("#")
            self.kind = "enum" if kind[0] == "#" else "message"

    @property
    def is_number(self) -> bool:
        return self.kind not in ("bytes", "string", "message")


_fields: dict[str, tuple[Field, ...]] = {}
_by_number: dict[str, dict[int, Field]] = {}


def fields(message_type: str) -> tuple[Field, ...]:
    """The fields of a message, in the order of its declaration."""
    known = _fields.get(message_type)
    if known is None:
        line = MESSAGES[message_type]
        known = tuple(Field(text) for text in line.split("|")) if line else ()
        _fields[message_type] = known
        _by_number[message_type] = {field.number: field for field in known}
    return known


def enum_name(enum: str, number: int) -> str:
    """The name of an enum's value, or its number where it has none."""
    for text in ENUMS[enum].split(" "):
        value, _, name = text.partition("=")
        if int(value) == number:
            return name
    return str(number)


class Message:
    """A message of the named type, with the fields given. The accessors name the type a field must have."""

    __slots__ = ("type", "values")

    def __init__(self, message_type: str, **values: Value) -> None:
        self.type = message_type
        self.values: dict[str, Value] = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and (self.type, self.values) == (other.type, other.values)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        return f"{self.type}({inner})"

    def has(self, field: str) -> bool:
        return field in self.values

    def number(self, field: str) -> int:
        """An integer or enum field."""
        value = self.values.get(field, 0)
        assert isinstance(value, int), f"{field} is no number"
        return value

    def flag(self, field: str) -> bool:
        return bool(self.values.get(field, False))

    def data(self, field: str) -> bytes:
        value = self.values.get(field, b"")
        assert isinstance(value, bytes), f"{field} is no bytes"
        return value

    def text(self, field: str) -> str:
        value = self.values.get(field, "")
        assert isinstance(value, str), f"{field} is no text"
        return value

    def child(self, field: str) -> Message:
        """A message field; an empty one, not kept, where it is unset."""
        value = self.values.get(field)
        if value is None:
            value = Message(next(f.target for f in fields(self.type) if f.name == field))
        assert isinstance(value, Message), f"{field} is no message"
        return value

    def children(self, field: str) -> list[Message]:
        return [item for item in self._list(field) if isinstance(item, Message)]

    def datas(self, field: str) -> list[bytes]:
        return [item for item in self._list(field) if isinstance(item, bytes)]

    def texts(self, field: str) -> list[str]:
        return [item for item in self._list(field) if isinstance(item, str)]

    def _list(self, field: str) -> Items:
        value = self.values.get(field, [])
        assert isinstance(value, list), f"{field} is not repeated"
        return value

    def merge(self, other: Message) -> None:
        """As protobuf merges: lists are joined, messages merged, the rest replaced by what `other` has."""
        for name, value in other.values.items():
            mine = self.values.get(name)
            if isinstance(mine, list) and isinstance(value, list):
                mine.extend(value)  # type: ignore[arg-type]
            elif isinstance(mine, Message) and isinstance(value, Message):
                mine.merge(value)
            else:
                self.values[name] = value

    def encode(self) -> bytes:
        """UnicodeEncodeError where a text is none (an argument of the command line may be any bytes)."""
        out: list[bytes] = []
        for field in sorted(fields(self.type), key=lambda field: (field.of_oneof, field.number)):
            value = self.values.get(field.name)
            if isinstance(value, list):
                _encode_list(out, field, value)
            elif value is not None and (value or field.of_oneof or isinstance(value, Message)):
                _encode_one(out, field, value)
        return b"".join(out)


def _varint(n: int) -> bytes:
    n &= _U64
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _encode_one(out: list[bytes], field: Field, value: Scalar) -> None:
    if isinstance(value, int):
        out += (_varint(field.number << 3), _varint(value))
        return
    data = value if isinstance(value, bytes) else value.encode()
    out += (_varint(field.number << 3 | 2), _varint(len(data)), data)


def _encode_list(out: list[bytes], field: Field, values: Items) -> None:
    if field.is_number:
        packed = b"".join([_varint(value) for value in values if isinstance(value, int)])
        if packed:
            out += (_varint(field.number << 3 | 2), _varint(len(packed)), packed)
        return
    for value in values:
        _encode_one(out, field, value)


def decode(message_type: str, data: bytes) -> Message:
    """Read a message. Malformed if it is none."""
    fields(message_type)
    known = _by_number[message_type]
    message = Message(message_type)
    values = message.values
    for number, kind, start, end, n in scan(data):
        field = known.get(number)
        if field is None:
            continue
        if field.is_number:
            if field.repeated:
                numbers = [n] if kind == VARINT else _packed(data[start:end])
                _append(values, field.name, [_typed(field, n) for n in numbers])
            elif kind == VARINT:
                values[field.name] = _typed(field, n)
        elif kind != VARINT:
            _take(values, field, data[start:end])
    return message


def _take(values: dict[str, Value], field: Field, data: bytes) -> None:
    item: Scalar
    if field.kind == "message":
        item = decode(field.target, data)
    elif field.kind == "string":
        item = data.decode("utf-8", "replace")
    else:
        item = data
    if field.repeated:
        _append(values, field.name, [item])
        return
    old = values.get(field.name)
    if isinstance(old, Message) and isinstance(item, Message):
        old.merge(item)
    else:
        values[field.name] = item


def _append(values: dict[str, Value], name: str, items: Sequence[Scalar]) -> None:
    kept = values.setdefault(name, [])
    assert isinstance(kept, list), f"{name} is repeated"
    kept.extend(items)  # type: ignore[arg-type]  # a field's items are all of one type


def _typed(field: Field, n: int) -> int:
    if field.kind == "bool":
        return n != 0
    if field.kind in ("int64", "int32", "enum"):
        return signed(n)
    return n


def signed(n: int) -> int:
    """A varint as int64."""
    return n - (1 << 64) if n >> 63 else n


def _packed(data: bytes) -> list[int]:
    numbers = []
    at = 0
    while at < len(data):
        n, at = _read_varint(data, at)
        numbers.append(n)
    return numbers


def scan(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Every field: `(number, wire type, start, end, n)`. `n` is a varint's value, the others have a start and
    an end. Malformed."""
    at = 0
    stop = len(data)
    while at < stop:
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == VARINT:
            n, at = _read_varint(data, at)
            yield tag >> 3, kind, 0, 0, n
            continue
        if kind == BYTES:
            length, at = _read_varint(data, at)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise Malformed(f"wire type {kind}")
        if at + length > stop:
            raise Malformed("cut off inside a field")
        yield tag >> 3, kind, at, at + length, 0
        at += length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("cut off inside a varint" if at >= len(data) else "varint of more than ten bytes")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _U64, at
        shift += 7
