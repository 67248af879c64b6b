"""`check perf`: write for a minute, as fast as a kind of cluster should do it, and judge how that went."""

from __future__ import annotations

import signal
import time

from pyetcd.cli.etcdctl.check import (
    CLEANING_SECONDS,
    compact,
    defragment,
    delete_all,
    load_of,
    refuse_if_used,
    tell_errors,
)
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.interrupts import Interrupts
from pyetcd.cli.etcdctl.load import Crew, Tally, Work
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.settings import Settings
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.cli.progress_bar import ProgressBar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation

LOADS = {"s": (150, 50), "m": (1000, 200), "l": (8000, 500), "xl": (15000, 1000)}  # writes a second, clients
DURATION_SECONDS = 60
KEY_BYTES, VALUE_BYTES = 256, 1024
SHARE_OF_LOAD = 0.9
SLOWEST_SECONDS = 0.5
DEVIATION_SECONDS = 0.1


def perf(call: Invocation) -> None:
    run(call, DURATION_SECONDS)


def run(call: Invocation, duration_seconds: int) -> None:
    """The check, over this time. Exit when the cluster does not pass."""
    per_second, clients = LOADS[load_of(call)]
    settings = Settings(call)
    prefix = call.text("prefix")
    work = Work(
        prefix,
        clients,
        KEY_BYTES,
        VALUE_BYTES,
        seconds=duration_seconds,
        per_second=per_second,
    )
    crew = Crew(settings, work)
    try:
        crew.prepare()
        interrupts = Interrupts((signal.SIGINT,))
        client = Client(settings)
        refuse_if_used(client, prefix, Deadline(duration_seconds), "'")
        tally = _measured(crew, interrupts, duration_seconds)
    finally:
        crew.close()
    _clean_up(client, prefix, call.on("auto-compact"))
    if call.on("auto-defrag"):
        defragment(settings)
    judge(tally, per_second)


def _measured(crew: Crew, interrupts: Interrupts, duration_seconds: int) -> Tally:
    bar = ProgressBar(duration_seconds)
    started = time.monotonic()
    shown = 0

    def told(_: int) -> None:
        nonlocal shown
        passed = min(int(time.monotonic() - started), duration_seconds)
        bar.advance(passed - shown)
        shown = passed

    try:
        return crew.work(told, lambda: interrupts.came)
    finally:
        told(0)
        bar.close()


def _clean_up(client: Client, prefix: str, compacts: bool) -> None:
    try:
        revision = delete_all(client, prefix, Deadline(CLEANING_SECONDS))
    except CallError as error:
        emit(f"FAIL: Cleanup failed during key deletion: ERROR({error})\n")
        return
    if compacts:
        compact(client, revision)


def judge(tally: Tally, per_second: int) -> None:
    """Say what was good and what was not. Exit unless all was good."""
    good = not tally.errors
    if tally.errors:
        tell_errors(tally)
    writes = int(tally.per_second) + 1
    if tally.per_second / per_second <= SHARE_OF_LOAD:
        good = False
        emit(f"FAIL: Throughput too low: {writes} writes/s\n")
    else:
        emit(f"PASS: Throughput is {writes} writes/s\n")
    if tally.slowest > SLOWEST_SECONDS:
        good = False
        emit(f"Slowest request took too long: {tally.slowest:f}s\n")
    else:
        emit(f"PASS: Slowest request took {tally.slowest:f}s\n")
    if tally.deviation > DEVIATION_SECONDS:
        good = False
        emit(f"Stddev too high: {tally.deviation:f}s\n")
    else:
        emit(f"PASS: Stddev is {tally.deviation:f}s\n")
    emit("PASS\n" if good else "FAIL\n")
    if not good:
        raise Exit(ERROR)
