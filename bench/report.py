"""A run as files: everything as JSON, and a text with tables that people read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

from bench.results import Comparison, Run, Verdict, judge_all
from bench.servers import GO, PYETCD
from bench.workloads import CPU, LABELS, LATE, P50, P99, TARGETS, THROUGHPUT

FULL_KEYS = 1_000_000


def as_json(run: Run) -> str:
    """Every round, medians, ratios and verdicts."""
    document = dataclasses.asdict(run)
    for one, comparison in zip(document["comparisons"], run.comparisons, strict=True):
        one["median"] = {
            kind: {metric: comparison.median(kind, metric) for metric in comparison.metrics}
            for kind in (GO, PYETCD)
        }
        one["ratio"] = {metric: comparison.ratio(metric) for metric in comparison.metrics}
    document["targets"] = [
        {**dataclasses.asdict(verdict.target), "measured": verdict.measured, "met": verdict.met}
        for verdict in judge_all(run, TARGETS)
    ]
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def as_markdown(run: Run, picture: str) -> str:
    """The report; `picture` is the file name of the plot beside it."""
    machine = run.machine
    lines = [
        f"# pyetcd beside etcd {run.versions['etcd']}, {run.when}",
        "",
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB, {machine.kernel}; "
        f"{machine.python}, {machine.go}; pyetcd {run.versions['pyetcd']}.",
        "",
        f"Alternating rounds of both servers, driven by the Go client on the same machine, nothing pinned: "
        f"{run.rounds} rounds of {run.seconds:g} s, medians. A ratio is pyetcd : Go. CPU is user and system "
        "time of the whole server process, in a cluster of all members, over the operations measured. In a "
        "cluster each connection is to one member, all members in turn, as in etcd's own benchmark.",
        "",
        f"![ratios]({picture})",
        "",
    ]
    verdicts = judge_all(run, TARGETS)
    if verdicts:
        lines += ["## Targets", "", *_targets(verdicts, run.keys), ""]
    repeated = [one for one in run.comparisons if THROUGHPUT in one.metrics]
    if repeated:
        lines += ["## Throughput, latency, CPU", "", *_operations(repeated), ""]
    other = [
        (one, metric) for one in run.comparisons for metric in one.metrics if metric not in _OPERATION_METRICS
    ]
    if other:
        lines += ["## Memory, start, leases, elections", "", *_others(other), ""]
    failed = [one for one in run.comparisons if any(one.errors.values())]
    lines += [
        f"Failed operations in {one.title}: Go {one.errors[GO]}, pyetcd {one.errors[PYETCD]}."
        for one in failed
    ]
    return "\n".join(lines).rstrip() + "\n"


_OPERATION_METRICS = (THROUGHPUT, P50, P99, CPU)


def _targets(verdicts: Sequence[Verdict], keys: int) -> list[str]:
    lines = []
    if keys != FULL_KEYS:
        lines += [f"Measured with {keys:,} keys where the targets speak of {FULL_KEYS:,}.", ""]
    lines += ["| workload | measure | target | measured | |", "| --- | --- | --- | --- | --- |"]
    for verdict in verdicts:
        target = verdict.target
        unit = " s" if target.metric == LATE else "×"
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:g}{unit}"
        outcome = "met" if verdict.met else f"**missed by {_factor(verdict.missed_by)}**"
        what = LABELS[target.metric].split(",")[0]
        lines.append(f"| {verdict.title} | {what} | {bound} | {verdict.measured:.2f}{unit} | {outcome} |")
    return lines


def _factor(missed_by: float) -> str:
    """A small miss in percent, a large one as a factor."""
    if math.isinf(missed_by):
        return "everything"
    return f"{(missed_by - 1) * 100:.0f} %" if missed_by < 2 else f"{missed_by:.1f}×"


def _operations(comparisons: Sequence[Comparison]) -> list[str]:
    heads = ["workload"]
    for metric in _OPERATION_METRICS:
        heads += [f"{LABELS[metric]}: Go", "pyetcd", "ratio"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " + "| ---: " * (len(heads) - 1) + "|"]
    for one in comparisons:
        cells = [one.title]
        for metric in _OPERATION_METRICS:
            if metric in one.metrics:
                ratio = f"**{one.ratio(metric):.2f}**"
                cells += [figure(one.median(GO, metric)), figure(one.median(PYETCD, metric)), ratio]
            else:
                cells += ["", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _others(rows: Sequence[tuple[Comparison, str]]) -> list[str]:
    lines = ["| what | measure | Go | pyetcd | ratio |", "| --- | --- | ---: | ---: | ---: |"]
    for one, metric in rows:
        go, pyetcd = figure(one.median(GO, metric)), figure(one.median(PYETCD, metric))
        lines.append(f"| {one.title} | {LABELS[metric]} | {go} | {pyetcd} | **{one.ratio(metric):.2f}** |")
    return lines


def figure(value: float) -> str:
    """Three digits that count, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
