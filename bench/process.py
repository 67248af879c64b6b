"""What a process costs, read from /proc: CPU time and anonymous memory.

CPU time is that of the whole process, all its threads, user and system together: what somebody pays for who
runs the server. Memory is what belongs to the process alone (RssAnon); pages of a mapped database file can be
had back at any time and are not counted.
"""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time used so far, in steps of a clock tick (10 ms)."""
    return parse_cpu_ticks(Path(f"/proc/{pid}/stat").read_text()) / _TICKS_PER_SECOND


def anonymous_bytes(pid: int) -> int:
    """Resident memory that no file stands behind."""
    return parse_anonymous_bytes(Path(f"/proc/{pid}/status").read_text())


def parse_cpu_ticks(stat: str) -> int:
    """utime + stime of a /proc/PID/stat line. The name in it may hold blanks and parentheses itself."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


def parse_anonymous_bytes(status: str) -> int:
    """RssAnon of a /proc/PID/status text, in bytes. ValueError when there is none."""
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no RssAnon in the status: a kernel thread, or a kernel before 4.5")
