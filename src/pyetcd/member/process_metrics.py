"""What the operating system and the interpreter know of this process, as metrics.

Names are those of Prometheus' process collector and of Go's runtime, since etcd's dashboards ask for both.
The latter are answered with what they mean here, as their HELP says: goroutines are tasks of the loop, the
heap is anonymous memory, the collector is Python's, which only looks for cycles. What has no counterpart is
0. All of it is read from /proc when somebody scrapes, about 200 us.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pyetcd.metrics import Family, Number, Registry, go_number
from pyetcd.storage.files import Files

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_INT64_MAX: Final = 2**63 - 1
# CPython looks at all objects once those that are new to the oldest generation are a quarter of it.
_FULL_COLLECTION_PERCENT: Final = 25
_PAUSES_KEPT: Final = 256
_QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


class Pauses(Family):
    """How long the collector stopped the process, by `gc.callbacks`: two calls of 0.2 us a collection."""

    kind = "summary"

    def __init__(self, name: str, text: str, clock: Callable[[], float], unix: Callable[[], float]) -> None:
        super().__init__(name, text)
        self.last_at = 0.0  # Unix time
        self._clock = clock
        self._unix = unix
        self._recent: deque[float] = deque(maxlen=_PAUSES_KEPT)
        self._began = 0.0
        self._total = 0.0
        self._count = 0
        self._callback = self._collected
        gc.callbacks.append(self._callback)

    def close(self) -> None:
        """Count no more."""
        if self._callback in gc.callbacks:
            gc.callbacks.remove(self._callback)

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = self._clock()
            return
        pause = self._clock() - self._began
        self._recent.append(pause)
        self._total += pause
        self._count += 1
        self.last_at = self._unix()

    def lines(self) -> Iterator[str]:
        ordered = sorted(self._recent)
        for quantile in _QUANTILES:
            value = ordered[round(quantile * (len(ordered) - 1))] if ordered else 0.0
            yield f'{self.name}{{quantile="{go_number(quantile)}"}} {go_number(value)}\n'
        yield f"{self.name}_sum {go_number(self._total)}\n"
        yield f"{self.name}_count {go_number(self._count)}\n"


class ProcessMetrics:
    """Registers the families. `clock`: the loop's; `unix`: seconds since 1970."""

    def __init__(
        self, registry: Registry, files: Files, clock: Callable[[], float], unix: Callable[[], float]
    ) -> None:
        self._files = files
        self._stat: list[bytes] = []
        self._status: dict[bytes, int] = {}
        self._network: list[list[bytes]] = []
        self._allocations = 0
        self._refresh()
        # What the kernel counts from is also in /proc/stat, which hardened services do not see.
        booted = unix() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._started = booted + self._of_stat(21) / _TICKS
        self.pauses = Pauses(
            "go_gc_duration_seconds", "Time the cycle collector stopped the process.", clock, unix
        )
        registry.add(self.pauses)
        registry.on_scrape(self._refresh)
        for name, (text, read) in {**self._process(), **self._memory()}.items():
            add = registry.counter if name.endswith("_total") else registry.gauge
            add(name, text).read = read
        info = registry.rows("go_info", "gauge", "What runs the server.", ("version",))
        version = f"none ({platform.python_implementation()} {platform.python_version()})"
        info.rows = lambda: [((version,), 1)]

    def close(self) -> None:
        """Look at the collector no more."""
        self.pauses.close()

    def _process(self) -> dict[str, tuple[str, Callable[[], Number]]]:
        return {
            "process_cpu_seconds_total": ("CPU seconds used, user and system.", _cpu_seconds),
            "process_network_receive_bytes_total": ("Bytes received by the host.", lambda: self._bytes(0)),
            "process_network_transmit_bytes_total": ("Bytes sent by the host.", lambda: self._bytes(8)),
            "os_fd_limit": ("Descriptors the process may open.", _descriptor_limit),
            "os_fd_used": ("Descriptors open.", self._descriptors),
            "process_max_fds": ("Descriptors the process may open.", _descriptor_limit),
            "process_open_fds": ("Descriptors open.", self._descriptors),
            "process_resident_memory_bytes": ("Memory in RAM.", lambda: self._of_stat(23) * _PAGE_BYTES),
            "process_virtual_memory_bytes": ("Memory mapped.", lambda: self._of_stat(22)),
            "process_virtual_memory_max_bytes": ("Memory that may be mapped.", _memory_limit),
            "process_start_time_seconds": ("Unix time of the start.", lambda: self._started),
            "go_threads": ("Threads of the process.", lambda: self._of_stat(19)),
            "go_goroutines": ("Tasks on the event loop, the nearest there is to goroutines.", _tasks),
            "go_sched_gomaxprocs_threads": ("Processors usable.", lambda: len(os.sched_getaffinity(0))),
        }

    def _memory(self) -> dict[str, tuple[str, Callable[[], Number]]]:
        nothing: Callable[[], Number] = lambda: 0  # noqa: E731
        anonymous = self._anonymous
        return {
            "go_gc_gogc_percent": (
                "New objects, in percent of the old ones, that start a full collection.",
                lambda: _FULL_COLLECTION_PERCENT,
            ),
            "go_gc_gomemlimit_bytes": (
                "Memory that may be mapped.",
                lambda: min(_memory_limit(), _INT64_MAX),
            ),
            "go_memstats_alloc_bytes": ("Anonymous memory in RAM.", anonymous),
            "go_memstats_alloc_bytes_total": ("Most memory that was in RAM at once.", self._most),
            "go_memstats_buck_hash_sys_bytes": ("None: there is no such table.", nothing),
            "go_memstats_frees_total": ("Objects freed by the cycle collector.", _collected),
            "go_memstats_gc_sys_bytes": ("None: the collector keeps nothing of its own.", nothing),
            "go_memstats_heap_alloc_bytes": ("Anonymous memory in RAM.", anonymous),
            "go_memstats_heap_idle_bytes": ("Data segment that is not in RAM.", self._idle),
            "go_memstats_heap_inuse_bytes": ("Anonymous memory in RAM.", anonymous),
            "go_memstats_heap_objects": ("Blocks of memory that objects lie in.", sys.getallocatedblocks),
            "go_memstats_heap_released_bytes": ("Data segment that is not in RAM.", self._idle),
            "go_memstats_heap_sys_bytes": ("Size of the data segment.", lambda: self._of_status(b"VmData")),
            "go_memstats_last_gc_time_seconds": ("Unix time of the last collection.", self._last_collection),
            "go_memstats_mallocs_total": (
                "Most blocks in use at once, and objects collected.",
                self._mallocs,
            ),
            "go_memstats_mcache_inuse_bytes": ("None: there are no such caches.", nothing),
            "go_memstats_mcache_sys_bytes": ("None: there are no such caches.", nothing),
            "go_memstats_mspan_inuse_bytes": ("None: there are no such spans.", nothing),
            "go_memstats_mspan_sys_bytes": ("None: there are no such spans.", nothing),
            "go_memstats_next_gc_bytes": ("None: collections are not decided by size.", nothing),
            "go_memstats_other_sys_bytes": ("None: all there is counts elsewhere.", nothing),
            "go_memstats_stack_inuse_bytes": ("Stack of the main thread.", self._stack),
            "go_memstats_stack_sys_bytes": ("Stack of the main thread.", self._stack),
            "go_memstats_sys_bytes": (
                "Data segment and stack.",
                lambda: self._of_status(b"VmData") + self._stack(),
            ),
        }

    # /proc

    def _refresh(self) -> None:
        # Fields are counted from 3 on behind the program's name, which may hold blanks and parentheses.
        self._stat = self._read("/proc/self/stat").rpartition(b") ")[2].split()
        lines = (line.split() for line in self._read("/proc/self/status").splitlines())
        self._status = {line[0][:-1]: int(line[1]) << 10 for line in lines if line[-1:] == [b"kB"]}
        rows = [line.partition(b":") for line in self._read("/proc/self/net/dev").splitlines()[2:]]
        self._network = [numbers.split() for name, _, numbers in rows if name.strip() != b"lo"]

    def _read(self, path: str) -> bytes:
        # Such files have no size to go by.
        fd = self._files.open(path)
        try:
            return self._files.pread(fd, 1 << 20, 0)
        finally:
            self._files.close(fd)

    def _of_stat(self, field: int) -> int:
        return int(self._stat[field + 1 - 3])

    def _of_status(self, name: bytes) -> int:
        return self._status.get(name, 0)

    def _bytes(self, column: int) -> int:
        return sum(int(numbers[column]) for numbers in self._network)

    def _descriptors(self) -> int:
        return len(self._files.listdir("/proc/self/fd")) - 1  # but for the one that lists them

    # Memory

    def _anonymous(self) -> int:
        return self._of_status(b"RssAnon")

    def _idle(self) -> int:
        return max(0, self._of_status(b"VmData") - self._anonymous())

    def _stack(self) -> int:
        return self._of_status(b"VmStk")

    def _most(self) -> int:
        return self._of_status(b"VmHWM")

    def _mallocs(self) -> int:
        self._allocations = max(self._allocations, sys.getallocatedblocks() + _collected())
        return self._allocations

    def _last_collection(self) -> float:
        return self.pauses.last_at


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _collected() -> int:
    return sum(generation["collected"] for generation in gc.get_stats())


def _descriptor_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _memory_limit() -> int:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return 2**64 - 1 if limit == resource.RLIM_INFINITY else limit


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # no loop is running: somebody else's thread reads
        return 0
