"""Messages as tables: what the codec must know of each field, read from the descriptors once.

etcd's API uses few of protobuf's types: integers, bool, enums, strings, bytes and messages. Another type
fails here, at the start, not at a request.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pyetcd.proto.splice import BYTES, VARINT, varint

_Type = FieldDescriptor

INT: Final = 0  # signed, 32 or 64 bits
UINT: Final = 1
BOOL: Final = 2
ENUM: Final = 3
STRING: Final = 4
RAW: Final = 5  # bytes
MESSAGE: Final = 6

_KINDS: Final = {
    _Type.TYPE_INT32: (INT, 32, "int32"),
    _Type.TYPE_INT64: (INT, 64, "int64"),
    _Type.TYPE_UINT32: (UINT, 32, "uint32"),
    _Type.TYPE_UINT64: (UINT, 64, "uint64"),
    _Type.TYPE_BOOL: (BOOL, 1, "bool"),
    _Type.TYPE_ENUM: (ENUM, 32, "enum"),
    _Type.TYPE_STRING: (STRING, 0, "string"),
    _Type.TYPE_BYTES: (RAW, 0, "bytes"),
    _Type.TYPE_MESSAGE: (MESSAGE, 0, "message"),
}


class Field:
    """One field. `index`: its place in the declaration, which is its place in JSON."""

    __slots__ = (
        "bits",
        "has_presence",
        "head",
        "index",
        "is_packed",
        "is_repeated",
        "json_name",
        "kind",
        "message",
        "names",
        "number",
        "numbers",
        "oneof",
        "tag",
        "type_name",
    )

    def __init__(self, descriptor: FieldDescriptor, known: dict[str, Table]) -> None:
        self.kind, self.bits, self.type_name = _KINDS[descriptor.type]
        self.index = descriptor.index
        self.number = descriptor.number
        self.json_name = descriptor.json_name
        self.head = b'"' + descriptor.name.encode() + b'":'  # how it begins in JSON
        self.is_repeated = descriptor.is_repeated
        self.is_packed = descriptor.is_packed
        self.has_presence = descriptor.has_presence
        in_bytes = self.kind >= STRING or self.is_packed
        self.tag = varint(self.number << 3 | (BYTES if in_bytes else VARINT))
        oneof = descriptor.containing_oneof
        self.oneof = "" if oneof is None else oneof.full_name
        self.names: dict[int, bytes] = {}  # of an enum's numbers, in quotes
        self.numbers: dict[str, int] = {}
        if descriptor.enum_type is not None:
            self.numbers = {value.name: value.number for value in descriptor.enum_type.values}
            self.names = {
                value.number: b'"' + value.name.encode() + b'"' for value in descriptor.enum_type.values
            }
        self.message: Table | None = None
        if descriptor.message_type is not None:
            self.message = table_of(descriptor.message_type, known)


class Table:
    """One message: its fields by JSON name or name as declared, by number, and as declared."""

    __slots__ = ("by_index", "by_name", "by_number")

    def __init__(self) -> None:
        self.by_index: list[Field] = []
        self.by_name: dict[str, Field] = {}
        self.by_number: dict[int, Field] = {}


def table_of(descriptor: Descriptor, known: dict[str, Table]) -> Table:
    """The table of a message and of all it contains; `known` has those made before."""
    table = known.get(descriptor.full_name)
    if table is not None:
        return table
    table = known[descriptor.full_name] = Table()
    fields = table.by_index
    fields += [Field(each, known) for each in descriptor.fields]
    for each, field in zip(descriptor.fields, fields, strict=True):
        table.by_name[each.name] = field
        table.by_number[field.number] = field
    for field in fields:
        table.by_name[field.json_name] = field
    return table
