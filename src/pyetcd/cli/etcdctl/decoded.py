"""`get --decode`: answers whose values are shown as the objects that they hold.

In the simple format each key is a comment before a document of YAML, so that the whole is a stream of YAML.
In `-w json` and `-w yaml` an object stands where otherwise the value stands in base64; a value without one
stays so.
"""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl import kubernetes
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.output_json import JsonPrinter, as_object
from pyetcd.cli.etcdctl.output_simple import SimplePrinter, hex_bytes
from pyetcd.cli.exits import BAD_FEATURE, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyetcd.cli.etcdctl.output import Printer
    from pyetcd.cli.etcdctl.output_json import Json
    from pyetcd.proto.lite import Message

    Show = Callable[[Message], None]  # of a RangeResponse


def shows(decoding: str, printer: Printer) -> Show:
    """How the answer to a `get` is shown. Exit when there is no such decoding, or not in this format."""
    if decoding != "k8s":
        raise Exit(BAD_FEATURE, f"unknown decoding {gotext.quote(decoding)}, there is k8s")
    if isinstance(printer, SimplePrinter):
        return lambda answer: _documents(answer, printer)
    if isinstance(printer, JsonPrinter):
        return lambda answer: printer.show(_objects(answer))
    raise Exit(BAD_FEATURE, "--decode is only for `--write-out=simple`, json and yaml")


def _objects(answer: Message) -> dict[str, Json]:
    shown = as_object(answer)
    if "kvs" in shown:
        shown["kvs"] = [key_value(kv) for kv in answer.children("kvs")]
    return shown


def key_value(kv: Message) -> dict[str, Json]:
    """A KeyValue with the object in place of its value, if it is one."""
    shown = as_object(kv)
    try:
        shown["value"] = kubernetes.decode(kv.data("value"))
    except kubernetes.NoObject:
        pass
    return shown


def _documents(answer: Message, printer: SimplePrinter) -> None:
    for at, kv in enumerate(answer.children("kvs")):
        emit("---\n" if at else "")
        if not printer.values_only:
            emit(f"# {_comment(kv.data('key'), printer.hex)}\n")
        emit(_document(kv.data("value")))


def _comment(key: bytes, hexadecimal: bool) -> str:
    if hexadecimal:
        return hex_bytes(key).decode()
    text = key.decode("utf-8", "surrogateescape")
    return text if text.isprintable() else gotext.quote(text)


def _document(value: bytes) -> str:
    """The value's object in YAML; without one, its text or its bytes in base64, and in a comment why."""
    from pyetcd.cli.etcdctl import output_yaml

    try:
        return output_yaml.document(kubernetes.decode(value))
    except kubernetes.NoObject as reason:
        shown: Json = kubernetes.printable(value)
        return f"# {reason}\n{output_yaml.document({'base64': value} if shown is None else shown)}"
