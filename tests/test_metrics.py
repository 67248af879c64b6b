"""Metrics: what is written parses as Prometheus' text format, and numbers read as Go prints them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pyetcd import metrics
from pyetcd.api.grpc_metrics import CODES, GrpcMetrics
from pyetcd.member.features import FeatureGates
from pyetcd.member.metrics import MemberMetrics
from pyetcd.member.process_metrics import ProcessMetrics
from pyetcd.metrics import Registry, exponential, go_number
from pyetcd.storage.files import OsFiles

METHODS = [
    ("/etcdserverpb.KV/Range", False),
    ("/etcdserverpb.Watch/Watch", True),
    ("/etcdserverpb.Maintenance/Snapshot", True),
    ("/grpc.health.v1.Health/Watch", True),
]


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


def test_a_member_shows_etcds_families_with_etcds_types_and_bounds() -> None:
    registry = Registry()
    cells = MemberMetrics(registry)
    cells.identify(0x8E9E05C52164694D, lambda: "3.7.0", FeatureGates().enabled)
    ProcessMetrics(registry, OsFiles())
    grpc = GrpcMetrics(registry, METHODS, extensive=True)
    cells.wal_fsync.observe(0.003)
    cells.apply_duration.cell("Put", "true", "v3").observe(0.00015)
    grpc.handled(1, 1, 6)
    text = registry.expose().decode()
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
        'etcd_server_apply_duration_seconds_bucket{op="Put",success="true",version="v3",le="0.0002"} 1',
        'grpc_server_handled_total{grpc_code="Canceled",grpc_method="Watch",'
        'grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 6',
    ):
        assert line in text.splitlines()


def test_the_cluster_version_is_left_out_until_decided() -> None:
    registry = Registry()
    MemberMetrics(registry).identify(1, lambda: "", FeatureGates().enabled)
    assert lines(registry, "etcd_cluster_version") == []


def test_every_grpc_method_and_code_has_a_row_from_the_start() -> None:
    registry = Registry()
    grpc = GrpcMetrics(registry, METHODS)
    assert len(lines(registry, "grpc_server_handled_total{")) == len(METHODS) * len(CODES)
    assert [line.rpartition("grpc_type=")[2] for line in lines(registry, "grpc_server_started_total{")] == [
        '"unary"} 0',
        '"server_stream"} 0',
        '"bidi_stream"} 0',
        '"server_stream"} 0',
    ]
    grpc.handled(0, 99)
    assert any(
        'grpc_code="Unknown",grpc_method="Range"' in line and line.endswith(" 1")
        for line in lines(registry, "grpc_server_handled_total{")
    )


def test_bounds_double_exactly() -> None:
    assert exponential(0.001, 2, 4) == (0.001, 0.002, 0.004, 0.008)
