"""The gRPC services, the gateway's paths, the messages and the errors.

Made from the `.proto` files with their comments, and from the tables of the gateway's paths, of who may call
what, and of errors.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc

from pyetcd.api.gateway.paths import PATHS
from pyetcd.api.permissions import RPCS, Need
from pyetcd.proto import errors as etcd_errors
from reference.markdown import code, prose, table

SOURCE = Path(__file__).parents[2] / "src"
FILES = ("rpc", "lock", "election", "health", "kv", "auth")
SERVICE, METHOD, MESSAGE, ENUM, FIELD, VALUE = 6, 2, 4, 5, 2, 2  # as descriptor.proto numbers them

SERVICES_HEAD = """# API: services and paths

*Made from the `.proto` files in `src/pyetcd/proto`, and from the tables of the gateway and of permissions.*

gRPC and the JSON gateway share the client port. A path of the gateway takes a POST with the request as JSON
([Messages](messages.md)): bytes in base64, 64-bit numbers as text or as numbers, names in either spelling.
Streams are lines of JSON. [Errors](errors.md) come with gRPC's code; the gateway gives them with HTTP's.

*Who may* is what is asked of the caller while authentication is on: **nobody in particular**; **a user**,
any; **root**; **keys**: whoever may read or write the keys concerned.
"""
MESSAGES_HEAD = """# API: messages

*Made from the `.proto` files in `src/pyetcd/proto`.*

Field numbers and types are etcd's; in JSON the names stand as here or in camel case.
"""
ERRORS_HEAD = """# API: errors

*Made from the one table of errors (`src/pyetcd/proto/errors.py`).* Codes and texts are etcd's.

"""
WHO = {
    Need.NOBODY: "nobody in particular",
    Need.NAMED: "a user",
    Need.ROOT: "root",
    Need.KEYS: "keys",
    Need.LOG: "root; users may ask for themselves",
    Need.ALARM: "a user to list, root to change",
}
TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
Comments = dict[tuple[int, ...], str]


def _files() -> Iterator[tuple[FileDescriptorProto, Comments]]:
    names = [f"pyetcd/proto/{name}.proto" for name in FILES]
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.NamedTemporaryFile() as out:
        options = [f"-I{SOURCE}", f"-I{builtin}", "--include_source_info", f"--descriptor_set_out={out.name}"]
        if protoc.main(["protoc", *options, *names]):
            raise SystemExit("protoc failed")
        found = FileDescriptorSet.FromString(out.read())
    for file in found.file:
        comments = {
            tuple(place.path): " ".join((place.leading_comments or place.trailing_comments).split())
            for place in file.source_code_info.location
        }
        yield file, comments


def services() -> str:
    paths: dict[str, list[str]] = {}
    for path, name in PATHS.items():
        paths.setdefault(name, []).append(path)
    parts = [SERVICES_HEAD]
    for file, comments in _files():
        for at, service in enumerate(file.service):
            full = f"{file.package}.{service.name}"
            parts.append(f"## {full}\n")
            told = comments.get((SERVICE, at), "")
            if told:
                parts.append(f"{prose(told)}\n")
            rows = []
            for number, method in enumerate(service.method):
                name = f"/{full}/{method.name}"
                remark = prose(comments.get((SERVICE, at, METHOD, number), ""))
                where = "<br>".join(code(path) for path in paths.get(name, []))
                rows.append((f"**{method.name}**", *_ends(method), where, WHO[RPCS[name]], remark))
            columns = ("RPC", "request", "answer", "JSON path", "who may", "")
            parts.append(table(columns, rows))
    return "\n".join(parts)


def _ends(method: MethodDescriptorProto) -> tuple[str, str]:
    asks = ("stream of " if method.client_streaming else "") + _link(method.input_type)
    answers = ("stream of " if method.server_streaming else "") + _link(method.output_type)
    return asks, answers


def _link(full: str) -> str:
    name = full.lstrip(".")
    return f"[{name.rpartition('.')[2]}](messages.md#{_anchor(name)})"


def _anchor(name: str) -> str:
    return name.lower().replace(".", "-")


def messages() -> str:
    parts = [MESSAGES_HEAD]
    for file, comments in _files():
        if not file.message_type:
            continue
        parts.append(f"## Package {file.package}\n" if file.package not in "".join(parts) else "")
        for at, enum in enumerate(file.enum_type):
            parts += _enum(enum, f"{file.package}.{enum.name}", comments, (ENUM, at))
        for at, message in enumerate(file.message_type):
            parts += _message(message, f"{file.package}.{message.name}", comments, (MESSAGE, at))
    return "\n".join(parts)


def _message(message: DescriptorProto, full: str, comments: Comments, path: tuple[int, ...]) -> list[str]:
    if message.options.map_entry:
        return []
    parts = [f"### {full} {{ #{_anchor(full)} }}\n"]
    told = comments.get(path, "")
    if told:
        parts.append(f"{prose(told)}\n")
    maps = {f".{full}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    rows = [
        (str(field.number), code(field.name), _type(field, maps), prose(comments.get((*path, FIELD, at), "")))
        for at, field in enumerate(message.field)
    ]
    parts.append(table(("no.", "field", "type", ""), rows) if rows else "No fields.\n")
    for at, enum in enumerate(message.enum_type):
        parts += _enum(enum, f"{full}.{enum.name}", comments, (*path, 4, at))
    for at, nested in enumerate(message.nested_type):
        parts += _message(nested, f"{full}.{nested.name}", comments, (*path, 3, at))
    return parts


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    if field.type_name in maps:
        key, value = (_type(part, {}) for part in maps[field.type_name].field)
        return f"map of {key} to {value}"
    name = _link(field.type_name) if field.type_name else TYPES[field.type]
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    choice = " (one of several)" if field.HasField("oneof_index") and not field.proto3_optional else ""
    return f"{repeated}{name}{choice}"


def _enum(enum: EnumDescriptorProto, full: str, comments: Comments, path: tuple[int, ...]) -> list[str]:
    rows = [
        (str(value.number), code(value.name), prose(comments.get((*path, VALUE, at), "")))
        for at, value in enumerate(enum.value)
    ]
    told = comments.get(path, "")
    head = f"### {full} {{ #{_anchor(full)} }}\n"
    return [head, *([f"{prose(told)}\n"] if told else []), table(("no.", "value", ""), rows)]


def errors() -> str:
    rows = [
        (code(etcd_errors.CODE_NAMES[error.code]), str(error.code), code(error.message))
        for error in _errors(etcd_errors.EtcdError)
    ]
    ordered = sorted(set(rows), key=lambda row: (int(row[1]), row[2]))
    return ERRORS_HEAD + table(("gRPC code", "no.", "text"), ordered)


def _errors(base: type[etcd_errors.EtcdError]) -> Iterator[type[etcd_errors.EtcdError]]:
    for error in base.__subclasses__():
        if "message" in vars(error):
            yield error
        yield from _errors(error)
