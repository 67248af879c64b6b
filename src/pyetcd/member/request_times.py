"""What requests take, by kind: for the histograms, and for a warning about each that took too long.

Entries are timed where they are applied, requests from their proposal to their answer, ranges while they are
read, all as in etcd (server/etcdserver/apply/uber_applier.go, v3_server.go). On the hot path a time costs one
append to a list (0.04 us); `settle`, once a turn, counts what has gathered when it is a thousand or more.
Entries are timed in groups, see `apply_times`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from pyetcd import logs
from pyetcd.logs import duration
from pyetcd.member.phases import Spent
from pyetcd.member.request_text import Shown, operation_name, proposal_text, request_text
from pyetcd.member.slow_requests import SLOW_SECONDS, SlowRequests, phase_fields, response_revision
from pyetcd.metrics import Histogram, HistogramVec, exponential
from pyetcd.mvcc.answer import Answer
from pyetcd.proto.plain_put import Request
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from pyetcd.proto.rpc_pb2 import RangeRequest, RangeResponse, TxnRequest, TxnResponse
from pyetcd.proto.splice import varint

AUTH_STATUS: Final = InternalRaftRequest.AUTH_STATUS_FIELD_NUMBER
GATHERED_MAX: Final = 1000
PARSED_BYTES_MAX: Final = 1 << 20  # of a slow answer, to say what was in it; 1 ms

_MILLISECOND_UP: Final = exponential(0.001, 2, 14)
_TENTH_UP: Final = exponential(0.0001, 2, 20)

_log = logs.get("member")

Append = Callable[[float], None]


class RequestTimes:
    """The histograms of one member and its count of slow requests.

    `ranged`: takes the seconds of a range that was read at once, from beginning to end. `told_seconds`: from
    how many on a read is to be given to `read`.
    """

    def __init__(
        self, clock: Callable[[], float], warn_seconds: float, slow_requests: SlowRequests
    ) -> None:
        self.clock = clock
        self.warn_seconds = warn_seconds
        self.told_seconds = min(warn_seconds, SLOW_SECONDS)
        self.slow_requests = slow_requests
        self.slow = 0
        self.apply_duration = HistogramVec(
            "etcd_server_apply_duration_seconds",
            "Time to apply an entry, by kind of request.",
            _TENTH_UP,
            ("op", "success", "version"),
            hide_empty=True,
        )
        self.request_duration = HistogramVec(
            "etcd_server_request_duration_seconds",
            "Time from a request to its answer, by kind.",
            _MILLISECOND_UP,
            ("success", "type"),
            hide_empty=True,
        )
        self.range_duration = HistogramVec(
            "etcd_server_range_duration_seconds", "Time to read a range.", _TENTH_UP, ("success",)
        )
        self._ranges: list[float] = []
        self._waited: list[float] = []
        self._waited_ranges: list[float] = []
        self._gathered: list[list[float]] = [self._ranges, self._waited]
        self._applied: dict[tuple[int, bool], Histogram] = {}
        self._answered: dict[tuple[int, bool], Histogram] = {}
        self.ranged: Append = self._ranges.append

    def applied(self, kind: int, success: bool) -> Histogram:
        """Of the seconds an entry of this kind takes."""
        cell = self._applied.get((kind, success))
        if cell is None:
            name = operation_name(kind) if kind != AUTH_STATUS else "unknown"  # so it is in etcd
            cell = self.apply_duration.cell(name, _flag(success), "v3")
            self._applied[kind, success] = cell
            self._gathered.append(cell.later)
        return cell

    def answered(self, kind: int, success: bool) -> Histogram:
        """Of the seconds from the proposal of a request of this kind to its result."""
        cell = self._answered.get((kind, success))
        if cell is None:
            cell = self.request_duration.cell(_flag(success), operation_name(kind))
            self._answered[kind, success] = cell
            self._gathered.append(cell.later)
        return cell

    def settle(self) -> None:
        """Once a turn: keep what has gathered small."""
        for later in self._gathered:
            if len(later) >= GATHERED_MAX:
                self.fold()
                return

    def fold(self) -> None:
        """Count all that has gathered."""
        if self._ranges:
            self.range_duration.cell("true").observe_many(self._ranges)
            self.request_duration.cell("true", "Range").observe_many(self._ranges)
            self._ranges.clear()
        if self._waited:
            self.range_duration.cell("true").observe_many(self._waited_ranges)
            self.request_duration.cell("true", "Range").observe_many(self._waited)
            self._waited_ranges.clear()
            self._waited.clear()
        self.apply_duration.fold()
        self.request_duration.fold()

    def waited(self, asked: float, begun: float, ended: float) -> None:
        """A range that had to wait and was then read at once, without failing or being slow."""
        self._waited_ranges.append(ended - begun)
        self._waited.append(ended - asked)

    def read(
        self,
        request: RangeRequest | TxnRequest,
        asked: float,
        begun: float,
        answer: Answer | None,
        error: Exception | None,
    ) -> None:
        """A read that failed, had to wait or was slow has ended. `asked`: when it came; `begun`: when its
        reading began; both by the clock. A read-only transaction counts from the latter, as in etcd.
        """
        now = self.clock()
        success = _flag(error is None)
        if isinstance(request, RangeRequest):
            took, kind, prefix = now - asked, "Range", "read-only range "
            if begun:
                self.range_duration.cell(success).observe(now - begun)
        else:
            took, kind, prefix = now - (begun or now), "ReadonlyTxn", "read-only txn "
        self.request_duration.cell(success, kind).observe(took)
        if took > self.warn_seconds:
            text = Shown(lambda: request_text(request))
            self._warn(took, prefix, text, _read_answer_text(request, answer), error)
        if now - asked > SLOW_SECONDS:
            count = _count(answer) if isinstance(request, RangeRequest) else None
            self.slow_requests.read(request, asked, begun, now, count, response_revision(answer))

    def slow_apply(
        self,
        took: float,
        kind: int,
        request: Request,
        data: bytes,
        answer: object,
        error: Exception | None,
        spent: Spent | None,
    ) -> None:
        """An entry took longer than the limit. `data`: the entry's; `answer`: what it gave, if anything."""
        size = f"size:{_size(answer)}" if isinstance(answer, Answer) else ""
        self._warn(took, "", shown_proposal(kind, request, data), size, error, spent)

    def slow_group(
        self,
        took: float,
        kind: int,
        last: tuple[int, Request, bytes, Answer] | None,
        spent: Spent | None,
    ) -> None:
        """So did entries of this kind that followed each other. `last`: kind, request, data and answer of the
        last of them, if known.
        """
        if last is not None:
            kind, request, data, answer = last
            self.slow_apply(took, kind, request, data, answer, None, spent)
        else:
            text = Shown(lambda: f"entries of kind {operation_name(kind)}")
            self._warn(took, "", text, "", None, spent)

    def _warn(
        self,
        took: float,
        prefix: str,
        request: Shown,
        response: str,
        error: Exception | None,
        spent: Spent | None = None,
    ) -> None:
        self.slow += 1
        fields: dict[str, Any] = {
            "took": duration(took),
            "expected-duration": duration(self.warn_seconds),
            "prefix": prefix,
            "request": request,
            "response": response,
        }
        if error is not None:
            fields["error"] = error
        fields.update(phase_fields(spent))
        _log.warn("apply request took too long", fields)


def shown_proposal(kind: int, request: Request, data: bytes) -> Shown:
    """The text of an entry for a log line."""
    return Shown(lambda: proposal_text(kind, request, _request_id(data)))


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _request_id(data: bytes) -> int:
    """Of an entry this member wrote: its header comes first (see `requests`). 0 for others."""
    if data[:2] != b"\xa2\x06" or len(data) < 3 or data[2] > 0x7F:
        return 0
    return RequestHeader.FromString(data[3 : 3 + data[2]]).ID


def _size(answer: Answer) -> int:
    """Of the answer with a header that has the revision alone."""
    return sum(map(len, answer.body)) + 3 + len(varint(answer.revision))


def _read_answer_text(request: RangeRequest | TxnRequest, answer: Answer | None) -> str:
    if answer is None:
        return ""
    size = _size(answer)
    if size > PARSED_BYTES_MAX:
        return f"size:{size}"
    if isinstance(request, RangeRequest):
        count = len(_parsed(RangeResponse, answer.body).kvs)
        return f"range_response_count:{count} size:{size}"
    responses = _parsed(TxnResponse, answer.body).responses
    counts = " ".join(f"range_response_count:{len(each.response_range.kvs)}" for each in responses)
    return f"responses:<{counts}> size:{size}"


def _count(answer: Answer | None) -> int | None:
    """How many keys a range gave, where that is cheap to say."""
    if answer is None or _size(answer) > PARSED_BYTES_MAX:
        return None
    return len(_parsed(RangeResponse, answer.body).kvs)


def _parsed(kind: type[Any], body: Sequence[bytes]) -> Any:
    return kind.FromString(b"".join(body))
