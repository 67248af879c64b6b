"""`get`, `put`, `del` and `compaction`.

The functions that build requests are also what `txn` reads its lines with.
"""

from __future__ import annotations

import sys
import time

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.session import Session, hex_id, prefix_end, raw
from pyetcd.cli.exits import BAD_ARGS, BAD_FEATURE, ERROR, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyetcd.cli.command import Invocation

SORT_ORDERS = {"": 0, "ASCEND": 1, "DESCEND": 2}
SORT_TARGETS = {"": 0, "KEY": 0, "VERSION": 1, "CREATE": 2, "MODIFY": 3, "VALUE": 4}
DELETE_RANGE_PAUSE_SECONDS = 2
ONE_OF_PREFIX_AND_FROM_KEY = "`--prefix` and `--from-key` cannot be set at the same time, choose one"
ONE_ARGUMENT = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"


def serializable(consistency: str, shown: str | None = None) -> bool:
    """Whether a `--consistency` means so. Exit names `shown` where it differs from the value."""
    if consistency not in ("l", "s"):
        name = gotext.quote(consistency if shown is None else shown)
        raise Exit(BAD_FEATURE, f"unknown consistency flag {name}")
    return consistency == "s"


def get_request(call: Invocation) -> Message:
    """The RangeRequest that `get`'s flags and arguments mean."""
    if not call.args:
        raise Exit(BAD_ARGS, "get command needs one argument as key and an optional argument as range_end")
    if call.on("prefix") and call.on("from-key"):
        raise Exit(BAD_ARGS, ONE_OF_PREFIX_AND_FROM_KEY)
    if call.on("keys-only") and call.on("count-only"):
        raise Exit(BAD_ARGS, "`--keys-only` and `--count-only` cannot be set at the same time, choose one")
    local = serializable(call.text("consistency"))
    key, range_end = _key_range(call)
    order, target = _sorting(call)
    bounds = {
        name: max(0, call.number(flag))
        for name, flag in (
            ("min_create_revision", "min-create-rev"),
            ("max_create_revision", "max-create-rev"),
            ("min_mod_revision", "min-mod-rev"),
            ("max_mod_revision", "max-mod-rev"),
        )
    }
    for kind, flag in (("create", "Create"), ("mod", "Mod")):
        low, high = bounds[f"min_{kind}_revision"], bounds[f"max_{kind}_revision"]
        if 0 < high < low:
            raise Exit(BAD_FEATURE, f"getMin{flag}Rev(={low}) > getMax{flag}Rev(={high})")
    return Message(
        "etcdserverpb.RangeRequest",
        key=key,
        range_end=range_end,
        limit=call.number("limit"),
        revision=max(0, call.number("rev")),
        sort_order=order,
        sort_target=target,
        serializable=local,
        keys_only=call.on("keys-only"),
        count_only=call.on("count-only"),
        **bounds,
    )


def _key_range(call: Invocation) -> tuple[bytes, bytes]:
    """Key and range_end from the arguments, `--prefix` and `--from-key`."""
    key = raw(call.args[0])
    if len(call.args) > 1 and (call.on("prefix") or call.on("from-key")):
        raise Exit(BAD_ARGS, ONE_ARGUMENT)
    if call.on("from-key") or (call.on("prefix") and not key):
        return key or b"\0", b"\0"
    if call.on("prefix"):
        return key, prefix_end(key)
    return key, raw(call.args[1]) if len(call.args) > 1 else b""


def _sorting(call: Invocation) -> tuple[int, int]:
    order, target = call.text("order"), call.text("sort-by")
    if order.upper() not in SORT_ORDERS:
        raise Exit(BAD_FEATURE, f"bad sort order {order}")
    if target.upper() not in SORT_TARGETS:
        raise Exit(BAD_FEATURE, f"bad sort target {target}")
    order_number, target_number = SORT_ORDERS[order.upper()], SORT_TARGETS[target.upper()]
    if target_number == 0 and order_number == 1:
        order_number = 0  # keys come in ascending order anyway, and unsorted a limit is cheap
    return order_number, target_number


def get(call: Invocation) -> None:
    request = get_request(call)
    session = Session(call)
    if call.on("history"):
        from pyetcd.cli.etcdctl import history

        history.show(call, session, request)
        return
    show: Callable[[Message], None] = session.printer.get
    if call.text("decode"):
        from pyetcd.cli.etcdctl import decoded

        show = decoded.shows(call.text("decode"), session.printer)
    if call.on("stream"):
        answer = _get_stream(session, request)
    else:
        answer = session.call("/etcdserverpb.KV/Range", request, "etcdserverpb.RangeResponse", reads=True)
    if call.on("count-only") and session.settings.format != "fields":
        raise Exit(BAD_ARGS, "--count-only is only for `--write-out=fields`")
    if call.on("print-value-only"):
        from pyetcd.cli.etcdctl.output_simple import SimplePrinter

        if not isinstance(session.printer, SimplePrinter):
            raise Exit(BAD_ARGS, "print-value-only is only for `--write-out=simple`")
        session.printer.values_only = True
    show(answer)


def _get_stream(session: Session, request: Message) -> Message:
    from pyetcd.cli.etcdctl.streams import receive_all

    answer = Message("etcdserverpb.RangeResponse")
    for piece in receive_all(
        session, "/etcdserverpb.KV/RangeStream", request, "etcdserverpb.RangeStreamResponse"
    ):
        answer.merge(piece.child("range_response"))
    return answer


def put_request(call: Invocation, read_value: Callable[[], bytes]) -> Message:
    """The PutRequest that `put` means; a value not among the arguments comes from `read_value`."""
    needs = "put command needs 1 argument and input from stdin or 2 arguments"
    if not call.args:
        raise Exit(BAD_ARGS, needs)
    keeps_value = call.on("ignore-value")
    if keeps_value and len(call.args) > 1:
        raise Exit(BAD_ARGS, "put command needs only 1 argument when 'ignore-value' is set")
    value = b""
    if not keeps_value:
        value = raw(call.args[1]) if len(call.args) > 1 else read_value()
        if len(call.args) == 1 and not value:
            raise Exit(BAD_ARGS, needs)
    return Message(
        "etcdserverpb.PutRequest",
        key=raw(call.args[0]),
        value=value,
        lease=hex_id(call.text("lease"), "bad lease ID ({}), expecting ID in Hex"),
        prev_kv=call.on("prev-kv"),
        ignore_value=keeps_value,
        ignore_lease=call.on("ignore-lease"),
    )


def put(call: Invocation) -> None:
    request = put_request(call, sys.stdin.buffer.read)
    session = Session(call)
    session.printer.put(session.call("/etcdserverpb.KV/Put", request, "etcdserverpb.PutResponse"))


def delete_request(call: Invocation) -> Message:
    """The DeleteRangeRequest that `del` means. Pauses before a range that `--range` does not announce."""
    if not 1 <= len(call.args) <= 2:
        raise Exit(BAD_ARGS, "del command needs one argument as key and an optional argument as range_end")
    if call.on("prefix") and call.on("from-key"):
        raise Exit(BAD_ARGS, ONE_OF_PREFIX_AND_FROM_KEY)
    key, range_end = _key_range(call)
    if len(call.args) > 1 and not call.on("range"):
        first, last = map(gotext.quote, call.args)
        print(
            f"Warning: Keys between {first} and {last} will be deleted. Please interrupt the command within"
            f" next {DELETE_RANGE_PAUSE_SECONDS} seconds to cancel. You can provide `--range` flag to avoid"
            " the delay.",
            file=sys.stderr,
        )
        time.sleep(DELETE_RANGE_PAUSE_SECONDS)
    return Message(
        "etcdserverpb.DeleteRangeRequest", key=key, range_end=range_end, prev_kv=call.on("prev-kv")
    )


def delete(call: Invocation) -> None:
    request = delete_request(call)
    session = Session(call)
    answer = session.call("/etcdserverpb.KV/DeleteRange", request, "etcdserverpb.DeleteRangeResponse")
    session.printer.delete(answer)


def compaction(call: Invocation) -> None:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "compaction command needs 1 argument")
    try:
        revision = gotext.parse_int(call.args[0], 10)
    except gotext.GoValueError as error:
        raise Exit(ERROR, str(error)) from None
    session = Session(call)
    request = Message("etcdserverpb.CompactionRequest", revision=revision, physical=call.on("physical"))
    session.call("/etcdserverpb.KV/Compact", request, "etcdserverpb.CompactionResponse")
    emit(f"compacted revision {revision}\n")
