"""Sorting rows without stopping the loop.

Sorting a million rows in one go takes a second, and freeing them a tenth of one. So runs of `RUN` rows are
sorted one a slice, then merged as they are asked for, and what has been merged is let go of row by row.
When only the first few are wanted, no more than these are ever held. Rows with equal sort keys keep the
order they came in, the order of their keys.

A row is (sort key, anything).
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Generic, TypeVar

RUN = 4096  # about 2 ms

Row = TypeVar("Row", bound=tuple[object, object])

_sort_key = itemgetter(0)


class TopRows(Generic[Row]):
    """The first `limit` rows of all that are added."""

    def __init__(self, limit: int, descending: bool) -> None:
        self._limit = limit
        self._descending = descending
        self._best: list[Row] = []
        self.added = 0

    def add(self, rows: list[Row]) -> None:
        self.added += len(rows)
        self._best += rows
        self._best.sort(key=_sort_key, reverse=self._descending)
        del self._best[self._limit :]

    def take(self, count: int) -> list[Row]:
        taken = self._best[:count]
        del self._best[:count]
        return taken


class SortedRows(Generic[Row]):
    """All rows that are added, in order."""

    def __init__(self, descending: bool) -> None:
        self._descending = descending
        self._rows: list[Row] = []
        self._runs: list[list[Row]] = []
        self._merged: Iterator[Row] | None = None
        self.added = 0

    def add(self, rows: list[Row]) -> None:
        self.added += len(rows)
        self._rows += rows
        if len(self._rows) >= RUN:
            self._end_run()

    def _end_run(self) -> None:
        """Sorted backwards, so that the merge takes rows from the end and each is freed when it is done
        with.
        """
        self._rows.sort(key=_sort_key, reverse=self._descending)
        self._rows.reverse()
        self._runs.append(self._rows)
        self._rows = []

    def take(self, count: int) -> list[Row]:
        """The next `count` rows; nothing is added after the first call."""
        if self._merged is None:
            self._end_run()
            self._merged = merge(*map(_drain, self._runs), key=_sort_key, reverse=self._descending)
        return list(islice(self._merged, count))

    def drop(self) -> bool:
        """Let go of some of the rows nobody takes any more; False when there are none left."""
        if self._runs:
            self._runs.pop().clear()
        return bool(self._runs)


def _drain(run: list[Row]) -> Iterator[Row]:
    while run:
        yield run.pop()
