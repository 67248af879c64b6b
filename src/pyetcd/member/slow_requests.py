"""`trace` lines: what a request did that took longer than 100 ms, step by step.

Message, keys and the form of details and steps are etcd's (pkg/traceutil), since scripts look for them.
Beside them stand the phases of a write (see `phases`) and the name of the longest. Nothing is measured for
these lines alone: that a request was slow shows when it is answered, and its moments are known then. No more
than LINES_PER_SECOND are written, because a disk that stalls makes thousands of requests slow at once; the
next line says how many were left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from pyetcd import logs
from pyetcd.logs import duration
from pyetcd.member.phases import Phases, Spent
from pyetcd.member.request_text import field_name
from pyetcd.mvcc.answer import Answer
from pyetcd.proto.plain_put import PlainPut, Request
from pyetcd.proto.rpc_pb2 import CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest

SLOW_SECONDS: Final = 0.1
LINES_PER_SECOND: Final = 20

AGREEMENT: Final = "agreement among raft nodes before linearized reading"

_OPERATIONS: Final = {"txn": "transaction", "compaction": "compact"}

_log = logs.get("traceutil")

Step = tuple[str, float]
"""What was done, and the seconds it took."""


class SlowRequests:
    """Writes the lines of one member."""

    def __init__(self, clock: Callable[[], float], phases: Phases) -> None:
        self.phases = phases
        self._clock = clock
        self._second = 0
        self._written = 0  # in this second
        self._left_out = 0
        self._number = 0

    def wrote(
        self, kind: int, request: Request, index: int, since: float, begun: float, ended: float, revision: int
    ) -> None:
        """A request that came at `since` has gone through the log as entry `index` and been applied from
        `begun` to `ended`. `revision`: of its answer, 0 where there is none.
        """
        if not self._may_write():
            return
        name = field_name(kind)
        details = _details(request)
        if revision:
            details.append(("response_revision", revision))
        steps = [("process raft request", begun - since), ("apply", ended - begun)]
        spent = self.phases.of(index, since, ended)
        self._write(_OPERATIONS.get(name, name), details, ended - since, steps, phase_fields(spent))

    def read(
        self,
        request: RangeRequest | TxnRequest,
        asked: float,
        begun: float,
        ended: float,
        count: int | None,
        revision: int,
    ) -> None:
        """A range or a read-only transaction that came at `asked` was read from `begun` to `ended`; 0.0: it
        never began. `count`: of keys, where it is known; `revision`: of the answer, 0 where there is none.
        """
        if not self._may_write():
            return
        steps: list[Step] = []
        if begun != asked:
            steps.append((AGREEMENT, (begun or ended) - asked))
        if begun:
            steps.append(("range keys", ended - begun))
        if isinstance(request, RangeRequest):
            operation = "range"
            details = _ends(request.key, request.range_end, "range_begin")
        else:
            operation = "transaction"
            details = [("read_only", "true")]
        if count is not None:
            details.append(("response_count", count))
        if revision:
            details.append(("response_revision", revision))
        self._write(operation, details, ended - asked, steps, {})

    def agreed(self, begun: float, received: float, ended: float, index: int, applied: int) -> None:
        """A round of ReadIndex took so long: raft's answer `index` came at `received`, when `applied` was the
        last entry applied here; at `ended` that had caught up.
        """
        if not self._may_write():
            return
        details = [("readStateIndex", index), ("appliedIndex", applied)]
        steps = [
            ("read index received", received - begun),
            ("applied index is now lower than readState.Index", ended - received),
        ]
        self._write("linearizableReadLoop", details, ended - begun, steps, {})

    def _may_write(self) -> bool:
        if not _log.enabled(logs.INFO):
            return False
        second = int(self._clock())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written == LINES_PER_SECOND:
            self._left_out += 1
            return False
        self._written += 1
        return True

    def _write(
        self,
        operation: str,
        details: Sequence[tuple[str, object]],
        took: float,
        steps: Sequence[Step],
        more: dict[str, Any],
    ) -> None:
        self._number = (self._number + 1) & 0x7FFFFFFF
        told = [f"'{name}'  (duration: {duration(seconds)})" for name, seconds in steps]
        fields: dict[str, Any] = {
            "trace_id": self._number,
            "operation": operation,
            "detail": _braced(details),
            "duration": duration(took),
            "start": logs.ago(took),
            "end": logs.ago(0.0),
            "steps": told,
            "step_count": len(told),
            **more,
        }
        if self._left_out:
            fields["left-out"] = self._left_out
            self._left_out = 0
        _log.info("trace", fields)


def phase_fields(spent: Spent | None) -> dict[str, Any]:
    """The phases as fields of a line; none where they are not known."""
    if spent is None:
        return {}
    times = {name: duration(seconds) for name, seconds in zip(spent._fields, spent, strict=True)}
    return {**times, "longest-phase": spent.longest}


def response_revision(answer: object) -> int:
    """Of what an entry gave; 0 where that is no answer."""
    return answer.revision if isinstance(answer, Answer) else 0


def _details(request: Request) -> list[tuple[str, object]]:
    if isinstance(request, PlainPut):
        request = request.message()
    if isinstance(request, PutRequest):
        return [("key", _text(request.key)), ("req_size", request.ByteSize())]
    if isinstance(request, DeleteRangeRequest):
        return _ends(request.key, request.range_end, "key")
    if isinstance(request, TxnRequest):
        return [("read_only", "false")]
    if isinstance(request, CompactionRequest):
        return [("revision", request.revision)]
    return []


def _ends(key: bytes, range_end: bytes, begin: str) -> list[tuple[str, object]]:
    return [(begin, _text(key)), ("range_end", _text(range_end))]


def _braced(details: Sequence[tuple[str, object]]) -> str:
    if not details:
        return ""
    return "{" + "".join(f"{key}:{value}; " for key, value in details) + "}"


def _text(key: bytes) -> str:
    return key.decode(errors="replace")
