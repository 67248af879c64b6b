"""What a run has measured: for each workload both servers' rounds, their medians, and the ratio of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.load import Sample
from bench.machine import Machine
from bench.servers import GO, KINDS, PYETCD
from bench.workloads import CPU, HIGHER_IS_BETTER, P50, P99, THROUGHPUT, Target

Figures = dict[str, list[float]]
"""Metric → one value a round."""


@dataclass(slots=True)
class Comparison:
    """One workload: for either server the values of every round, by metric."""

    name: str
    title: str
    figures: dict[str, Figures] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    errors: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def note(self, kind: str, metric: str, value: float) -> None:
        self.figures[kind].setdefault(metric, []).append(value)

    def note_sample(self, kind: str, sample: Sample) -> None:
        """Take over what a run of the load brought; latencies only where it measured any."""
        self.errors[kind] += sample.errors
        self.note(kind, THROUGHPUT, sample.throughput)
        self.note(kind, CPU, sample.cpu_us_per_op)
        if sample.p50_us:
            self.note(kind, P50, sample.p50_us)
            self.note(kind, P99, sample.p99_us)

    @property
    def metrics(self) -> list[str]:
        """Those that were measured of both."""
        return [metric for metric in self.figures[GO] if metric in self.figures[PYETCD]]

    def median(self, kind: str, metric: str) -> float:
        return median(self.figures[kind][metric])

    def ratio(self, metric: str) -> float:
        """pyetcd's median over Go's; infinite when Go's is nothing."""
        go = self.median(GO, metric)
        return self.median(PYETCD, metric) / go if go else float("inf")


@dataclass(slots=True)
class Run:
    """Everything that goes into the results."""

    when: str
    machine: Machine
    versions: Mapping[str, str]
    rounds: int
    seconds: float
    keys: int
    comparisons: list[Comparison] = field(default_factory=list)

    def find(self, name: str) -> Comparison | None:
        return next((one for one in self.comparisons if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a target fared. `missed_by`: the factor that is lacking, 1 or less when it is met."""

    target: Target
    title: str
    measured: float
    missed_by: float

    @property
    def met(self) -> bool:
        return self.missed_by <= 1


def judge(target: Target, comparison: Comparison) -> Verdict:
    if target.absolute:
        measured = comparison.median(PYETCD, target.metric)
    else:
        measured = comparison.ratio(target.metric)
    if target.metric in HIGHER_IS_BETTER:
        missed_by = target.bound / measured if measured else float("inf")
    else:
        missed_by = measured / target.bound
    return Verdict(target, comparison.title, measured, missed_by)


def judge_all(run: Run, targets: Sequence[Target]) -> list[Verdict]:
    """Verdicts on those targets whose workload was measured."""
    verdicts = []
    for target in targets:
        comparison = run.find(target.name)
        if comparison is not None and target.metric in comparison.metrics:
            verdicts.append(judge(target, comparison))
    return verdicts
