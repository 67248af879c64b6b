"""What `check perf` and `check datascale` have in common: a clean place for keys, and how it is left."""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl import line
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.output import emit, flush
from pyetcd.cli.etcdctl.session import prefix_end, raw
from pyetcd.cli.exits import BAD_FEATURE, ERROR, INVALID_INPUT, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation
    from pyetcd.cli.etcdctl.load import Tally
    from pyetcd.cli.etcdctl.settings import Settings

COMPACT = "/etcdserverpb.KV/Compact"
DEFRAGMENT = "/etcdserverpb.Maintenance/Defragment"
LOADS = {"s": "s", "small": "s", "m": "m", "medium": "m", "l": "l", "large": "l", "xl": "xl", "xLarge": "xl"}
CLEANING_SECONDS = 30.0


def load_of(call: Invocation) -> str:
    """`s`, `m`, `l` or `xl`. Exit."""
    named = call.text("load")
    if named not in LOADS:
        raise Exit(BAD_FEATURE, f"unknown load option {named}")
    return LOADS[named]


def refuse_if_used(client: Client, prefix: str, deadline: Deadline, quote: str) -> None:
    """Exit if there are keys below the prefix already. `quote` stands around the command that helps."""
    request = Message("etcdserverpb.RangeRequest", **_below(prefix), limit=1)
    try:
        answer = client.call(line.RANGE, request, "etcdserverpb.RangeResponse", deadline, reads=True)
    except CallError as error:
        raise Exit(ERROR, str(error)) from None
    if answer.children("kvs"):
        named = gotext.quote(raw(prefix))
        advice = f"{quote}etcdctl del --prefix {prefix}{quote}"
        raise Exit(INVALID_INPUT, f"prefix {named} has keys. Delete with {advice} first")


def delete_all(client: Client, prefix: str, deadline: Deadline) -> int:
    """Delete all keys below the prefix; returns the revision of that. CallError."""
    request = Message("etcdserverpb.DeleteRangeRequest", **_below(prefix))
    answer_type = "etcdserverpb.DeleteRangeResponse"
    answer = client.call(line.DELETE_RANGE, request, answer_type, deadline, reads=False)
    return answer.child("header").number("revision")


def compact(client: Client, revision: int) -> None:
    _say(f"Compacting with revision {revision}")
    request = Message("etcdserverpb.CompactionRequest", revision=revision, physical=True)
    _do(client, COMPACT, request, "etcdserverpb.CompactionResponse")
    _say(f"Compacted with revision {revision}")


def defragment(settings: Settings) -> None:
    """Defragment every endpoint, one after the other."""
    for endpoint in settings.endpoints:
        named = gotext.quote(endpoint)
        _say(f"Defragmenting {named}")
        client = Client(settings, [endpoint])
        request = Message("etcdserverpb.DefragmentRequest")
        _do(client, DEFRAGMENT, request, "etcdserverpb.DefragmentResponse")
        client.close()
        _say(f"Defragmented {named}")


def tell_errors(tally: Tally) -> None:
    emit("FAIL: too many errors\n")
    for error, times in tally.errors.items():
        emit(f"FAIL: ERROR({error}) -> {times}\n")


def _do(client: Client, path: str, request: Message, answer_type: str) -> None:
    try:
        client.call(path, request, answer_type, Deadline(CLEANING_SECONDS), reads=False)
    except CallError as error:
        raise Exit(ERROR, str(error)) from None


def _say(text: str) -> None:
    emit(f"{text}\n")
    flush()


def _below(prefix: str) -> dict[str, bytes]:
    """All keys that begin with the prefix."""
    key = raw(prefix)
    return {"key": key, "range_end": prefix_end(key)} if key else {"key": b"\0", "range_end": b"\0"}
