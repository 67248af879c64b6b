"""Memory is locked as a whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import sys
from pathlib import Path

import pytest

from pyetcd.cli.etcd.memory_lock import lock_memory

sys.path.append(str(Path(__file__).parents[1] / "interop"))
from servers import Etcd


def test_a_limit_refuses_the_start_and_locks_nothing() -> None:
    asked: list[int] = []

    def lock(flags: int) -> int:
        asked.append(flags)
        return 0

    with pytest.raises(OSError, match="--memory-mlock: only 65536 bytes may be locked") as refused:
        lock_memory(lock, lambda: 65536)
    assert refused.value.errno == errno.EPERM
    assert not asked
    lock_memory(lock, lambda: resource.RLIM_INFINITY)
    assert asked == [1 | 2 | 4]


def test_what_the_system_refuses_is_told() -> None:
    with pytest.raises(OSError, match="--memory-mlock: cannot allocate memory"):
        lock_memory(lambda flags: errno.ENOMEM, lambda: resource.RLIM_INFINITY)


def locking_is_allowed() -> bool:
    """Not in every container: asked in a child, which has nothing to lose."""
    child = os.fork()
    if child == 0:
        os._exit(1 if ctypes.CDLL(None).mlockall(7) else 0)
    return os.waitpid(child, 0)[1] == 0 and os.geteuid() == 0


def locked_kilobytes(member: Etcd) -> int:
    status = Path(f"/proc/{member.process.pid}/status").read_text()
    found = re.search(r"VmLck:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


@pytest.mark.skipif(not locking_is_allowed(), reason="this process may not lock memory")
def test_a_member_with_the_flag_is_locked_and_serves(tmp_path: Path) -> None:
    for given, is_locked in (("false", False), ("true", True)):
        directory = tmp_path / given
        directory.mkdir()
        member = Etcd(directory, memory_mlock=given)
        try:
            assert (locked_kilobytes(member) > 10_000) == is_locked
            assert member.put(b"k", bytes(1 << 20)) == 2
        finally:
            member.close()
