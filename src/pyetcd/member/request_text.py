"""Requests as text for log lines: Go's compact text form, without what does not belong into a log.

Values become their sizes, passwords are left out (etcd's InternalRaftStringer and its like). Text is made
when a line is written, so `Shown` is handed to the log in its place: a line that sampling drops costs
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pyetcd.proto.plain_put import PlainPut, Request
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import Compare, PutRequest, RequestOp, TxnRequest

_NAMES: Final = {field.number: field.name for field in InternalRaftRequest.DESCRIPTOR.fields}
_ESCAPES: Final = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x22: '\\"', 0x5C: "\\\\"}


class Shown:
    """A text that is made when somebody asks for it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    def __str__(self) -> str:
        return self._make()


def field_name(kind: int) -> str:
    """The name of a kind of request, by its field in InternalRaftRequest."""
    return _NAMES.get(kind, "unknown")


def operation_name(kind: int) -> str:
    """The name metrics have for a kind of request: `Put`, `LeaseGrant`. `kind`: its field in
    InternalRaftRequest.
    """
    return "".join(word.capitalize() for word in field_name(kind).split("_"))


def proposal_text(kind: int, request: Request, request_id: int) -> str:
    """A request of the raft log."""
    if isinstance(request, PlainPut):
        request = request.message()
    name = field_name(kind)
    if isinstance(request, PutRequest | TxnRequest):
        return f"header:<ID:{request_id} > {name}:<{request_text(request)}>"
    shown = _SHOWN_FIELDS.get(name)
    if shown is not None:
        texts = [text for text in (_field_text(request, field) for field in shown) if text]
        return f"header:<ID:{request_id} > {name}:<{' '.join(texts)}>"
    return f"header:{{ID:{request_id}}} {name}:{{{message_text(request)}}}"


# Requests that carry secrets, and the fields of them that may be seen.
_SHOWN_FIELDS: Final[dict[str, Sequence[str]]] = {
    "authenticate": ("name",),
    "auth_user_add": ("name",),
    "auth_user_change_password": ("name",),
}


def request_text(request: Message) -> str:
    """A request of a client."""
    if isinstance(request, PutRequest):
        return _put_text(request)
    if isinstance(request, TxnRequest):
        return _txn_text(request)
    return message_text(request)


def _put_text(put: PutRequest) -> str:
    without = PutRequest()
    without.CopyFrom(put)
    without.ClearField("value")
    texts = [_text_of(field, value) for field, value in without.ListFields()]
    if put.value:
        texts.insert(1 if put.key else 0, f"value_size:{len(put.value)}")
    return " ".join(texts)


def _txn_text(txn: TxnRequest) -> str:
    compares = " ".join(map(_compare_text, txn.compare))
    success = " ".join(map(_operation_text, txn.success))
    failure = " ".join(map(_operation_text, txn.failure))
    return f"compare:<{compares}> success:<{success}> failure:<{failure}>"


def _compare_text(compare: Compare) -> str:
    if compare.WhichOneof("target_union") != "value":
        return message_text(compare)
    texts = [_field_text(compare, name) for name in ("result", "target", "key")]
    texts += [f"value_size:{len(compare.value)}", _field_text(compare, "range_end")]
    return " ".join(text for text in texts if text)


def _operation_text(operation: RequestOp) -> str:
    kind = operation.WhichOneof("request")
    if kind == "request_put":
        return f"request_put:<{_put_text(operation.request_put)}>"
    if kind == "request_txn":
        return f"request_txn:<{_txn_text(operation.request_txn)}>"
    return message_text(operation)


def message_text(message: Message) -> str:
    """All fields that are set: `key:"a" limit:3 sort_order:DESCEND`."""
    return " ".join(_text_of(field, value) for field, value in message.ListFields())


def _field_text(message: Message, name: str) -> str:
    """One field, empty if it is not set."""
    return " ".join(_text_of(field, value) for field, value in message.ListFields() if field.name == name)


def _text_of(field: FieldDescriptor, value: object) -> str:
    if field.is_repeated and isinstance(value, Iterable):
        return " ".join(f"{field.name}:{_value_text(field, item)}" for item in value)
    return f"{field.name}:{_value_text(field, value)}"


def _value_text(field: FieldDescriptor, value: object) -> str:
    if isinstance(value, Message):
        return f"{{{message_text(value)}}}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.enum_type is not None and isinstance(value, int):
        known = field.enum_type.values_by_number.get(value)
        return str(value) if known is None else known.name
    if isinstance(value, bytes | str):
        return _quoted(value)
    return str(value)


def _quoted(value: bytes | str) -> str:
    """Text stays, whatever is no text or cannot be printed becomes `\\x00`."""
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return '"' + "".join(map(_rune, text)) + '"'


def _rune(rune: str) -> str:
    code = ord(rune)
    if code in _ESCAPES:
        return _ESCAPES[code]
    if 0xDC80 <= code < 0xDD00:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return rune
