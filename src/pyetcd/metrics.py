"""Metric cells and the text Prometheus reads.

A cell is a plain object: `puts.value += 1` is all a count costs (0.05 us), an observation is a bisection (0.4
us), or where that is too much an append to `later` (0.04 us), which somebody folds in now and then. What a
room counts anyway in a plain attribute is not counted twice: a cell can be given a callable instead, read
when somebody scrapes. Cells live in a `Registry` that is handed around, since several servers may share a
process.

The exposition is written here rather than by prometheus_client: etcd has counters whose names do not end in
`_total`, which that library cannot write, and 2,400 lines took it 40 ms of the loop where this takes 4. The
numbers are printed as Go prints them, so that a diff against etcd's own output is empty.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from pyetcd import logs

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
SERIES_MAX: Final = 10_000  # of one family; beyond it new label values are folded into one cell nobody sees
_LINES_A_PART: Final = 300

Number = int | float
Row = tuple[Sequence[str], Number]

_log = logs.get("metrics")


class Counter:
    """A number that only grows. With `read` set, what it returns counts instead of `value`."""

    __slots__ = ("read", "value")

    def __init__(self) -> None:
        self.value: Number = 0
        self.read: Callable[[], Number] | None = None

    def current(self) -> Number:
        return self.value if self.read is None else self.read()


class Gauge(Counter):
    """A number that goes up and down."""

    __slots__ = ()


class Histogram:
    """Observations by size. `bounds` ascend; the bucket without a bound is implied.

    `later`: observations that are not counted yet. Whoever appends to it calls `fold` before it has grown
    by much; what is written to a scraper has them all.
    """

    __slots__ = ("bounds", "counts", "later", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.later: list[float] = []
        self.total = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`count` observations of the same value."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    def observe_many(self, values: Iterable[float]) -> None:
        """0.1 us each when there are many."""
        ordered = sorted(values)
        self.total += sum(ordered)
        below = 0
        for at, bound in enumerate(self.bounds):
            if below == len(ordered):
                return
            end = bisect_right(ordered, bound, below)
            self.counts[at] += end - below
            below = end
        self.counts[-1] += len(ordered) - below

    def observe_since(self, now: float, since: Sequence[float]) -> None:
        """What has passed since each of these moments: 2 us for all of them when they are close together."""
        bounds, counts = self.bounds, self.counts
        ordered = sorted(since)
        left = len(ordered)
        self.total += left * now - sum(ordered)
        most = bisect_left(bounds, now - ordered[0])
        for bucket in range(bisect_left(bounds, now - ordered[-1]), most):
            earlier = bisect_left(ordered, now - bounds[bucket])
            counts[bucket] += left - earlier
            left = earlier
        counts[most] += left

    def fold(self) -> None:
        """Count what is in `later`."""
        later = self.later
        if later:
            self.observe_many(later)
            later.clear()


class Family:
    """What is common to cells of one name. `write` appends the lines of all of them."""

    kind = ""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._head = f"# HELP {name} {_escape_help(text)}\n# TYPE {name} {self.kind}\n"

    def write(self, out: list[str]) -> None:
        lines = list(self.lines())
        if lines:
            out.append(self._head)
            out += lines

    def lines(self) -> Iterator[str]:
        raise NotImplementedError


class _Single(Family):
    def __init__(self, name: str, text: str, cell: Counter) -> None:
        self.kind = "gauge" if isinstance(cell, Gauge) else "counter"
        super().__init__(name, text)
        self.cell = cell

    def lines(self) -> Iterator[str]:
        yield f"{self.name} {go_number(self.cell.current())}\n"


class Rows(Family):
    """A family whose series are made when somebody scrapes: `rows` yields `(label values, number)`."""

    def __init__(self, name: str, kind: str, text: str, labels: Sequence[str]) -> None:
        assert list(labels) == sorted(labels), f"{name}: Go's client writes labels by name"
        self.kind = kind
        super().__init__(name, text)
        self.labels = tuple(labels)
        self.rows: Callable[[], Iterable[Row]] = tuple

    def lines(self) -> Iterator[str]:
        for values, number in sorted(self.rows(), key=lambda row: tuple(row[0])):
            yield f"{self.name}{{{_label_text(self.labels, values)}}} {go_number(number)}\n"


class Table(Family):
    """A family whose series are known beforehand and whose numbers are read together at the scrape.

    `keys`: the label values of each series; `read` returns their numbers in the same order, None for one that
    is not to be shown yet. The text of the labels is made once, which for the 800 series of gRPC calls saves
    2 ms a scrape.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        text: str,
        labels: Sequence[str],
        keys: Sequence[Sequence[str]],
        read: Callable[[], Sequence[Number | None]],
    ) -> None:
        assert list(labels) == sorted(labels), f"{name}: Go's client writes labels by name"
        self.kind = kind
        super().__init__(name, text)
        self._read = read
        self._order = sorted(range(len(keys)), key=lambda at: tuple(keys[at]))
        self._heads = [f"{name}{{{_label_text(labels, keys[at])}}} " for at in self._order]

    def lines(self) -> Iterator[str]:
        numbers = self._read()
        assert len(numbers) == len(self._order), self.name
        for head, at in zip(self._heads, self._order, strict=True):
            number = numbers[at]
            if number is not None:
                yield f"{head}{go_number(number)}\n"


class CounterVec(Rows):
    """Counters told apart by labels. Ask for a cell once, keep it."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        super().__init__(name, "counter", text, labels)
        self._cells: dict[tuple[str, ...], Counter] = {}
        self.rows = self._current

    def cell(self, *values: str) -> Counter:
        found = self._cells.get(values)
        if found is None:
            assert len(values) == len(self.labels), (self.name, values)
            if len(self._cells) >= SERIES_MAX:
                return Counter()
            found = self._cells[values] = Counter()
        return found

    def _current(self) -> Iterable[Row]:
        return [(values, cell.current()) for values, cell in self._cells.items()]


class HistogramVec(Family):
    """Histograms told apart by labels; without labels, one histogram, `only`. With `hide_empty`, those that
    have observed nothing are not shown, so that one may ask for a cell before it is needed.
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        text: str,
        bounds: Sequence[float],
        labels: Sequence[str] = (),
        *,
        hide_empty: bool = False,
    ) -> None:
        assert list(labels) == sorted(labels), f"{name}: Go's client writes labels by name"
        super().__init__(name, text)
        self._bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._hide_empty = hide_empty
        self._bound_texts = [*map(go_number, self._bounds), "+Inf"]
        self._cells: dict[tuple[str, ...], Histogram] = {}
        self.only = self.cell() if not labels else Histogram(self._bounds)

    def cell(self, *values: str) -> Histogram:
        found = self._cells.get(values)
        if found is None:
            assert len(values) == len(self._labels), (self.name, values)
            if len(self._cells) >= SERIES_MAX:
                return Histogram(self._bounds)
            found = self._cells[values] = Histogram(self._bounds)
        return found

    def fold(self) -> None:
        """Count what is in `later` of all cells."""
        for cell in self._cells.values():
            cell.fold()

    def lines(self) -> Iterator[str]:
        for values, cell in sorted(self._cells.items()):
            cell.fold()
            if self._hide_empty and not any(cell.counts):
                continue
            labels = _label_text(self._labels, values)
            prefix = f"{self.name}_bucket{{{labels}{',' if labels else ''}le="
            below = 0
            for bound, count in zip(self._bound_texts, cell.counts, strict=True):
                below += count
                yield f'{prefix}"{bound}"}} {go_number(below)}\n'
            braces = f"{{{labels}}}" if labels else ""
            yield f"{self.name}_sum{braces} {go_number(cell.total)}\n"
            yield f"{self.name}_count{braces} {go_number(below)}\n"


class Registry:
    """The families of one server, in one place. Names are unique."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._failed: set[str] = set()
        self._gatherers: list[Callable[[], None]] = []

    def add(self, family: Family) -> None:
        assert family.name not in self._families, family.name
        self._families[family.name] = family

    def counter(self, name: str, text: str) -> Counter:
        cell = Counter()
        self.add(_Single(name, text, cell))
        return cell

    def gauge(self, name: str, text: str) -> Gauge:
        cell = Gauge()
        self.add(_Single(name, text, cell))
        return cell

    def histogram(self, name: str, text: str, bounds: Sequence[float]) -> Histogram:
        family = HistogramVec(name, text, bounds)
        self.add(family)
        return family.only

    def histograms(
        self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str]
    ) -> HistogramVec:
        family = HistogramVec(name, text, bounds, labels)
        self.add(family)
        return family

    def counters(self, name: str, text: str, labels: Sequence[str]) -> CounterVec:
        family = CounterVec(name, text, labels)
        self.add(family)
        return family

    def rows(self, name: str, kind: str, text: str, labels: Sequence[str]) -> Rows:
        family = Rows(name, kind, text, labels)
        self.add(family)
        return family

    def on_scrape(self, gather: Callable[[], None]) -> None:
        """Call `gather` before anything is read: it fills cells from where their numbers are."""
        self._gatherers.append(gather)

    def bind(self, reads: Mapping[str, Callable[[], Number]]) -> None:
        """Take the value of single counters and gauges from callables. KeyError for a name that is none."""
        for name, read in reads.items():
            family = self._families[name]
            if not isinstance(family, _Single):
                raise KeyError(name)
            family.cell.read = read

    def family(self, name: str) -> Family:
        """KeyError when there is none."""
        return self._families[name]

    def __contains__(self, name: str) -> bool:
        return name in self._families

    def expose(self) -> bytes:
        """All in Prometheus' text format, families by name. A family that fails to read is left out."""
        return b"".join(self.parts())

    def parts(self) -> Iterator[bytes]:
        """`expose` in slices of about a millisecond, for a caller that lets others run in between."""
        out: list[str] = []
        for gather in self._gatherers:
            try:
                gather()
            except Exception as error:
                self._complain(repr(gather), error)
        for name in sorted(self._families):
            mark = len(out)
            try:
                self._families[name].write(out)
            except Exception as error:
                del out[mark:]
                self._complain(name, error)
            if len(out) >= _LINES_A_PART:
                yield "".join(out).encode()
                out.clear()
        yield "".join(out).encode()

    def _complain(self, name: str, error: Exception) -> None:
        """Once for each: scrapers come every few seconds."""
        if name not in self._failed:
            self._failed.add(name)
            _log.warn("failed to read a metric", {"metric": name}, exc=error)


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Bucket bounds, each `factor` times the one before."""
    bounds, bound = [], start
    for _ in range(count):
        bounds.append(bound)
        bound *= factor
    return tuple(bounds)


def go_number(value: Number) -> str:
    """A number as Go prints the shortest float64: `0`, `5.5`, `1.048576e+06`, `+Inf`."""
    if isinstance(value, int) and -1_000_000 < value < 1_000_000:
        return str(int(value))
    value = float(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    text = repr(value)
    if 1e-4 <= abs(value) < 1e6 or value == 0:
        return text.removesuffix(".0")
    mantissa, _, exponent = text.partition("e")
    if exponent:
        sign = "-" if exponent.startswith("-") else "+"
        return f"{mantissa.removesuffix('.0')}e{sign}{exponent.lstrip('+-'):0>2}"
    digits = text.strip("-").replace(".", "").strip("0")
    return f"{value:.{len(digits) - 1}e}"


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _label_text(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{_escape_value(value)}"' for name, value in zip(names, values, strict=True))


def _escape_value(value: str) -> str:
    if value.isalnum():
        return value
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
