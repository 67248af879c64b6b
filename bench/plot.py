"""A picture of a run: one row for each workload, pyetcd : Go on a logarithmic scale, the targets as ticks.

Every measure is drawn so that to the right of 1 pyetcd is better; what the axis says is how many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results import Comparison, Run
from bench.workloads import (
    CPU,
    ELECTION,
    HIGHER_IS_BETTER,
    LATE,
    MEMORY,
    P50,
    P99,
    RESTART,
    TARGETS,
    THROUGHPUT,
)

BETTER, WORSE, TARGET = "#2a7f62", "#c0504d", "#222222"
ROW_INCHES = 0.36
LIMITS = (0.1, 100.0)
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)

PANELS = (
    ("Throughput", (THROUGHPUT,)),
    ("Server CPU per operation", (CPU,)),
    ("Median latency", (P50,)),
    ("99th percentile of latency", (P99,)),
    ("Memory, restart, leases, elections", (MEMORY, RESTART, LATE, ELECTION)),
)

Row = tuple[str, float, float | None]
"""Title, how many times better pyetcd is, and where the target lies on that scale."""


def advantage(comparison: Comparison, metric: str) -> float:
    """How many times better pyetcd is."""
    ratio = comparison.ratio(metric)
    if metric in HIGHER_IS_BETTER:
        return ratio
    return 1 / ratio if ratio else LIMITS[1]


def rows(run: Run, metrics: Sequence[str]) -> list[Row]:
    """What one panel shows."""
    found = []
    for comparison in run.comparisons:
        for metric in metrics:
            if metric in comparison.metrics:
                tick = target_of(comparison.name, metric)
                found.append((comparison.title, advantage(comparison, metric), tick))
    return found


def target_of(name: str, metric: str) -> float | None:
    """How many times better than Go this is to be, if anything was said about it."""
    for target in TARGETS:
        if (target.name, target.metric) == (name, metric) and not target.absolute:
            return target.bound if target.at_least else 1 / target.bound
    return None


def draw(run: Run, path: Path) -> None:
    """Write the picture as PNG."""
    panels = [(title, found) for title, metrics in PANELS if (found := rows(run, metrics))]
    heights = [len(found) + 1.6 for _, found in panels]
    figure = Figure(figsize=(10, ROW_INCHES * sum(heights) + 1.2), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for (title, found), (axis,) in zip(panels, axes, strict=True):
        _panel(axis, title, found)
    figure.suptitle(
        f"pyetcd beside etcd {run.versions['etcd']}: "
        "how many times better (right of 1) or worse; black: target\n"
        f"{run.machine.cpu}, {run.machine.cores} cores, {run.machine.python}, {run.when}",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)


def _panel(axis: Axes, title: str, found: Sequence[Row]) -> None:
    axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axis.set_xscale("log")
    axis.set_xlim(*LIMITS)
    axis.set_ylim(len(found) - 0.4, -0.6)
    axis.axvline(1, color="#888888", linewidth=1)
    for place, (_, value, tick) in enumerate(found):
        shown = min(max(value, LIMITS[0]), LIMITS[1])
        better = value >= 1
        axis.barh(place, shown - 1, left=1, height=0.62, color=BETTER if better else WORSE)
        axis.annotate(
            f"{value:.2f}×" if value < 10 else f"{value:.0f}×",
            (shown, place),
            xytext=(5 if better else -5, 0),
            textcoords="offset points",
            ha="left" if better else "right",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            zorder=4,
        )
        if tick is not None:
            axis.plot([tick, tick], [place - 0.42, place + 0.42], color=TARGET, linewidth=2)
    axis.set_yticks(range(len(found)), [name for name, _, _ in found], fontsize=8)
    axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.minorticks_off()
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
