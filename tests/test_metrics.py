"""Metrics: what is written parses as Prometheus' text format, and numbers read as Go prints them."""

import gc
import math
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pyetcd import metrics
from pyetcd.member.features import FeatureGates
from pyetcd.member.metrics import MemberMetrics
from pyetcd.member.process_metrics import ProcessMetrics
from pyetcd.metrics import Registry, exponential, go_number
from pyetcd.storage.files import OsFiles


def lines(registry: Registry, start: str) -> list[str]:
    return [line for line in registry.expose().decode().splitlines() if line.startswith(start)]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (-1, "-1"),
        (0.5, "0.5"),
        (999_999, "999999"),
        (1_000_000, "1e+06"),
        (1_048_576, "1.048576e+06"),
        (2_147_483_648, "2.147483648e+09"),
        (9.223372036854776e18, "9.223372036854776e+18"),
        (1.8446744073709552e19, "1.8446744073709552e+19"),
        (1e21, "1e+21"),
        (0.0001, "0.0001"),
        (1e-05, "1e-05"),
        (1.5e-07, "1.5e-07"),
        (0.000359115, "0.000359115"),
        (100000.0, "100000"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_are_printed_as_go_prints_them(number: float, text: str) -> None:
    assert go_number(number) == text


@given(st.floats(allow_nan=False) | st.integers(-(2**64), 2**64))
def test_a_printed_number_reads_back_as_itself(number: float) -> None:
    assert float(go_number(number)) == float(number)


def test_counters_and_gauges_without_total_in_their_name_keep_it() -> None:
    registry = Registry()
    registry.counter("etcd_server_health_success", "Passed.").value += 3
    registry.gauge("etcd_disk_wal_write_bytes_total", "Bytes\nwritten \\.").value = 12
    assert registry.expose().decode() == (
        "# HELP etcd_disk_wal_write_bytes_total Bytes\\nwritten \\\\.\n"
        "# TYPE etcd_disk_wal_write_bytes_total gauge\n"
        "etcd_disk_wal_write_bytes_total 12\n"
        "# HELP etcd_server_health_success Passed.\n"
        "# TYPE etcd_server_health_success counter\n"
        "etcd_server_health_success 3\n"
    )


def test_a_bound_cell_is_read_at_the_scrape() -> None:
    registry = Registry()
    registry.counter("puts", "Puts.")
    held = [1]
    registry.bind({"puts": lambda: held[0]})
    held[0] = 7
    assert lines(registry, "puts") == ["puts 7"]
    with pytest.raises(KeyError):
        registry.bind({"nothing": lambda: 0})


def test_a_histogram_counts_what_is_at_or_below_each_bound() -> None:
    registry = Registry()
    cell = registry.histogram("h", "H.", (0.5, 1, 2))
    cell.observe_many((0.5, 0.6, 2, 3))
    assert lines(registry, "h") == [
        'h_bucket{le="0.5"} 1',
        'h_bucket{le="1"} 2',
        'h_bucket{le="2"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 6.1",
        "h_count 4",
    ]


def test_labels_are_escaped_and_series_sorted() -> None:
    registry = Registry()
    family = registry.counters("c", "C.", ("a", "b"))
    family.cell("x", 'q"\\\n').value += 1
    family.cell("m", "n").value += 2
    assert lines(registry, "c") == ['c{a="m",b="n"} 2', 'c{a="x",b="q\\"\\\\\\n"} 1']


def test_series_of_a_family_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERIES_MAX", 2)
    registry = Registry()
    counters = registry.counters("c", "C.", ("a",))
    histograms = registry.histograms("h", "H.", (1,), ("a",))
    for number in range(5):
        counters.cell(str(number)).value += 1
        histograms.cell(str(number)).observe(0)
    assert len(lines(registry, "c{")) == 2
    assert len(lines(registry, "h_count")) == 2


def test_a_family_that_cannot_be_read_leaves_the_others() -> None:
    registry = Registry()
    registry.counter("a", "A.").read = lambda: 1 // 0
    registry.counter("b", "B.")
    assert [line for line in registry.expose().decode().splitlines() if line[0] != "#"] == ["b 0"]


def test_a_large_exposition_comes_in_slices_that_join() -> None:
    registry = Registry()
    for name in ("a", "b", "c"):
        family = registry.counters(name, "C.", ("n",))
        for number in range(400):
            family.cell(str(number))
    parts = list(registry.parts())
    assert len(parts) == 4
    assert b"".join(parts) == registry.expose()


def test_what_is_observed_later_is_counted_when_folded_or_shown() -> None:
    registry = Registry()
    family = registry.histograms("h", "H.", (1, 2), ("a",))
    for value in (0.5, 2, 1.5, 9):
        family.cell("x").later.append(value)
    family.cell("y").later.append(1)
    family.cell("y").fold()
    assert (family.cell("y").counts, family.cell("y").later) == ([1, 0, 0], [])
    assert lines(registry, 'h_bucket{a="x"') == [
        'h_bucket{a="x",le="1"} 1',
        'h_bucket{a="x",le="2"} 3',
        'h_bucket{a="x",le="+Inf"} 4',
    ]
    assert lines(registry, 'h_sum{a="x"') == ['h_sum{a="x"} 13']


@given(st.lists(st.floats(0, 10), max_size=50), st.lists(st.floats(0, 10), min_size=1, unique=True))
def test_observing_many_is_observing_each(values: list[float], bounds: list[float]) -> None:
    together, apart = metrics.Histogram(sorted(bounds)), metrics.Histogram(sorted(bounds))
    together.observe_many(values)
    for value in values:
        apart.observe(value)
    assert together.counts == apart.counts
    assert together.total == pytest.approx(apart.total)


def test_cells_that_have_observed_nothing_can_be_hidden() -> None:
    family = metrics.HistogramVec("h", "H.", (1,), ("a",), hide_empty=True)
    registry = Registry()
    registry.add(family)
    family.cell("x")
    family.cell("y").observe(0, 3)
    assert lines(registry, "h_count") == ['h_count{a="y"} 3']


def test_a_table_reads_its_numbers_together_and_shows_them_by_label() -> None:
    registry = Registry()
    registry.add(metrics.Table("t", "counter", "T.", ("a",), [("y",), ("x",)], lambda: [1, 2]))
    assert lines(registry, "t{") == ['t{a="x"} 2', 't{a="y"} 1']


def test_gatherers_fill_cells_before_they_are_read_and_may_fail() -> None:
    registry = Registry()
    cell = registry.counter("c", "C.")

    def gather() -> None:
        cell.value += 1

    registry.on_scrape(lambda: 1 // 0)
    registry.on_scrape(gather)
    assert [lines(registry, "c "), lines(registry, "c ")] == [["c 1"], ["c 2"]]


class OwnProcess(OsFiles):
    """What a service sees under ProcSubset=pid."""

    def open(self, path: str, **how: bool) -> int:
        assert path.startswith("/proc/self/")
        return super().open(path, **how)


def test_the_process_is_measured_where_it_sees_nothing_but_itself() -> None:
    registry = Registry()
    process = ProcessMetrics(registry, OwnProcess(), time.monotonic, time.time)
    try:
        text = registry.expose().decode()
    finally:
        process.close()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    ticks = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    began = int(booted.split()[1]) + int(ticks) / os.sysconf("SC_CLK_TCK")
    assert families["process_start_time_seconds"].samples[0].value == pytest.approx(began, abs=2)


def test_a_member_shows_etcds_families_with_etcds_types_and_bounds() -> None:
    registry = Registry()
    cells = MemberMetrics(registry)
    cells.identify(0x8E9E05C52164694D, lambda: "3.7.0", FeatureGates().enabled)
    process = ProcessMetrics(registry, OsFiles(), time.monotonic, time.time)
    try:
        cells.histogram("etcd_disk_wal_fsync_duration_seconds").observe(0.003)
        text = registry.expose().decode()
    finally:
        process.close()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["etcd_disk_wal_fsync_duration_seconds"].type == "histogram"
    assert families["process_open_fds"].samples[0].value > 2
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
    assert families["process_start_time_seconds"].samples[0].value > 1.6e9
    for line in (
        'etcd_server_version{server_version="3.7.1"} 1',
        'etcd_cluster_version{cluster_version="3.7"} 1',
        'etcd_server_id{server_id="8e9e05c52164694d"} 1',
        'etcd_server_feature_enabled{name="FastLeaseKeepAlive",stage="BETA"} 1',
        "etcd_debugging_mvcc_compact_revision -1",
        "# TYPE etcd_disk_wal_write_bytes_total gauge",
        "# TYPE etcd_debugging_mvcc_keys_total gauge",
        'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.004"} 1',
        'etcd_debugging_lease_ttl_total_bucket{le="8.388608e+06"} 0',
        "etcd_grpc_proxy_cache_hits_total 0",
    ):
        assert line in text.splitlines()


def test_a_collection_is_seen_with_its_pause() -> None:
    registry = Registry()
    process = ProcessMetrics(registry, OsFiles(), time.monotonic, lambda: 1.7e9)
    gc.collect()
    process.close()
    families = {family.name: family for family in text_string_to_metric_families(registry.expose().decode())}
    pauses = {sample.name: sample.value for sample in families["go_gc_duration_seconds"].samples}
    assert families["go_gc_duration_seconds"].type == "summary"
    assert pauses["go_gc_duration_seconds_count"] >= 1
    assert 0 < pauses["go_gc_duration_seconds_sum"] < 60
    assert families["go_memstats_last_gc_time_seconds"].samples[0].value == 1.7e9
    assert families["go_memstats_heap_objects"].samples[0].value > 10_000
    gc.collect()
    assert f"go_gc_duration_seconds_count {pauses['go_gc_duration_seconds_count']:.0f}" in lines(
        registry, "go_gc_duration_seconds_count"
    ), "once closed, nothing more is counted"


def test_the_cluster_version_is_left_out_until_decided() -> None:
    registry = Registry()
    MemberMetrics(registry).identify(1, lambda: "", FeatureGates().enabled)
    assert lines(registry, "etcd_cluster_version") == []


def test_bounds_double_exactly() -> None:
    assert exponential(0.001, 2, 4) == (0.001, 0.002, 0.004, 0.008)
