"""Alternating rounds: Go, pyetcd, Go, pyetcd, … so that whatever else the machine does meets both alike.

Both servers of a workload run all the time; the one that is not asked is idle. Nothing is pinned to a core:
the load and the server share the machine as they would anywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.cluster import Cluster
from bench.load import Sample, System, run
from bench.programs import Programs
from bench.results import Comparison
from bench.servers import KINDS, Server
from bench.workloads import SMALL_KEYS, Workload

SETTLED_SHARE = 0.05  # of one core, over a second
SETTLE_SECONDS_MAX = 30

Pair = dict[str, Server]


@dataclass(frozen=True, slots=True)
class Settings:
    """`keys`: of the large data set. `seconds`: of one round of a repeated operation."""

    programs: Programs
    rounds: int
    seconds: float
    keys: int


def progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


@contextmanager
def running(made: Mapping[str, Server | Cluster]) -> Iterator[None]:
    """All of `made` run, over empty data directories, and are gone in the end."""
    try:
        for one in made.values():
            one.start()
        yield
    finally:
        for one in made.values():
            one.discard()


@contextmanager
def both(settings: Settings) -> Iterator[Pair]:
    """One server of each kind, running."""
    servers = {kind: Server(kind, settings.programs) for kind in KINDS}
    with running(servers):
        yield servers


@contextmanager
def both_clusters(settings: Settings, size: int) -> Iterator[dict[str, Cluster]]:
    """One cluster of each kind, running."""
    clusters = {kind: Cluster(kind, settings.programs, size) for kind in KINDS}
    with running(clusters):
        yield clusters


def repeated(settings: Settings, workload: Workload) -> Comparison:
    """The rounds of one workload on a small key space."""
    comparison = Comparison(workload.name, workload.title)
    alone = workload.members == 1
    with both(settings) if alone else both_clusters(settings, workload.members) as servers:
        if workload.filled:
            for server in servers.values():
                run(settings.programs, server, "fill", clients=8, keys=SMALL_KEYS)
        for number in range(1, settings.rounds + 1):
            for kind, server in servers.items():
                sample = run(
                    settings.programs,
                    server,
                    workload.load,
                    seconds=settings.seconds,
                    keys=SMALL_KEYS,
                    **workload.options,
                )
                comparison.note_sample(kind, sample)
                tell(settings, workload.name, number, kind, sample)
    return comparison


def tell(settings: Settings, name: str, number: int, kind: str, sample: Sample) -> None:
    progress(
        f"{name} {number}/{settings.rounds} {kind:6}  {sample.throughput:>12,.0f}/s  "
        f"p50 {sample.p50_us:>9,.0f} µs  p99 {sample.p99_us:>9,.0f} µs  CPU {sample.cpu_us_per_op:>8,.1f} µs"
        + (f"  {sample.errors} errors" if sample.errors else "")
    )


def settle(server: System) -> None:
    """Wait until the server has nothing left to do: commits, compaction of memory, garbage."""
    before = server.cpu_seconds()
    for _ in range(SETTLE_SECONDS_MAX):
        time.sleep(1)
        now = server.cpu_seconds()
        if now - before < SETTLED_SHARE:
            return
        before = now
