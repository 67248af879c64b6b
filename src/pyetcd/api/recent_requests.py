"""`/debug/requests` and `/debug/events`: pages about recent gRPC calls, at the level debug alone, as in etcd.

Go's are those of golang.org/x/net/trace. Here there are the unary calls that have ended, by service and by
how long they took, the last ten of each; what is under way is not among them. Keys are shown, values,
passwords, tokens and other metadata never are. Nothing writes event logs here, so that page has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple
from urllib.parse import parse_qs, quote_plus

from google.protobuf.message import DecodeError, Message

from pyetcd import logs
from pyetcd.api.dispatch import Body, Event
from pyetcd.api.http_reply import Reply
from pyetcd.logs import duration
from pyetcd.member.request_text import request_text
from pyetcd.proto.errors import CODE_NAMES, OK
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)

REQUESTS: Final = "/debug/requests"
EVENTS: Final = "/debug/events"
KEPT: Final = 10  # of each service and bucket
TEXT_MAX: Final = 400  # characters of a request
PAYLOAD_MAX: Final = 1 << 16  # a larger one is not looked into

_SECONDS: Final = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 100.0)
_ERRORS: Final = len(_SECONDS)  # the bucket after them
_HTML: Final = (("Content-Type", "text/html; charset=utf-8"),)

# Those of which all but values may be seen.
_SHOWN: Final[dict[str, type[Message]]] = {
    "/etcdserverpb.KV/Range": RangeRequest,
    "/etcdserverpb.KV/Put": PutRequest,
    "/etcdserverpb.KV/DeleteRange": DeleteRangeRequest,
    "/etcdserverpb.KV/Txn": TxnRequest,
    "/etcdserverpb.KV/Compact": CompactionRequest,
    "/etcdserverpb.Lease/LeaseGrant": LeaseGrantRequest,
    "/etcdserverpb.Lease/LeaseRevoke": LeaseRevokeRequest,
    "/etcdserverpb.Lease/LeaseTimeToLive": LeaseTimeToLiveRequest,
}


class _Ended(NamedTuple):
    began: str
    seconds: float
    path: str
    remote: str
    text: str
    status: str


class RecentRequests:
    """Keeps the calls and writes the pages. `methods`: the wire's, in its order. `note` fits
    `Outbox.on_slow`, when that hears of every call.
    """

    def __init__(self, methods: Sequence[str]) -> None:
        self._methods = methods
        self._families = {
            _family(path): [deque[_Ended](maxlen=KEPT) for _ in range(_ERRORS + 1)] for path in methods
        }

    def note(self, event: Event, body: Body | None, seconds: float, code: int, message: str) -> None:
        _, _, method, payload, meta = event
        path = self._methods[method]
        status = "OK" if code == OK else f"{CODE_NAMES[code] if code < len(CODE_NAMES) else code}: {message}"
        text = _text(path, payload) if isinstance(payload, bytes) else ""
        remote = meta.peer if meta is not None else ""
        ended = _Ended(logs.ago(seconds), seconds, path, remote, text, status)
        buckets = self._families[_family(path)]
        for place, least in enumerate(_SECONDS):
            if seconds >= least:
                buckets[place].append(ended)
        if code != OK:
            buckets[_ERRORS].append(ended)

    def answer(self, path: str, query: str) -> Reply:
        """One of the two pages."""
        if path == EVENTS:
            return _page(EVENTS, "<p>No event logs are kept.</p>\n")
        given = parse_qs(query)
        family = given.get("fam", [""])[0]
        try:
            bucket = int(given.get("b", [""])[0])
        except ValueError:
            bucket = -1
        rows = "".join(self._row(name) for name in sorted(self._families))
        body = f"<table>\n{rows}</table>\n"
        if family in self._families and 0 <= bucket <= _ERRORS:
            body += self._listed(family, bucket)
        return _page(REQUESTS, body)

    def _row(self, family: str) -> str:
        cells = []
        for place, kept in enumerate(self._families[family]):
            label = escape(_label(place))
            if kept:
                target = f"?fam={quote_plus(family)}&amp;b={place}"
                cells.append(f'<td><a href="{target}">[{label}]</a></td>')
            else:
                cells.append(f"<td>[{label}]</td>")
        return f"<tr><td>{escape(family)}</td>{''.join(cells)}</tr>\n"

    def _listed(self, family: str, place: int) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(ended)) + "</tr>\n"
            for ended in reversed(self._families[family][place])
        )
        head = (
            "<tr><th>When</th><th>Elapsed</th><th>Call</th><th>From</th><th>Request</th><th>Status</th></tr>"
        )
        return f"<h2>{escape(family)} {escape(_label(place))}</h2>\n<table>\n{head}\n{rows}</table>\n"


def _cells(ended: _Ended) -> tuple[str, ...]:
    return ended.began, duration(ended.seconds), ended.path, ended.remote, ended.text, ended.status


def _family(path: str) -> str:
    """As grpc-go names it: the service without its package."""
    return "grpc.Recv." + path[1:].partition("/")[0].rpartition(".")[2]


def _label(place: int) -> str:
    return "errors" if place == _ERRORS else f"≥{_SECONDS[place]:g}s"


def _text(path: str, payload: bytes) -> str:
    kind = _SHOWN.get(path)
    if kind is None or len(payload) > PAYLOAD_MAX:
        return f"{len(payload)} bytes"
    try:
        text = request_text(kind.FromString(payload))
    except DecodeError:
        return f"{len(payload)} bytes that are no message"
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"


def _page(title: str, body: str) -> Reply:
    page = f"<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    return Reply(200, _HTML, page.encode())
