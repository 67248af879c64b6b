"""What `top` draws: lines for a screen of any size, the most important ones and columns first.

Nothing here waits or asks. What is not known is `-`. What others have chosen, as names and keys, is escaped.
"""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl.top_samples import PUTS, READS
from pyetcd.cli.gotext import bytes_size
from pyetcd.cli.screen import BAD, PLAIN, STRONG, TITLE
from pyetcd.cli.table import columns_of
from pyetcd.cluster.endpoints import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from pyetcd.cli.etcdctl.top_samples import Seen
    from pyetcd.cli.screen import Line
    from pyetcd.proto.lite import Message

    Cells: TypeAlias = "dict[str, str]"  # by the title of their column
    Hottest: TypeAlias = "tuple[list[tuple[bytes, float]], float]"  # changes a second, by prefix and of all

UNKNOWN = "-"
GAP = "  "
TEXTS = ("NAME", "ENDPOINT", "ROLE")  # columns that stand to the left
NUMBERS = ("READ", "PUTS/S", "READS/S", "FSYNC", "DB", "IN USE", "QUOTA", "BEHIND", "VERSION")
LEAST_FIRST = ("VERSION", "BEHIND", "IN USE", "FSYNC", "QUOTA", "ENDPOINT", "READS/S", "PUTS/S", "DB", "READ")
HOT_TITLES = ("HOTTEST PREFIXES", "CHANGES/S", "SHARE")


class View:
    """What has been seen of a cluster, at the time `clock`."""

    def __init__(self, seen: Sequence[Seen], hottest: Hottest | None, clock: str, *, note: str = "") -> None:
        """`note` stands in the place of the hottest prefixes; without both they are not mentioned."""
        self._seen = seen
        self._hottest = hottest
        self._clock = clock
        self._note = note
        self._members = {member.number("ID"): member for member in _newest_members(seen)}
        self._revision = max((_revision(each.status) for each in seen), default=0)

    def lines(self, columns: int, rows: int) -> list[Line]:
        """At most `rows` lines of at most `columns` columns each."""
        shown = [*self._head(), (PLAIN, ""), *self._endpoints(columns), *self._not_asked()]
        hot = self._hot(columns)
        room = rows - len(shown) - 1
        if hot and room > 1:
            shown += [(PLAIN, ""), *hot[:room]]
        if len(shown) > rows:
            shown = [line for line in shown if line[1]]
        if len(shown) > rows:
            shown = [*shown[: rows - 1], (PLAIN, f"… {len(shown) - rows + 1} more lines")][:rows]
        return [(style, cut(text, columns)) for style, text in shown]

    def _head(self) -> list[Line]:
        answering = [status for each in self._seen if (status := each.status) is not None]
        first = [f"{len(answering)} of {len(self._seen)} endpoints answer"]
        if answering:
            header = answering[0].child("header")
            term = max(status.number("raftTerm") for status in answering)
            leader = next((number for s in answering if (number := s.number("leader"))), 0)
            first = [
                f"leader {self._name(leader)}" if leader else "no leader",
                *first,
                f"term {term}",
                f"cluster {header.number('cluster_id'):x}",
            ]
        reads = [rate for each in self._seen if (rate := each.rate(READS)) is not None]
        puts = [rate for each in self._seen if (rate := each.rate(PUTS)) is not None]
        second = [
            f"revision {self._revision or UNKNOWN}",
            f"{_rate(self._revisions_per_second())} revisions/s",
            f"{_rate(max(puts, default=None))} puts/s",  # each member applies all
            f"{_rate(sum(reads) if reads else None)} reads/s",
        ]
        alarms = sorted({text.strip() for status in answering for text in status.texts("errors")})
        return [
            (STRONG, GAP.join(["etcdctl top", self._clock, *first])),
            (PLAIN, GAP.join(second)),
            *((BAD, f"alarm: {_escaped(alarm)}") for alarm in alarms),
        ]

    def _name(self, member: int) -> str:
        known = self._members.get(member)
        return (known is not None and _escaped(known.text("name"))) or f"{member:x}"

    def _revisions_per_second(self) -> float | None:
        """Of the endpoint that is farthest."""
        for each in self._seen:
            last, before = each.last, each.before
            if last is None or before is None or before.status is None or last.at <= before.at:
                continue
            if _revision(last.status) == self._revision:
                return max(0, self._revision - _revision(before.status)) / (last.at - before.at)
        return None

    def _endpoints(self, columns: int) -> list[Line]:
        rows = [self._cells(each) for each in self._seen]
        titles = _fitting([*TEXTS, *NUMBERS], rows, columns)
        widths = {title: _width(title, rows) for title in titles}
        lines = [(TITLE, _aligned({title: title for title in titles}, widths))]
        for each, cells in zip(self._seen, rows, strict=True):
            status = each.status
            if status is None:
                known = {title: width for title, width in widths.items() if title in cells}
                why = "waiting for an answer" if each.last is None else f"no status: {each.last.error}"
                lines.append((BAD, GAP.join([_aligned(cells, known), _escaped(why)])))
            else:
                is_leader = status.number("leader") == status.child("header").number("member_id")
                lines.append((STRONG if is_leader else PLAIN, _aligned(cells, widths)))
        return lines

    def _cells(self, each: Seen) -> Cells:
        """By title; only those of TEXTS, as far as they are known, for an endpoint that does not answer."""
        status, last = each.status, each.last
        if status is None or last is None:
            member = next((m for m in self._members.values() if _is_at(m, each.endpoint)), None)
            name = member.text("name") if member is not None else ""
            return {"NAME": _escaped(name) or UNKNOWN, "ENDPOINT": _escaped(each.endpoint)}
        member_id = status.child("header").number("member_id")
        size, quota = status.number("dbSize"), status.number("dbSizeQuota")
        return {
            "NAME": self._name(member_id),
            "ENDPOINT": _escaped(each.endpoint),
            "ROLE": _role(status, member_id),
            "READ": _milliseconds(last.read_seconds),
            "PUTS/S": _rate(each.rate(PUTS)),
            "READS/S": _rate(each.rate(READS)),
            "FSYNC": _milliseconds(each.fsync_seconds()),
            "DB": bytes_size(size),
            "IN USE": _percent(status.number("dbSizeInUse"), size),
            "QUOTA": _percent(size, quota),
            "BEHIND": str(self._revision - _revision(status)),
            "VERSION": _escaped(status.text("version")),
        }

    def _not_asked(self) -> list[Line]:
        """Members that none of the endpoints belongs to."""
        asked = {status.child("header").number("member_id") for each in self._seen if (status := each.status)}
        return [
            (PLAIN, f"{self._name(number)} is not asked; --cluster asks all members")
            for number, member in self._members.items()
            if number not in asked and not any(_is_at(member, each.endpoint) for each in self._seen)
        ]

    def _hot(self, columns: int) -> list[Line]:
        if self._hottest is None:
            return [(TITLE, HOT_TITLES[0]), (PLAIN, _escaped(self._note))] if self._note else []
        hottest, total = self._hottest
        rates = [(_prefix(prefix), _rate(rate), _percent(rate, total)) for prefix, rate in hottest]
        rows = [dict(zip(HOT_TITLES, row, strict=True)) for row in rates]
        widths = {title: _width(title, rows) for title in HOT_TITLES}
        others = sum(widths[title] + len(GAP) for title in HOT_TITLES[1:])
        widths[HOT_TITLES[0]] = max(min(widths[HOT_TITLES[0]], columns - others), 1)
        lines = [(TITLE, _aligned({title: title for title in HOT_TITLES}, widths))]
        return lines + [(PLAIN, _aligned(cells, widths)) for cells in rows]


def _newest_members(seen: Iterable[Seen]) -> list[Message]:
    rounds = [each.last for each in seen if each.last is not None and each.last.members]
    return max(rounds, key=lambda last: last.at).members if rounds else []


def _is_at(member: Message, endpoint: str) -> bool:
    return any(Target(url).name == Target(endpoint).name for url in member.texts("clientURLs"))


def _revision(status: Message | None) -> int:
    return 0 if status is None else status.child("header").number("revision")


def _role(status: Message, member_id: int) -> str:
    if status.flag("isLearner"):
        return "learner"
    if not status.number("leader"):
        return "no leader"
    return "leader" if status.number("leader") == member_id else "follower"


def _fitting(titles: list[str], rows: list[Cells], columns: int) -> list[str]:
    """The titles of the columns for which there is room."""
    for dropped in ("", *LEAST_FIRST):
        titles = [title for title in titles if title != dropped]
        need = sum(_width(title, rows) for title in titles)
        if need + len(GAP) * (len(titles) - 1) <= columns:
            break
    return titles


def _width(title: str, rows: list[Cells]) -> int:
    return max(columns_of(cells.get(title, "")) for cells in [*rows, {title: title}])


def _aligned(cells: Cells, widths: dict[str, int]) -> str:
    parts = []
    for title, width in widths.items():
        text = cut(cells.get(title, ""), width)
        space = " " * (width - columns_of(text))
        parts.append(text + space if title in TEXTS or title == HOT_TITLES[0] else space + text)
    return GAP.join(parts)


def cut(text: str, columns: int) -> str:
    """As much of the text as there is room for."""
    if columns_of(text) <= columns:
        return text
    while columns_of(text) > columns:
        text = text[: max(columns, 0)] if len(text) > columns else text[:-1]
    return text


def _prefix(prefix: bytes) -> str:
    return _escaped(prefix.decode("utf-8", "surrogateescape")) or '""'


def _escaped(text: str) -> str:
    return text if text.isprintable() else gotext.quote(text)


def _rate(rate: float | None) -> str:
    if rate is None:
        return UNKNOWN
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _milliseconds(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds * 1000:.1f}ms"


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else UNKNOWN
