"""`python -m bench`: measure pyetcd beside real etcd and write what came out to bench/results.

python -m bench                                     everything, about forty minutes
python -m bench --only put-64,get-64 --seconds 2    a few workloads
python -m bench --keys 50000 --rounds 1             everything, small
python -m bench --only clusters                     3 members beside 3 of real etcd, about five minutes
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench import plot
from bench.elections import elections
from bench.large import expire, large
from bench.load import LoadFailed
from bench.machine import describe
from bench.programs import REPOSITORY, NotBuilt, build
from bench.report import FULL_KEYS, as_json, as_markdown
from bench.results import Run
from bench.rounds import Settings, progress, repeated
from bench.servers import ServerFailed
from bench.workloads import CLUSTERED, ELECT, EXPIRE, GROUPS, NAMES, REPEATED

ETCD = "3.7.1"  # what bench/go/go.mod pins


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        programs = build()
    except NotBuilt as error:
        print(error, file=sys.stderr)
        return 1
    run = Run(
        when=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=describe(programs.go_version),
        versions={"etcd": ETCD, "pyetcd": pyetcd_version()},
        rounds=options.rounds,
        seconds=options.seconds,
        keys=options.keys,
    )
    failure: Exception | None = None
    try:
        measure(Settings(programs, options.rounds, options.seconds, options.keys), options.only, run)
    except (ServerFailed, LoadFailed) as error:
        failure = error
    if run.comparisons:  # what was measured before a failure is kept
        print(write(run, options.out, options.name or run.when))
    if failure is not None:
        print(failure, file=sys.stderr)
        return 1
    return 0


def pyetcd_version() -> str:
    """The package's version and, in a clone, the commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True
    )
    return version("pyetcd") + (f" ({commit.stdout.strip()})" if commit.returncode == 0 else "")


def measure(settings: Settings, wanted: Sequence[str], run: Run) -> None:
    """All workloads that are wanted, into `run`."""
    for workload in REPEATED:
        if workload.name in wanted:
            run.comparisons.append(repeated(settings, workload))
    run.comparisons += large(settings, wanted)
    if EXPIRE in wanted:
        run.comparisons.append(expire(settings))
    for workload in CLUSTERED:
        if workload.name in wanted:
            run.comparisons.append(repeated(settings, workload))
    if ELECT in wanted:
        run.comparisons.append(elections(settings))


def write(run: Run, directory: Path, name: str) -> str:
    """Write JSON, text and picture; the text."""
    directory.mkdir(parents=True, exist_ok=True)
    text = as_markdown(run, f"{name}.png")
    (directory / f"{name}.json").write_text(as_json(run))
    (directory / f"{name}.md").write_text(text)
    plot.draw(run, directory / f"{name}.png")
    progress(f"written to {directory.name}/{name}.json, .md and .png")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measure pyetcd beside real etcd.")
    choices = ", ".join((*GROUPS, *NAMES))
    parser.add_argument("--only", type=_names, default=NAMES, metavar="NAME,…", help=choices)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each server (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round (default 3)")
    parser.add_argument("--keys", type=int, default=FULL_KEYS, help="of the large data set (default 1000000)")
    results = REPOSITORY / "bench" / "results"
    parser.add_argument("--out", type=Path, default=results, help="directory (default bench/results)")
    parser.add_argument("--name", default="", help="of the result files (default: the date)")
    return parser


def _names(text: str) -> tuple[str, ...]:
    given = (name.strip() for name in text.split(",") if name.strip())
    names = tuple(one for name in given for one in GROUPS.get(name, (name,)))
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
