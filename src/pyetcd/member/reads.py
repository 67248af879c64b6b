"""Linearizable reads: everything acknowledged before a read was asked for is applied before it runs.

A sole voter that leads and has committed in its term is current at all times, since what it has
acknowledged it has applied; reads there cost nothing. In a cluster, reads are confirmed in rounds
(ReadIndex, Raft thesis section 6.4): those that have gathered while one round was on its way share the
next. A round asks raft for the index its reads must see, and when that is applied, they run.

Rules that hold here:

* A read waits for a round that began after it was asked for, never for one under way.
* Each question to raft has a context of its own, so a late answer cannot be taken for that to a later
  question; the answer to any question of the round will do.
* A question that is not answered within half a second is asked again; one that a new leader may have dropped
  when it first commits. When a new leader comes the round fails with "leader changed", as in etcd
  (server/etcdserver/read).
* Each read has its own deadline, and fails at it with "request timed out"; the round goes on for the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from pyetcd import logs
from pyetcd.logs.gotext import duration
from pyetcd.member.slow_requests import SLOW_SECONDS, SlowRequests
from pyetcd.proto import errors
from pyetcd.raft import ReadState

RETRY_SECONDS = 0.5

_log = logs.get("member")

Run = Callable[[], object]
Fail = Callable[[Exception], object]


class Reader:
    """A read that waits; `deadline` is loop time."""

    __slots__ = ("deadline", "fail", "run")

    def __init__(self, run: Run, fail: Fail, deadline: float) -> None:
        self.run = run
        self.fail = fail
        self.deadline = deadline


class Reads:
    """The reads of one member that wait. Every method from the loop.

    `ask(context)`: put a question to raft. `next_id()`: unique in the cluster. `applied()`: up to where the
    log is applied.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        ask: Callable[[bytes], None],
        next_id: Callable[[], int],
        applied: Callable[[], int],
        timeout_seconds: float,
        slow_requests: SlowRequests,
    ) -> None:
        self.are_current = False  # reads need not wait at all
        self.slow = 0  # rounds that timed out, or were answered too late
        self.failed = 0
        self._clock = clock
        self._ask = ask
        self._next_id = next_id
        self._applied = applied
        self._timeout_seconds = timeout_seconds
        self._slow_requests = slow_requests
        self._gathering: list[Reader] = []
        self._round: list[Reader] = []
        self._questions: set[bytes] = set()
        self._asked_at = 0.0
        self._begun = 0.0  # the round
        self._told = (0.0, 0)  # when raft said from which index on, and what was applied then
        self._index: int | None = None  # what the round waits to be applied, once that is known
        self._stopped = False

    def __len__(self) -> int:
        return len(self._gathering) + len(self._round)

    def add(self, run: Run, fail: Fail) -> None:
        """Call `run` once everything acknowledged before now is applied here, or `fail`."""
        if self._stopped:
            fail(errors.STOPPED())
        elif self.are_current:
            run()
        else:
            self._gathering.append(Reader(run, fail, self._clock() + self._timeout_seconds))

    def set_current(self, current: bool) -> None:
        """Whether this member is, at all times, current."""
        self.are_current = current
        if current:
            readers, self._round, self._gathering = self._round + self._gathering, [], []
            self._end_round()
            for reader in readers:
                reader.run()

    def flush(self) -> None:
        """The end of a turn: let what has gathered begin a round, if none is under way."""
        if self._gathering and not self._round:
            self._round, self._gathering = self._gathering, []
            self._begun = self._clock()
            self._put_question()

    def answered(self, state: ReadState) -> None:
        """Raft says from which index on."""
        if state.context not in self._questions:
            if self._round:
                self.slow += 1
                fields = {"received-request-id": int.from_bytes(state.context, "big")}
                _log.warn(
                    "ignored out-of-date read index response; local node read indexes queueing up and "
                    "waiting to be in sync with leader",
                    fields,
                )
            return
        self._questions.clear()
        self._index = state.index
        self._told = (self._clock(), self._applied())
        self.applied()

    def applied(self) -> None:
        """Entries were applied."""
        if self._index is None or self._applied() < self._index:
            return
        index = self._index
        readers, self._round = self._round, []
        self._end_round()
        for reader in readers:
            reader.run()
        received, applied = self._told
        now = self._clock()
        if now - self._begun > SLOW_SECONDS:
            self._slow_requests.agreed(self._begun, received, now, index, applied)

    def first_commit_in_term(self) -> None:
        """A leader that had not committed in its term may have dropped the question."""
        if self._round and self._index is None:
            _log.info("first commit in current term: resending ReadIndex request")
            self._put_question()

    def leader_changed(self) -> None:
        """A new leader is known."""
        if self._round and self._index is None:
            self.failed += 1
            self._fail_round(errors.LEADER_CHANGED())

    def tick(self, now: float) -> None:
        """Ask again, and give up those whose time is over."""
        late, self._round = _split(self._round, now)
        if late and self._index is None:
            fields = {"timeout": duration(self._timeout_seconds)}
            _log.warn(
                "timed out waiting for read index response (local node might have slow network)", fields
            )
            self.slow += 1
        if late and not self._round:
            self._end_round()
        if self._round and self._index is None and now - self._asked_at >= RETRY_SECONDS:
            _log.warn(
                "waiting for ReadIndex response took too long, retrying",
                {"retry-timeout": duration(RETRY_SECONDS)},
            )
            self._put_question()
        too_late, self._gathering = _split(self._gathering, now)
        for reader in late + too_late:
            reader.fail(errors.TIMEOUT())
        self.flush()

    def stop(self) -> None:
        """No read will run any more."""
        self._stopped = True
        self.are_current = False
        self._fail_round(errors.STOPPED())
        readers, self._gathering = self._gathering, []
        for reader in readers:
            reader.fail(errors.STOPPED())

    def _put_question(self) -> None:
        context = self._next_id().to_bytes(8, "big")
        self._questions.add(context)
        self._asked_at = self._clock()
        self._ask(context)

    def _fail_round(self, error: Exception) -> None:
        readers, self._round = self._round, []
        self._end_round()
        for reader in readers:
            reader.fail(error)

    def _end_round(self) -> None:
        self._questions.clear()
        self._index = None


def _split(readers: list[Reader], now: float) -> tuple[list[Reader], list[Reader]]:
    """Those whose time is over, and the others; deadlines ascend."""
    if not readers or readers[0].deadline > now:
        return [], readers
    count = bisect_right(readers, now, key=lambda reader: reader.deadline)
    return readers[:count], readers[count:]
