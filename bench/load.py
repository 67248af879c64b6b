"""One run of the Go load against one server, with what the server spent meanwhile."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Protocol

from bench.programs import Programs


class System(Protocol):
    """What is measured: a server, or a cluster as a whole."""

    kind: str

    @property
    def endpoint(self) -> str: ...

    def cpu_seconds(self) -> float:
        """Used so far by all its processes."""
        ...


class LoadFailed(Exception):
    """The load could not do its work."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run measured. Latencies are 0 where a workload has none; `extra` is as it means it."""

    ops: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_seconds: float
    errors: int
    extra: float
    max_us: float = 0.0

    @property
    def throughput(self) -> float:
        return self.ops / self.seconds if self.seconds else 0.0

    @property
    def cpu_us_per_op(self) -> float:
        return self.cpu_seconds / self.ops * 1e6 if self.ops else 0.0


def run(programs: Programs, server: System, workload: str, **options: float | str) -> Sample:
    """Run `workload` to its end. Options are the load's own (`value_bytes` is -value-bytes)."""
    command = [str(programs.load), "-endpoint", server.endpoint, "-workload", workload]
    for name, value in options.items():
        command += [f"-{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    marks: dict[str, float] = {}
    result = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            word = line.strip()
            if word in ("begin", "end"):
                marks[word] = server.cpu_seconds()
            else:
                result = word
        complaint = process.stderr.read().strip()
    if process.returncode != 0 or not result:
        raise LoadFailed(f"{workload} against {server.kind}: {complaint or process.returncode}")
    return parse_result(result, marks["end"] - marks["begin"])


def parse_result(line: str, cpu: float) -> Sample:
    """The line of JSON a load ends with."""
    seen = json.loads(line)
    return Sample(
        ops=int(seen["ops"]),
        seconds=float(seen["seconds"]),
        p50_us=float(seen["p50_us"]),
        p99_us=float(seen["p99_us"]),
        cpu_seconds=cpu,
        errors=int(seen["errors"]),
        extra=float(seen.get("extra", 0.0)),
        max_us=float(seen.get("max_us", 0.0)),
    )
