"""How long entries take to be applied, and requests to be answered, without a look at the clock for each.

Reading the clock costs 0.1 us, counting what it says 2 (15 where the caches are cold), a put 10. So entries
that follow each other and are of one kind, mostly those of one batch, are timed as a group: each took its
share of the whole. Count and sum are exact; only within a group is the distribution flat. Where warnings are
wanted of times so short that a whole group may take as long, each entry is a group by itself. What goes wrong
or takes several turns is always timed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pyetcd.member.request_times import RequestTimes
from pyetcd.metrics import Histogram
from pyetcd.mvcc.answer import Answer
from pyetcd.proto.plain_put import Request

GROUP_MAX: Final = 256
ALONE_BELOW_SECONDS: Final = 0.02  # a group may take so long without anything being wrong

Last = tuple[int, Request, bytes, Answer]
"""The last entry of a group: kind, request, data, answer."""


class Groups:
    """Times the entries of one member.

    `since`: when those of the group were proposed for which somebody waits; `unanswered`: how many others it
    has. The applier adds to both, and calls `count` where an index has none of the bits of `mask`. `begun`:
    when the group did. `applied_index`: of the entry that was looked at last.
    """

    __slots__ = (
        "_answered",
        "_applied",
        "_applied_index",
        "_kind",
        "_times",
        "begun",
        "mask",
        "since",
        "unanswered",
    )

    def __init__(self, times: RequestTimes, applied_index: Callable[[], int]) -> None:
        self._times = times
        self._applied_index = applied_index
        self.begun = 0.0
        self._kind = 0
        self._applied = self._answered = Histogram(())  # of the kind
        self.since: list[float] = []
        self.unanswered = 0
        self.mask = GROUP_MAX - 1 if times.warn_seconds >= ALONE_BELOW_SECONDS else 0

    def open(self, kind: int) -> None:
        """The next entry is of this kind. Its time begins now."""
        if self.since or self.unanswered:
            self.count()
        else:
            self.begun = self._times.clock()
        if kind != self._kind:
            self._kind = kind
            self._applied = self._times.applied(kind, True)
            self._answered = self._times.answered(kind, True)

    def leave(self) -> float:
        """The entry that was looked at last goes its own way: when it began, about."""
        now = self._times.clock()
        share = (now - self.begun) / (len(self.since) + self.unanswered + 1)
        self._count(now - share)
        return now - share

    def count(self, last: Last | None = None) -> None:
        """Count the entries of the group, if there are any, and begin the next one. `last`: for a warning."""
        self._count(self._times.clock(), last)

    def _count(self, now: float, last: Last | None = None) -> None:
        since, times = self.since, self._times
        took, self.begun = now - self.begun, now
        count = len(since) + self.unanswered
        if not count:
            return
        if count == 1:
            self._applied.later.append(took)
            if since:
                self._answered.later.append(now - since[0])
        else:
            self._applied.observe(took / count, count)
            if since:
                self._answered.observe_since(now, since)
        oldest = min(since) if since and took > times.warn_seconds else 0.0
        since.clear()
        self.unanswered = 0
        if took > times.warn_seconds:
            spent = times.slow_requests.phases.of(self._applied_index(), oldest, now)
            times.slow_group(took, self._kind, last, spent)
