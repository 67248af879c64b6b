"""What the operating system knows of this process, as metrics: descriptors, memory, CPU, threads.

Read from /proc when somebody scrapes, about 100 us. Names are those of Prometheus' process collector, and of
Go's where a number here means what it means there (threads, concurrent activities); numbers of Go's heap have
no counterpart and are left out.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
from collections.abc import Callable

from pyetcd.metrics import Number, Registry
from pyetcd.storage.files import Files

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessMetrics:
    """Registers the families; all values are read at the scrape."""

    def __init__(self, registry: Registry, files: Files) -> None:
        self._files = files
        self._started = self._start_time()
        counters: dict[str, tuple[str, Callable[[], Number]]] = {
            "process_cpu_seconds_total": ("CPU seconds used, user and system.", self._cpu_seconds),
            "process_network_receive_bytes_total": ("Bytes received by the host.", lambda: self._network(0)),
            "process_network_transmit_bytes_total": ("Bytes sent by the host.", lambda: self._network(8)),
        }
        gauges: dict[str, tuple[str, Callable[[], Number]]] = {
            "os_fd_limit": ("Descriptors the process may open.", _descriptor_limit),
            "os_fd_used": ("Descriptors open.", self._descriptors),
            "process_max_fds": ("Descriptors the process may open.", _descriptor_limit),
            "process_open_fds": ("Descriptors open.", self._descriptors),
            "process_resident_memory_bytes": ("Memory in RAM.", lambda: self._stat(23) * _PAGE_BYTES),
            "process_virtual_memory_bytes": ("Memory mapped.", lambda: self._stat(22)),
            "process_virtual_memory_max_bytes": ("Memory that may be mapped.", _memory_limit),
            "process_start_time_seconds": ("Unix time of the start.", lambda: self._started),
            "go_threads": ("Threads of the process.", lambda: self._stat(19)),
            "go_goroutines": ("Tasks on the event loop, the nearest there is to goroutines.", _tasks),
            "go_sched_gomaxprocs_threads": ("Processors usable.", lambda: len(os.sched_getaffinity(0))),
        }
        for name, (text, read) in counters.items():
            registry.counter(name, text).read = read
        for name, (text, read) in gauges.items():
            registry.gauge(name, text).read = read
        info = registry.rows("go_info", "gauge", "What runs the server.", ("version",))
        version = f"none ({platform.python_implementation()} {platform.python_version()})"
        info.rows = lambda: [((version,), 1)]

    def _read(self, path: str) -> bytes:
        # Such files have no size to go by.
        fd = self._files.open(path)
        try:
            return self._files.pread(fd, 1 << 20, 0)
        finally:
            self._files.close(fd)

    def _stat(self, field: int) -> int:
        # Fields are counted from 3 on behind the program's name, which may hold blanks and parentheses.
        fields = self._read("/proc/self/stat").rpartition(b") ")[2].split()
        return int(fields[field + 1 - 3])

    def _cpu_seconds(self) -> float:
        times = os.times()
        return times.user + times.system

    def _start_time(self) -> float:
        """Unix time; 0 where the system does not tell."""
        for line in self._read("/proc/stat").splitlines():
            if line.startswith(b"btime "):
                return int(line.split()[1]) + self._stat(21) / _TICKS
        return 0.0

    def _descriptors(self) -> int:
        return len(self._files.listdir("/proc/self/fd")) - 1  # but for the one that lists them

    def _network(self, column: int) -> int:
        total = 0
        for line in self._read("/proc/self/net/dev").splitlines()[2:]:
            name, _, numbers = line.partition(b":")
            if name.strip() != b"lo":
                total += int(numbers.split()[column])
        return total


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
