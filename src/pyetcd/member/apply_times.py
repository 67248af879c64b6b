"""How long entries take to be applied, and requests to be answered, without a look at the clock for each.

Reading the clock costs 0.1 to 0.3 us, a put 10. So entries that follow each other and are of one kind are
timed as a group of up to `GROUP_MAX`: each took its share of the whole. Count and sum are exact; only within
a group is the distribution flat. Where warnings are wanted of times so short that a whole group may take as
long, each entry is a group by itself. What goes wrong or takes several turns is always timed alone.
"""

from __future__ import annotations

from typing import Final

from pyetcd.member.request_times import RequestTimes
from pyetcd.mvcc.answer import Answer

GROUP_MAX: Final = 32
ALONE_BELOW_SECONDS: Final = 0.02  # a group may take so long without anything being wrong


class Groups:
    """Times the entries of one member.

    `kind`: of the group under way; 0 when there is none. `since`: when each of its entries was proposed, or 0
    where nobody waits; the applier appends, and calls `count` when there are `size` of them.
    """

    __slots__ = ("_begun", "_times", "data", "kind", "since", "size")

    def __init__(self, times: RequestTimes) -> None:
        self._times = times
        self._begun = 0.0
        self.kind = 0
        self.since: list[float] = []
        self.data = b""  # of the last entry
        self.size = GROUP_MAX if times.warn_seconds >= ALONE_BELOW_SECONDS else 1

    def open(self, kind: int) -> None:
        """The next entry is of this kind. Its time begins now."""
        if self.since:
            self.count()
        else:
            self._begun = self._times.clock()
        self.kind = kind

    def close(self) -> None:
        """No entry follows at once."""
        if self.since:
            self.count()
        self.kind = 0

    def leave(self) -> float:
        """The entry that was just looked at goes its own way: when it began, about."""
        share = self.count(others=1)
        self.kind = 0
        return self._times.clock() - share

    def count(self, others: int = 0, answer: Answer | None = None) -> float:
        """Count the entries of the group and begin the next one; each one's share of the time. `others`: so
        many had their part in it and are not in `since`. `answer`: that of the last one, if known.
        """
        since, times = self.since, self._times
        now = times.clock()
        took = now - self._begun
        count = len(since)
        share = took / (count + others)
        self._begun = now
        if not count:
            return share
        applied = times.applied(self.kind, True)
        answered = times.answered(self.kind, True)
        if count == 1:
            applied.later.append(share)
            if since[0]:
                answered.later.append(now - since[0])
        else:
            applied.observe(share, count)
            answered.later.extend([now - each for each in since if each])
        since.clear()
        if took - share * others > times.warn_seconds:
            times.slow_group(took, self.data, answer)
        return share
