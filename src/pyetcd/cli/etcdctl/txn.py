"""`txn`: comparisons and two lists of requests, read from stdin, each list ended by an empty line."""

from __future__ import annotations

import sys

from pyetcd.cli import command, gotext
from pyetcd.cli.etcdctl import kv, words
from pyetcd.cli.etcdctl.client import Deadline
from pyetcd.cli.etcdctl.output import emit, flush
from pyetcd.cli.etcdctl.session import Session
from pyetcd.cli.etcdctl.tree import del_command, get_command, put_command
from pyetcd.cli.exits import BAD_ARGS, INVALID_INPUT, Exit
from pyetcd.cli.usage import usage_text
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyetcd.cli.command import Invocation

RESULTS = {"=": 0, ">": 1, "<": 2, "!=": 3}
TARGETS = {
    "ver": (0, "version"),
    "version": (0, "version"),
    "c": (1, "create_revision"),
    "create": (1, "create_revision"),
    "m": (2, "mod_revision"),
    "mod": (2, "mod_revision"),
    "val": (3, "value"),
    "value": (3, "value"),
    "lease": (4, "lease"),
}


def txn(call: Invocation) -> None:
    if call.args:
        raise Exit(BAD_ARGS, "txn command does not accept argument")
    session = Session(call)
    asks = call.on("interactive")
    request = Message("etcdserverpb.TxnRequest")
    request.values["compare"] = [parse_compare(line) for line in _lines(asks, "compares:")]
    for branch in ("success", "failure"):
        lines = _lines(asks, f"{branch} requests (get, put, del):")
        request.values[branch] = [parse_operation(line) for line in lines]
    # A transaction has no deadline of its own, as in etcdctl: what it waits for was typed by hand.
    answer = session.call("/etcdserverpb.KV/Txn", request, "etcdserverpb.TxnResponse", deadline=Deadline())
    session.printer.txn(answer)


def _lines(asks: bool, prompt: str) -> Iterator[str]:
    """The lines up to the next empty one."""
    if asks:
        emit(prompt + "\n")
        flush()
    while True:
        line = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape")
        if not line.endswith("\n"):
            raise Exit(INVALID_INPUT, "EOF")
        line = line.strip()
        if not line:
            return
        yield line


def parse_compare(line: str) -> Message:
    """A comparison such as `mod("key") > "0"`. Exit when it is none."""
    target, parenthesis, rest = line.partition("(")
    if not parenthesis:
        raise Exit(INVALID_INPUT, f"malformed comparison: {line}")
    key, operator, value, complete = _parts(rest)
    if not complete:
        got = f"{target}({gotext.quote(key)}) {operator} {gotext.quote(value)}"
        raise Exit(INVALID_INPUT, f"malformed comparison: {line}; got {got}")
    if target not in TARGETS:
        raise Exit(INVALID_INPUT, f"malformed comparison: {line} (unknown target {target})")
    number, field = TARGETS[target]
    try:
        compared: bytes | int
        if field == "value":
            compared = value.encode("utf-8", "surrogateescape")
        else:
            compared = gotext.parse_int(value, 16 if field == "lease" else 10)
    except gotext.GoValueError:
        raise Exit(INVALID_INPUT, f"invalid txn compare request: {line}") from None
    if operator not in RESULTS:
        # etcdctl ends with a Go panic here.
        raise Exit(INVALID_INPUT, f"malformed comparison: {line} (unknown operator {operator})")
    compare = Message("etcdserverpb.Compare", result=RESULTS[operator], target=number)
    compare.values["key"] = key.encode("utf-8", "surrogateescape")
    compare.values[field] = compared
    return compare


def _parts(text: str) -> tuple[str, str, str, bool]:
    """Key, operator and value of `"key") operator "value"`, and whether all were there."""
    key = operator = value = ""
    try:
        key, rest = _quoted(text)
        if rest[:1] == ")" and rest[1:2].isspace():
            operator, rest = _word(rest[1:].lstrip())
            value, _ = _quoted(rest)
            return key, operator, value, True
    except gotext.GoValueError:
        pass
    return key, operator, value, False


def _word(text: str) -> tuple[str, str]:
    """What stands before the first space or tab, and the rest."""
    end = next((at for at, letter in enumerate(text) if letter.isspace()), len(text))
    return text[:end], text[end:]


def _quoted(text: str) -> tuple[str, str]:
    text = text.lstrip()
    if text[:1] != "`":
        return gotext.unquote(text)
    value, mark, rest = text[1:].partition("`")
    if not mark:
        raise gotext.GoValueError("unexpected EOF")
    return value, rest


def parse_operation(line: str) -> Message:
    """A request such as `put key "value"` with the flags of that command. Exit when it is none."""
    args = words.split(line)
    if len(args) < 2:
        raise Exit(INVALID_INPUT, f"invalid txn compare request: {line}")
    root = command.Command("", commands=[get_command(), put_command(), del_command()])
    chosen = root
    try:
        chosen, rest = command.resolve(root, args)
        call = command.parse(chosen, rest, args)
    except (command.UnknownCommand, command.FlagError, command.HelpWanted):
        if chosen is not root:
            print(usage_text(chosen), file=sys.stderr)
        raise Exit(INVALID_INPUT, f"invalid txn request: {line}") from None
    operation = Message("etcdserverpb.RequestOp")
    if chosen.name == "get":
        operation.values["request_range"] = kv.get_request(call)
    elif chosen.name == "put":
        operation.values["request_put"] = kv.put_request(call, bytes)
    elif chosen.name == "del":
        operation.values["request_delete_range"] = kv.delete_request(call)
    else:
        raise Exit(INVALID_INPUT, f"invalid txn request: {line}")
    return operation
