"""At a million keys: memory, restart, one stream of everything, paging; and 50,000 leases that end together.

The keys are written once into each server; the rounds then alternate as everywhere.
"""

from __future__ import annotations

from collections.abc import Collection

from bench.load import run
from bench.process import anonymous_bytes
from bench.results import Comparison
from bench.rounds import Pair, Settings, both, progress, settle, tell
from bench.workloads import (
    EXPIRE,
    EXPIRE_TITLE,
    LARGE,
    LATE,
    LEASES_PER_KEY,
    MEMORY,
    RESTART,
)

PAGE_SECONDS = 10.0  # Go needs minutes for all pages; so long is looked at how fast they come
MIB = 1 << 20


def large(settings: Settings, wanted: Collection[str]) -> list[Comparison]:
    """Those of `LARGE` that are wanted."""
    made = {
        name: Comparison(name, title.format(keys=f"{settings.keys:,}"))
        for name, title in LARGE.items()
        if name in wanted
    }
    if not made:
        return []
    with both(settings) as servers:
        _fill(settings, servers)
        if "memory" in made:
            _memory(servers, made["memory"])
        if "stream" in made:
            _stream(settings, servers, made["stream"])
        if "restart" in made or "memory-restarted" in made:
            _restart(settings, servers, made.get("restart"), made.get("memory-restarted"))
        if "page" in made:
            _page(settings, servers, made["page"])
    return list(made.values())


def _fill(settings: Settings, servers: Pair) -> None:
    for kind, server in servers.items():
        sample = run(settings.programs, server, "fill", clients=8, keys=settings.keys)
        progress(f"fill {kind:6}  {settings.keys:,} keys in {sample.seconds:.1f} s")


def _memory(servers: Pair, comparison: Comparison) -> None:
    for kind, server in servers.items():
        settle(server)
        mib = anonymous_bytes(server.pid) / MIB
        comparison.note(kind, MEMORY, mib)
        progress(f"{comparison.name} {kind:6}  {mib:,.0f} MiB")


def _stream(settings: Settings, servers: Pair, comparison: Comparison) -> None:
    for number in range(1, settings.rounds + 1):
        for kind, server in servers.items():
            sample = run(settings.programs, server, "stream", clients=1, keys=settings.keys)
            comparison.note_sample(kind, sample)
            tell(settings, comparison.name, number, kind, sample)


def _restart(
    settings: Settings, servers: Pair, restart: Comparison | None, memory: Comparison | None
) -> None:
    for number in range(1, settings.rounds + 1):
        for kind, server in servers.items():
            server.stop()
            seconds = server.start()
            progress(f"restart {number}/{settings.rounds} {kind:6}  {seconds:.2f} s")
            if restart is not None:
                restart.note(kind, RESTART, seconds)
    if memory is not None:
        _memory(servers, memory)


def _page(settings: Settings, servers: Pair, comparison: Comparison) -> None:
    for number in range(1, settings.rounds + 1):
        for kind, server in servers.items():
            sample = run(
                settings.programs, server, "page", clients=8, keys=settings.keys, seconds=PAGE_SECONDS
            )
            comparison.note_sample(kind, sample)
            tell(settings, comparison.name, number, kind, sample)


def expire(settings: Settings) -> Comparison:
    """Leases with a key each, all ending at one moment: how late the last key goes. It takes a minute."""
    leases = max(int(settings.keys * LEASES_PER_KEY), 1)
    comparison = Comparison(EXPIRE, EXPIRE_TITLE.format(leases=f"{leases:,}"))
    with both(settings) as servers:
        for kind, server in servers.items():
            sample = run(settings.programs, server, "expire", clients=64, conns=16, keys=leases)
            comparison.note(kind, LATE, sample.extra)
            progress(f"{EXPIRE} {kind:6}  the last of {leases:,} keys went {sample.extra:.1f} s late")
    return comparison
