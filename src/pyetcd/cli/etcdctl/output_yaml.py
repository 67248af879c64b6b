"""`-w yaml`: what `-w json` says, in its names and its order, as YAML.

The same answer is the same text, always: PyYAML's own emitter writes it (libyaml's would write some
characters otherwise), no line is folded, nothing is sorted. Text that some version of YAML takes for a number
or a truth value is quoted. Commands with several answers put `---` between them.
"""

from __future__ import annotations

from binascii import b2a_base64

import yaml

from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.output_json import JsonPrinter, Number, as_object
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.etcdctl.output_json import Json

NUMBER_BEGINS = tuple("0123456789+-.")
TRUTHS = ("y", "Y", "n", "N")  # in YAML 1.1; PyYAML knows the longer ones
BREAKS = frozenset("\x85\u2028\u2029")  # likewise
ENDLESS = 1 << 30  # columns
_NO_TEXT = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # surrogates: bytes that are no UTF-8


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None
    if not BREAKS.isdisjoint(text):
        style = '"'
    elif "\n" in text:
        style = "|"
    elif text.startswith(NUMBER_BEGINS) or text in TRUTHS:
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _number(dumper: _Dumper, number: Number) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", number)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Number, _number)


def document(value: Json) -> str:
    """One value as a document, a newline at its end."""
    text: str = yaml.dump(
        _plain(value),
        Dumper=_Dumper,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        width=ENDLESS,
    )
    return text.removesuffix("...\n")  # which ends a document that is one bare word


def _plain(value: Json) -> object:
    """In Python's own types: messages as mappings, bytes in base64."""
    if isinstance(value, bytes):
        return b2a_base64(value, newline=False).decode()
    if isinstance(value, Number):
        return value
    if isinstance(value, str):
        return value if value.isascii() else value.translate(_NO_TEXT)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Message):
        value = as_object(value)
    if hasattr(value, "items"):
        return {_plain(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value]


class YamlPrinter(JsonPrinter):
    _shown = False

    def show(self, value: Json) -> None:
        emit(("---\n" if self._shown else "") + document(value))
        self._shown = True
