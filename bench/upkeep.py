"""`python -m bench.upkeep`: puts on a large database, alone, while it is streamed as a snapshot, and while it
is defragmented; pyetcd beside real etcd. Writes a table to bench/results.

The p99 of puts is told of windows of a second, the median one and the worst one; and the slowest put of all.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import grpc

from bench.load import Sample, run
from bench.process import anonymous_bytes
from bench.programs import REPOSITORY, Programs, build
from bench.rounds import progress
from bench.servers import GO, PYETCD, Server
from pyetcd.proto.rpc_pb2 import DefragmentRequest, SnapshotRequest

CLIENTS = 8
VALUE_BYTES = 10 << 10
ALONE_WINDOWS = 8
CALL_SECONDS = 1200
MIB = 1 << 20
ALONE, SNAPSHOT, DEFRAGMENT = "alone", "snapshot", "defragment"


@dataclass
class Seen:
    """What one server did during one kind of upkeep."""

    windows: list[Sample] = field(default_factory=list)
    seconds: float = 0.0
    grown_bytes: int = 0

    def p99_ms(self, choose: Callable[[Iterable[float]], float]) -> float:
        return choose(window.p99_us for window in self.windows) / 1000

    @property
    def slowest_ms(self) -> float:
        return max(window.max_us for window in self.windows) / 1000

    @property
    def throughput(self) -> float:
        return statistics.median(window.throughput for window in self.windows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.upkeep", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024, help="of the database (default 1024)")
    options = parser.parse_args()
    programs = build()
    seen: dict[str, dict[str, Seen]] = {}
    for kind in (GO, PYETCD):
        server = Server(kind, programs)
        try:
            server.start()
            seen[kind] = measure(programs, server, options.megabytes)
        finally:
            server.discard()
    name = f"{datetime.datetime.now(datetime.UTC).date().isoformat()}-upkeep.md"
    text = table(seen, options.megabytes)
    (REPOSITORY / "bench" / "results" / name).write_text(text)
    print(text)
    return 0


def measure(programs: Programs, server: Server, megabytes: int) -> dict[str, Seen]:
    keys = megabytes * MIB // VALUE_BYTES
    filled = run(programs, server, "fill", clients=CLIENTS, keys=keys, value_bytes=VALUE_BYTES)
    progress(f"fill {server.kind}: {megabytes} MiB in {filled.seconds:.0f} s")
    os.sync()  # what filling has left for the disk to do
    alone = Seen()
    for _ in range(ALONE_WINDOWS):
        alone.windows.append(window(programs, server))
    with grpc.insecure_channel(server.endpoint, options=[("grpc.max_receive_message_length", -1)]) as channel:
        return {
            ALONE: alone,
            SNAPSHOT: during(programs, server, lambda: read_snapshot(channel)),
            DEFRAGMENT: during(programs, server, lambda: defragment(channel)),
        }


def window(programs: Programs, server: Server) -> Sample:
    began = time.monotonic()
    sample = run(programs, server, "put", clients=CLIENTS, seconds=1.0)
    if sample.ops:
        return sample
    took = (time.monotonic() - began) * 1e6  # without any answer
    return replace(sample, p50_us=took, p99_us=took, max_us=took)


def during(programs: Programs, server: Server, upkeep: Callable[[], None]) -> Seen:
    os.sync()
    seen = Seen()
    before = anonymous_bytes(server.pid)
    thread = threading.Thread(target=upkeep)
    began = time.monotonic()
    thread.start()
    while thread.is_alive():
        seen.windows.append(window(programs, server))
        seen.grown_bytes = max(seen.grown_bytes, anonymous_bytes(server.pid) - before)
    thread.join()
    seen.seconds = time.monotonic() - began
    p99, worst = seen.p99_ms(statistics.median), seen.p99_ms(max)
    progress(f"{server.kind}: {seen.seconds:.0f} s, p99 {p99:.1f} ms, {worst:.1f} ms at worst")
    return seen


def read_snapshot(channel: grpc.Channel) -> None:
    stream = channel.unary_stream(
        "/etcdserverpb.Maintenance/Snapshot", request_serializer=SnapshotRequest.SerializeToString
    )
    for _ in stream(SnapshotRequest(), timeout=CALL_SECONDS):
        pass


def defragment(channel: grpc.Channel) -> None:
    call = channel.unary_unary(
        "/etcdserverpb.Maintenance/Defragment", request_serializer=DefragmentRequest.SerializeToString
    )
    call(DefragmentRequest(), timeout=CALL_SECONDS)


def table(seen: dict[str, dict[str, Seen]], megabytes: int) -> str:
    lines = [
        f"# Upkeep of a database of {megabytes} MiB\n",
        f"{CLIENTS} clients put all the while. Snapshots are read by a client in Python on the same machine. "
        "p99 is of the median second, and of the worst one. "
        "Memory is anonymous memory beyond what there was before.\n",
        "| | | duration, s | puts, per s | p99, ms | beside alone | worst p99 | slowest, ms | memory, MiB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, kinds in seen.items():
        alone = kinds[ALONE].p99_ms(statistics.median)
        for name, one in kinds.items():
            p99 = one.p99_ms(statistics.median)
            lines.append(
                f"| {kind} | {name} | {one.seconds:.0f} | {one.throughput:,.0f} "
                f"| {p99:.1f} | {p99 / alone:.1f}x | {one.p99_ms(max):.1f} | {one.slowest_ms:.0f} "
                f"| {one.grown_bytes / MIB:.0f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
