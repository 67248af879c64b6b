"""kill -9 of a loaded member, many times: nothing acknowledged is lost, nothing is half there."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

from crash_check import check
from crash_load import Ledger, Load
from crash_member import ROUNDS, SEED, Crashable

KILLS = 12
SEGMENT_BYTES = 128 << 10
SNAPSHOT_COUNT = 150


def small_segments() -> None:
    """Have the log change its file, and files removed, many times in a second instead of once in hours."""
    from pyetcd.member import snapshots
    from pyetcd.member.opening import open_member

    assert open_member.__kwdefaults__ is not None
    assert snapshots.PURGE_SECONDS > 1
    open_member.__kwdefaults__["segment_bytes"] = SEGMENT_BYTES
    snapshots.PURGE_SECONDS = 0.1


def test_a_loaded_member_that_is_killed_many_times_has_everything_and_nothing_else(tmp_path: Path) -> None:
    rnd = random.Random(SEED)
    flags = {"snapshot_count": SNAPSHOT_COUNT, "snapshot_catchup_entries": 50, "max_wals": 2}
    executable = Crashable(tmp_path, forked=False, **flags)
    forked = Crashable(tmp_path, backend_batch_limit=30, **flags)  # commits one after the other
    ledger = Ledger()
    answers = 0
    pause = threading.Event()
    for number in range(KILLS * ROUNDS):
        # Every third start is of the executable as it is; the others have small files in the log.
        member = executable if number % 3 == 0 else forked
        member.start() if member is executable else member.start(small_segments)
        try:
            check(member, ledger)
            before = member.hash()
            if number % 4 == 3:
                member.stop(signal.SIGKILL)
                member.start()
                assert member.hash() == before, "the same after one more restart"
            load = Load(member, ledger, SEED + number)
            pause.wait(rnd.uniform(0.1, 1.0))
        finally:
            member.stop(signal.SIGKILL)
        answers += load.end()
    forked.start()
    revision = check(forked, ledger)
    forked.stop()
    assert answers > 20 * KILLS
    assert ledger.compacted > 100, "compactions happened in between"
    assert len(list((tmp_path / "data/member/snap").glob("*.snap"))) > 1, "snapshots happened in between"
    first = min((tmp_path / "data/member/wal").glob("*.wal"))
    assert int(first.name[:16], 16) > 0, "and segments of the log were removed"
    print(f"{answers} answers, {revision} revisions")
