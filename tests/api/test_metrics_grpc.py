"""Counts of gRPC calls: what the wire counted becomes what etcd's interceptors would have."""

from pyetcd.api.grpc_metrics import (
    BIDI_STREAM,
    CODES,
    HANDLING_BOUNDS,
    SERVER_STREAM,
    Counts,
    GrpcMetrics,
    kinds,
)
from pyetcd.metrics import Registry

SERVED = [
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.Watch/Watch",
    "/v3lockpb.Lock/Lock",
]
PUT, STREAM, WATCH = 'grpc_method="Put"', 'grpc_method="RangeStream"', 'grpc_service="etcdserverpb.Watch"'


class Wire:
    """Rows as the wire would give them."""

    def __init__(self) -> None:
        self.rows: list[Counts] = [self.row() for _ in SERVED]
        self.malformed = [0] * len(SERVED)
        self.callers: list[tuple[str, int, int]] = []

    def row(
        self, started: int = 0, received: int = 0, sent: int = 0, read_to_end: int = 0, **ended: int
    ) -> Counts:
        codes = [ended.pop(code, 0) for code in CODES]
        assert not ended, "a code that is none"
        durations = [0] * len(HANDLING_BOUNDS) + [sum(codes)]
        return started, received, sent, read_to_end, codes, durations, 60.0 * sum(codes)

    def lines(self, family: str, *labels: str, extensive: bool = False) -> list[str]:
        """Values of the family's series that have all these labels."""
        registry = Registry()
        GrpcMetrics(
            registry, SERVED, lambda: self.rows, lambda: self.callers, self.malformed, extensive=extensive
        )
        lines = registry.expose().decode().splitlines()
        series = [line for line in lines if line.startswith(family + "{")]
        return [line.rpartition(" ")[2] for line in series if all(label in line for label in labels)]


def test_every_method_etcd_registers_has_a_row_for_every_code_from_the_start() -> None:
    assert len(Wire().lines("grpc_server_handled_total")) == 45 * len(CODES)
    for family in ("started", "msg_received", "msg_sent"):
        assert Wire().lines(f"grpc_server_{family}_total") == ["0"] * 45
    assert len(Wire().lines("grpc_server_handling_seconds_count", extensive=True)) == 45
    assert Wire().lines("grpc_server_handling_seconds_count") == []


def test_methods_know_which_side_streams() -> None:
    assert kinds()["/etcdserverpb.Lease/LeaseKeepAlive"] == BIDI_STREAM
    assert kinds()["/etcdserverpb.Maintenance/Snapshot"] == SERVER_STREAM
    assert kinds()["/grpc.health.v1.Health/Watch"] == SERVER_STREAM
    assert kinds()["/v3electionpb.Election/Observe"] == SERVER_STREAM


def test_a_unary_call_counts_an_answer_also_when_it_fails() -> None:
    wire = Wire()
    wire.rows[0] = wire.row(started=5, received=5, sent=3, OK=3, OutOfRange=1)
    assert wire.lines("grpc_server_started_total", PUT) == ["5"]
    assert wire.lines("grpc_server_msg_received_total", PUT) == ["5"]
    assert wire.lines("grpc_server_msg_sent_total", PUT) == ["4"]
    assert wire.lines("grpc_server_handled_total", PUT, '"OutOfRange"') == ["1"]


def test_a_message_that_is_none_never_reached_an_interceptor() -> None:
    wire = Wire()
    wire.rows[0] = wire.row(started=3, received=3, sent=1, OK=1, Internal=2)
    wire.malformed[0] = 2
    assert wire.lines("grpc_server_started_total", PUT) == ["1"]
    assert wire.lines("grpc_server_msg_received_total", PUT) == ["1"]
    assert wire.lines("grpc_server_msg_sent_total", PUT) == ["1"]
    assert wire.lines("grpc_server_handled_total", PUT, '"Internal"') == ["0"]


def test_the_read_that_ends_a_stream_counts_as_received() -> None:
    wire = Wire()
    wire.rows[2] = wire.row(started=6, received=7, sent=20, read_to_end=6, Canceled=6)
    assert wire.lines("grpc_server_msg_received_total", WATCH) == ["13"]
    assert wire.lines("grpc_server_msg_sent_total", WATCH) == ["20"]
    labels = (
        '{grpc_code="Canceled",grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}',
    )
    assert wire.lines("grpc_server_handled_total", *labels) == ["6"]


def test_a_server_stream_receives_one_message_whatever_comes() -> None:
    wire = Wire()
    wire.rows[1] = wire.row(started=4, received=2, read_to_end=4, OK=2, Internal=2)
    assert wire.lines("grpc_server_msg_received_total", STREAM) == ["4"]


def test_durations_are_the_wires() -> None:
    wire = Wire()
    wire.rows[0] = wire.row(OK=2)
    assert wire.lines("grpc_server_handling_seconds_sum", PUT, extensive=True) == ["120"]
    assert wire.lines("grpc_server_handling_seconds_bucket", PUT, 'le="10"', extensive=True) == ["0"]
    assert wire.lines("grpc_server_handling_seconds_count", PUT, extensive=True) == ["2"]


def test_callers_are_told_apart_by_the_version_of_their_api() -> None:
    wire = Wire()
    wire.callers = [("3.7", 4, 0), ("unknown", 1, 2)]
    versions = "etcd_server_client_requests_total"
    assert wire.lines(versions, 'client_api_version="3.7",type="unary"') == ["4"]
    assert wire.lines(versions, 'client_api_version="unknown",type="stream"') == ["2"]
    assert len(wire.lines(versions)) == 3


def test_recipes_are_shown_from_their_first_call_on() -> None:
    wire = Wire()
    lock = 'grpc_method="Lock"'
    for family in ("grpc_server_started_total", "grpc_server_handled_total", "grpc_server_msg_sent_total"):
        assert wire.lines(family, lock) == []
    assert wire.lines("grpc_server_handling_seconds_count", lock, extensive=True) == []
    wire.rows[3] = wire.row(started=2, received=2, sent=1, OK=1)
    assert wire.lines("grpc_server_started_total", lock) == ["2"]
    assert wire.lines("grpc_server_handled_total", lock) == ["1"], "of the code it ended with"
    assert wire.lines("grpc_server_handling_seconds_count", lock, extensive=True) == ["1"]
