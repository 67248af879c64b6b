"""`request stats`: a line for each unary call that took longer than `--warning-unary-request-duration`.

Keys and numbers are etcd's (api/v3rpc/interceptor.go): sizes and counts for the four requests of the KV
service, -1 for all others; values are left out of the text. At log level debug every call has its line. The
wire keeps the time and names the calls that were slow, so the others cost nothing.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.api.dispatch import Body, Event
from pyetcd.logs import duration
from pyetcd.member.request_text import Shown, request_text
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest

EVERY_CALL_SECONDS: Final = 1e-9

_KINDS: Final[dict[str, type[Message]]] = {
    "/etcdserverpb.KV/Range": RangeRequest,
    "/etcdserverpb.KV/Put": PutRequest,
    "/etcdserverpb.KV/DeleteRange": DeleteRangeRequest,
    "/etcdserverpb.KV/Txn": TxnRequest,
}
_SUCCEEDED: Final = b"\x10\x01"  # TxnResponse.succeeded
_DELETED: Final = 0x10  # DeleteRangeResponse.deleted
_COUNT: Final = 0x20  # RangeResponse.count

_log = logs.get("v3rpc")


class RequestStats:
    """Writes the lines. `methods`: the wire's, in its order. `note` fits `Outbox.on_slow`."""

    def __init__(self, methods: list[str], warn_seconds: float) -> None:
        self._methods = methods
        self._warn_seconds = warn_seconds

    @property
    def slow_seconds(self) -> float:
        """From how many seconds on the wire is to name a call."""
        return EVERY_CALL_SECONDS if _log.enabled(logs.DEBUG) else self._warn_seconds

    def note(self, event: Event, body: Body | None, seconds: float, code: int, message: str) -> None:
        """A call has ended. `body`: its answer, None for an error."""
        debug = _log.enabled(logs.DEBUG)
        if not debug and seconds < self._warn_seconds:
            return
        _, _, method, payload, meta = event
        path = self._methods[method]
        assert isinstance(payload, bytes)
        assert isinstance(meta, Meta)
        fields: dict[str, Any] = {
            "start time": logs.ago(seconds),
            "time spent": duration(seconds),
            "remote": meta.peer,
            "response type": path,
            **_sizes(_KINDS.get(path), payload, body),
        }
        if debug:
            _log.debug("request stats", fields)
        else:
            _log.warn("request stats", fields)


def _sizes(kind: type[Message] | None, payload: bytes, body: Body | None) -> dict[str, object]:
    """Counts, sizes and the text of a request and its answer."""
    if kind is None:
        return _row(-1, -1, -1, -1, "")
    try:
        request = kind.FromString(payload)
    except DecodeError:
        return _row(0, len(payload), 0, 0, "")
    parts = [] if body is None else [body] if isinstance(body, bytes) else list(body)
    answer_size = sum(map(len, parts))
    text = Shown(lambda: request_text(request))
    if isinstance(request, TxnRequest):
        if body is None:
            return _row(0, 0, 0, 0, "")
        branch = request.success if _SUCCEEDED in parts[1:2] else request.failure
        return _row(len(branch), sum(each.ByteSize() for each in branch), 0, answer_size, text)
    if isinstance(request, PutRequest):
        return _row(1, len(payload), 0, answer_size, text)
    if isinstance(request, DeleteRangeRequest):
        return _row(0, len(payload), _number(parts[1:2], _DELETED), answer_size, text)
    return _row(0, len(payload), _number(parts[-1:], _COUNT), answer_size, text)


def _row(
    request_count: int, request_size: int, response_count: int, response_size: int, content: object
) -> dict[str, object]:
    return {
        "request count": request_count,
        "request size": request_size,
        "response count": response_count,
        "response size": response_size,
        "request content": content,
    }


def _number(parts: list[bytes], tag: int) -> int:
    """The number in a part that is just a field of this tag: mvcc puts counts in parts of their own."""
    if not parts or parts[0][:1] != bytes((tag,)):
        return 0
    value = shift = 0
    for byte in parts[0][1:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value
