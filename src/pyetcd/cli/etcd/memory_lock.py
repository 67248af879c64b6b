"""`--memory-mlock`: what the process has in memory is never swapped out.

etcd locks its database's pages; here all of the process is locked, as its pages come to be used. Where the
system allows only so much, a later allocation would fail in the midst of work: such a start is refused.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from typing import Final

CURRENT: Final = 1
FUTURE: Final = 2
ON_FAULT: Final = 4  # what is mapped and never touched takes no memory

Lock = Callable[[int], int]
"""`mlockall`: takes flags, returns 0 or the number of an error."""


def mlockall(flags: int) -> int:
    return ctypes.get_errno() if _libc().mlockall(flags) else 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def lock_memory(lock: Lock = mlockall, limit: Callable[[], int] | None = None) -> None:
    """OSError when it cannot be locked. `limit`: bytes that may be locked, -1 for all."""
    allowed = (limit or _limit)()
    if allowed != resource.RLIM_INFINITY:
        number, why = 1, f"only {allowed} bytes may be locked (RLIMIT_MEMLOCK, LimitMEMLOCK of systemd)"
    else:
        number = lock(CURRENT | FUTURE | ON_FAULT)
        why = os.strerror(number).lower()
    if number:
        raise OSError(number, f"--memory-mlock: {why}")


def _limit() -> int:
    """The superuser has none; others have theirs raised as far as it goes."""
    if os.geteuid() == 0:
        return resource.RLIM_INFINITY
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    return hard
