"""Which pages may be written: free ones, those about to be free, and those a reader still pins.

One byte a page (2 MB for a database of 8 GiB), so that a run of n free pages is found by `bytearray.find`,
freeing is one slice assignment, and nothing needs coalescing. The bookkeeping per page of a dict or set
cost 100 to 250 bytes.

When a page freed by transaction N may be used again: after N is durable, and when no open reader is of a
transaction that could reach the page. A reader of transaction R reaches pages born in R or before. So a
page born after the newest reader waits only for N, even while an old reader stays open; others wait for the
readers older than N.
"""

from __future__ import annotations

from collections import Counter

_FREE = 1
_RUNS = [b"\x01" * n for n in range(65)]  # needles for short runs, the usual ones


class FreePages:
    """`used` has one byte a page, non-zero where the opened state uses the page."""

    def __init__(self, used: bytes | bytearray) -> None:
        self._map = bytearray(used.translate(bytes([_FREE]) + bytes(255)))
        self.count = self._map.count(_FREE)
        self._hint = 0  # no free page lies below
        self._no_run = 0  # if not 0: no run of so many pages is free
        self._pending: list[tuple[int, list[tuple[int, int]]]] = []  # freed by txid: runs; waits for readers
        self._freed: list[tuple[int, int]] = []  # runs freed by the transaction that is being built
        self._born: dict[int, int] = {}  # page: txid, for pages allocated while a reader is open
        self._readers: Counter[int] = Counter()  # txid: open pins

    def __len__(self) -> int:
        return len(self._map)

    @property
    def pending_count(self) -> int:
        """Pages that nobody needs but some reader may still look at."""
        return sum(length for _, runs in self._pending for _, length in runs)

    @property
    def readers(self) -> int:
        return self._readers.total()

    def allocate(self, pages: int, txid: int) -> int:
        """The first page of a run of `pages` free ones; 0 when there is none and the file must grow."""
        if self.count < pages or (self._no_run and pages >= self._no_run):
            return 0
        needle = _RUNS[pages] if pages < len(_RUNS) else b"\x01" * pages
        start = self._map.find(needle, self._hint)
        if start < 0:
            self._no_run = pages
            return 0
        self._map[start : start + pages] = bytes(pages)
        self.count -= pages
        if pages == 1:
            self._hint = start + 1
        if self._readers:
            self._born[start] = txid
        return start

    def grow(self, pages: int, txid: int) -> int:
        """The first of `pages` pages that are new at the end."""
        start = len(self._map)
        self._map.extend(bytes(pages))
        if self._readers:
            self._born[start] = txid
        return start

    def free(self, start: int, pages: int) -> None:
        """The transaction being built no longer needs this run."""
        self._freed.append((start, pages))

    def committed(self, txid: int) -> None:
        """The transaction that freed since the last call is durable."""
        freed, self._freed = self._freed, []
        if not self._readers:
            self._born.clear()
            self._release(freed)
        else:
            newest = max(self._readers)
            born = self._born
            waiting: list[tuple[int, int]] = []
            at_once: list[tuple[int, int]] = []
            for run in freed:
                (at_once if born.pop(run[0], 0) > newest else waiting).append(run)
            self._release(at_once)
            if waiting:
                self._pending.append((txid, waiting))
        self._release_pending()

    def add_reader(self, txid: int) -> None:
        self._readers[txid] += 1

    def remove_reader(self, txid: int) -> None:
        self._readers[txid] -= 1
        if not self._readers[txid]:
            del self._readers[txid]
        self._release_pending()

    def _release_pending(self) -> None:
        oldest = min(self._readers, default=None)
        keep: list[tuple[int, list[tuple[int, int]]]] = []
        for txid, runs in self._pending:
            if oldest is not None and oldest < txid:
                keep.append((txid, runs))
            else:
                self._release(runs)
        self._pending = keep

    def _release(self, runs: list[tuple[int, int]]) -> None:
        if not runs:
            return
        free = self._map
        for start, pages in runs:
            assert not free[start], "a page is freed once"
            free[start : start + pages] = b"\x01" * pages
            self.count += pages
        self._hint = min(self._hint, min(runs)[0])
        self._no_run = 0
