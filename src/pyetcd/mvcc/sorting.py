"""Sorting rows without stopping the loop.

Sorting a million rows in one go takes a second. So runs of `RUN` rows are sorted one a slice and then
merged. Rows with equal sort keys keep the order they came in, the order of their keys.
"""

from __future__ import annotations

from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import TypeVar

from pyetcd.mvcc.answer import Job

RUN = 4096  # about 2 ms
MERGED_IN_A_SLICE = 1024

Sortable = TypeVar("Sortable", bound=tuple[bytes | int, int])


def sort_rows(rows: list[Sortable], descending: bool) -> Job[list[Sortable]]:
    """`rows`, (sort key, anything), by their sort key."""
    first = itemgetter(0)
    if len(rows) <= RUN:
        rows.sort(key=first, reverse=descending)
        return rows
    runs: list[list[Sortable]] = []
    for at in range(0, len(rows), RUN):
        runs.append(sorted(rows[at : at + RUN], key=first, reverse=descending))
        yield
    merged = merge(*runs, key=first, reverse=descending)
    result: list[Sortable] = []
    while len(result) < len(rows):
        result += islice(merged, MERGED_IN_A_SLICE)
        yield
    return result
