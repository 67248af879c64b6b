"""The benchmark's arithmetic and its texts; what needs servers is the benchmark itself."""

import json
from pathlib import Path

import pytest

from bench.__main__ import _names
from bench.cluster import Cluster, Member
from bench.load import Sample, parse_result
from bench.machine import Machine, parse_cpu_model
from bench.plot import advantage, draw, rows
from bench.process import parse_anonymous_bytes, parse_cpu_ticks
from bench.programs import Programs
from bench.report import as_json, as_markdown, figure
from bench.results import Comparison, Run, judge, judge_all
from bench.servers import GO, PYETCD
from bench.workloads import (
    CLUSTERS,
    CPU,
    ELECT,
    ELECTION,
    LATE,
    MEMORY,
    NAMES,
    P99,
    TARGETS,
    THROUGHPUT,
    Target,
)

MACHINE = Machine("A processor", 2, 4.0, "Linux 6.1", "CPython 3.11.2", "go1.26.1")


def sample(ops: int, seconds: float, cpu: float, p50: float = 100.0, errors: int = 0) -> Sample:
    return Sample(ops, seconds, p50, 2 * p50, cpu, errors, 0.0)


def puts() -> Comparison:
    """Three rounds, the middle ones 1,000/s at 50 us for Go and 2,000/s at 30 us for pyetcd."""
    comparison = Comparison("put-64", "put, 64 clients")
    for kind, rate, cpu in ((GO, 1000, 0.05), (PYETCD, 2000, 0.06)):
        comparison.note_sample(kind, sample(rate, 1.0, cpu))
        comparison.note_sample(kind, sample(rate * 10, 1.0, cpu))
        comparison.note_sample(kind, sample(rate // 10, 1.0, cpu))
    return comparison


def a_run(*comparisons: Comparison) -> Run:
    versions = {"etcd": "3.7.1", "pyetcd": "0.1.0"}
    return Run("2026-01-02", MACHINE, versions, 3, 1.0, 1_000_000, list(comparisons))


def test_cpu_time_is_read_past_a_name_with_blanks_and_parentheses() -> None:
    stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 731 169 5 6 20 0 4 0 100 1000 10"
    assert parse_cpu_ticks(stat) == 731 + 169


def test_anonymous_memory_is_not_the_whole_resident_set() -> None:
    status = "Name:\tetcd\nVmRSS:\t  900 kB\nRssAnon:\t  300 kB\nRssFile:\t  600 kB\n"
    assert parse_anonymous_bytes(status) == 300 * 1024
    with pytest.raises(ValueError, match="no RssAnon"):
        parse_anonymous_bytes("Name:\tkthreadd\n")


def test_the_processor_has_the_name_the_kernel_gives_it() -> None:
    assert parse_cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: other\n") == (
        "Some CPU @ 2 GHz"
    )
    assert parse_cpu_model("Features : fp asimd\n") == ""


def test_a_load_s_line_becomes_throughput_and_cost_per_operation() -> None:
    line = (
        '{"workload":"put","clients":64,"ops":500,"seconds":2,"p50_us":7.5,"p99_us":9,"max_us":10,"errors":1}'
    )
    seen = parse_result(line, cpu=0.01)
    assert (seen.throughput, seen.cpu_us_per_op, seen.p50_us, seen.errors) == (250, 20, 7.5, 1)


def test_a_ratio_is_that_of_the_medians() -> None:
    comparison = puts()
    assert comparison.median(GO, THROUGHPUT) == 1000
    assert comparison.median(PYETCD, THROUGHPUT) == 2000
    assert comparison.ratio(THROUGHPUT) == 2
    assert comparison.ratio(CPU) == pytest.approx(0.6)


def test_only_what_both_servers_were_measured_for_is_compared() -> None:
    comparison = Comparison("memory", "memory")
    comparison.note(GO, MEMORY, 100.0)
    assert comparison.metrics == []
    assert judge_all(a_run(comparison), TARGETS) == []


@pytest.mark.parametrize(
    ("target", "met", "missed_by"),
    [
        (Target("put-64", THROUGHPUT, 2.0), True, 1.0),
        (Target("put-64", THROUGHPUT, 4.0), False, 2.0),
        (Target("put-64", CPU, 0.8), True, 0.75),
        (Target("put-64", CPU, 0.5), False, 1.2),
    ],
)
def test_a_target_is_met_or_missed_by_a_factor(target: Target, met: bool, missed_by: float) -> None:
    verdict = judge(target, puts())
    assert verdict.met is met
    assert verdict.missed_by == pytest.approx(missed_by)


def test_an_absolute_target_does_not_look_at_go() -> None:
    comparison = Comparison("expire", "leases")
    comparison.note(GO, LATE, 40.0)
    comparison.note(PYETCD, LATE, 6.0)
    verdict = judge(Target("expire", LATE, 5.0, absolute=True), comparison)
    assert verdict.measured == 6.0
    assert not verdict.met


def test_every_target_speaks_of_a_workload_there_is() -> None:
    assert {target.name for target in TARGETS} <= set(NAMES)


def test_the_report_says_what_was_missed_and_by_how_much() -> None:
    text = as_markdown(a_run(puts()), "picture.png")
    assert "| put, 64 clients | server CPU | ≤ 0.5× | 0.60× | **missed by 20 %** |" in text
    assert "| put, 64 clients | throughput | ≥ 1.2× | 2.00× | met |" in text
    assert "(picture.png)" in text
    assert "A processor, 2 cores, 4 GiB" in text


def test_the_report_counts_operations_that_failed() -> None:
    comparison = puts()
    comparison.note_sample(PYETCD, sample(10, 1.0, 0.1, errors=7))
    assert "Failed operations in put, 64 clients: Go 0, pyetcd 7." in as_markdown(a_run(comparison), "x.png")


def test_a_smaller_data_set_is_told_from_the_one_of_the_targets() -> None:
    run = a_run(puts())
    run.keys = 5000
    assert "Measured with 5,000 keys where the targets speak of 1,000,000." in as_markdown(run, "x.png")


def test_the_json_holds_rounds_medians_ratios_and_verdicts() -> None:
    document = json.loads(as_json(a_run(puts())))
    (one,) = document["comparisons"]
    assert one["figures"]["go"][THROUGHPUT] == [1000, 10000, 100]
    assert one["median"]["pyetcd"][THROUGHPUT] == 2000
    assert one["ratio"][THROUGHPUT] == 2
    assert {"name": "put-64", "metric": CPU, "met": False}.items() <= document["targets"][0].items()
    assert document["machine"]["cpu"] == "A processor"


def test_the_picture_shows_better_to_the_right_whatever_is_measured(tmp_path) -> None:
    comparison = puts()
    assert advantage(comparison, THROUGHPUT) == 2
    assert advantage(comparison, CPU) == pytest.approx(1 / 0.6)
    run = a_run(comparison)
    assert rows(run, [CPU]) == [("put, 64 clients", pytest.approx(1 / 0.6), 2.0)]
    assert rows(run, [P99]) == [("put, 64 clients", 1.0, None)]
    draw(run, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_figures_have_three_digits_that_count() -> None:
    assert [figure(value) for value in (12345.6, 99.96, 12.34, 1.234)] == ["12,346", "100.0", "12.3", "1.23"]


def test_a_group_of_workloads_can_be_chosen_by_its_name() -> None:
    assert _names("put-1,clusters") == ("put-1", *CLUSTERS)


def test_a_cluster_s_election_is_reported_and_drawn() -> None:
    comparison = Comparison(ELECT, "a new leader")
    comparison.note(GO, ELECTION, 1.5)
    comparison.note(PYETCD, ELECTION, 1.2)
    run = a_run(comparison)
    assert "| a new leader | until another leads | ≤ 1.1× | 0.80× | met |" in as_markdown(run, "x.png")
    assert rows(run, [ELECTION]) == [("a new leader", pytest.approx(1.25), pytest.approx(1 / 1.1))]


def test_the_members_of_a_cluster_know_each_other_and_cost_together(monkeypatch) -> None:
    programs = Programs(Path("goetcd"), Path("etcd"), Path("load"), "go1")
    cluster = Cluster(GO, programs, 3)
    commands = [member._command() for member in cluster.members]
    assert all(command[0] == "etcd" for command in commands)
    [initial] = {flag for command in commands for flag in command if flag.startswith("--initial-cluster=")}
    assert all(f"{member.name}={member.peer_url}" in initial for member in cluster.members)
    assert cluster.endpoint.count(",") == 2
    monkeypatch.setattr(Member, "cpu_seconds", lambda member: 0.5)
    assert cluster.cpu_seconds() == 1.5
    cluster.discard()


def test_only_known_workloads_can_be_chosen() -> None:
    assert _names("put-1, page") == ("put-1", "page")
    with pytest.raises(Exception, match="unknown: nonsense"):
        _names("put-1,nonsense")
